"""What weak labels become before a student learns from them. Pure functions: arrays in, labels out.

    labels      (k, n): P(chosen > rejected) of n pairs, by each of the k teachers of a student
    treated     (n,): what the student learns from

A treatment never sees a human label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import MethodConfig
from configs.strict_yaml import require, shown

PROBABILITY_FLOOR = 1e-6
"""Keeps log-odds finite: margins of at most 13.8."""


@dataclass(frozen=True)
class Treatment:
    """What is done with the labels, and whose labels a student gets."""

    treat: Callable[[np.ndarray], np.ndarray]
    """(k, n) -> (n,)."""
    together: bool = False
    """Whether a student learns from all teachers at once, instead of from each by itself."""


def as_is(labels: np.ndarray) -> np.ndarray:
    """The labels of the one teacher."""
    return labels[0]


def mean_margin(labels: np.ndarray) -> np.ndarray:
    """sigmoid of the teachers' mean log-odds: their geometric mean, renormalised (a product of
    experts with weights 1/k; Hinton 2002, Neural Computation 14(8))."""
    return sigmoid(log_odds(labels).mean(axis=0))


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-margin)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -margin))


def log_odds(label: np.ndarray) -> np.ndarray:
    """log(label / (1 - label)), finite for labels of 0 and 1."""
    label = np.clip(label, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.log(label) - np.log1p(-label)


TREATMENTS = {"as_is": Treatment(as_is), "mean_margin": Treatment(mean_margin, together=True)}
"""Every treatment that a method may name."""


def check_treatments(methods: Sequence[MethodConfig], teachers: int, where: str) -> None:
    """UserError for a method whose treatment has no code, or more teachers than there are.

    Args:
        where: names the methods' experiment, for the message.
    """
    for method in methods:
        name = f"{where}: method {method.name}: treatment {shown(method.treatment)}"
        require(method.treatment in TREATMENTS, f"{name} is none of {', '.join(TREATMENTS)}")
        require(teachers > 1 or not TREATMENTS[method.treatment].together,
                f"{name} is of several teachers, and there is one: name more under teachers")
