"""Labels and their log-odds, which are margins: sigmoid and back, who is sure, and how sure."""

import numpy as np
from scipy.optimize import brentq

PROBABILITY_FLOOR = 1e-6
"""Keeps log-odds finite: margins of at most 13.8."""


def sigmoid(margin: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-margin)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -margin))


def log_odds(label: np.ndarray) -> np.ndarray:
    """log(label / (1 - label)), finite for labels of 0 and 1."""
    label = np.clip(label, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.log(label) - np.log1p(-label)


def surest(label: np.ndarray, share: float) -> np.ndarray:
    """(n,) bool: the share of pairs, at least one, whose labels are furthest from 0.5."""
    return largest(np.abs(2 * label - 1), share)


def largest(values: np.ndarray, share: float) -> np.ndarray:
    """(n,) bool: the share of the values, at least one, that are the largest."""
    order = np.argsort(-values, kind="stable")
    found = np.zeros(len(values), bool)
    found[order[:max(1, round(share * len(values)))]] = True
    return found


def temperature(margin: np.ndarray, confidence: float) -> float:
    """T for which the mean of sigmoid(|margin| / T) is `confidence`, between 0.5 and 1; 1 where no
    T does that."""
    size = np.abs(margin)

    def above(log_t: float) -> float:
        return float(sigmoid(size * np.exp(-log_t)).mean()) - confidence

    low, high = -30.0, 30.0
    if not len(size) or above(low) <= 0 or above(high) >= 0:
        return 1.0
    return float(np.exp(brentq(above, low, high, xtol=1e-12)))
