"""What weak labels become before a student learns from them. Pure functions: arrays in, labels out.

Each asks for some of these, and has options of its own (src/methods/named.py). Arrays are of the n
pairs of one split, train_2 or val, whose sides are picked by a hash of the pair:

    label       (n,): P(left > right) by the one teacher
    labels      (k, n): the same by each of several teachers, whom the student learns from together
    earlier     (n,): the same by the student of the method that this one comes `after`
    val_label   (m,): the teacher's of val
    seed        of the run
    features    (n, d) float32: the hidden state of the student's base, cut to the student's layers,
                at the last token of left minus that of right, before anything is trained
    val_features (m, d): the same of val
    prompt      (n,) int: number of each pair's prompt
    truth       (n,): 1 where the human label prefers left, else 0. What asks for it is no method:
                its name begins with `oracle`, which marks its rows

A pair whose sides are swapped has its label swapped, its features negated, and nothing else, or the
human label, which decides what `chosen` is, would come through.
"""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from configs.field_types import NotNegative, Number, Positive, SomeShare
from src.methods.log_odds import log_odds, sigmoid, surest, temperature
from src.methods.named import Named

TREATMENTS = Named("treatment", ("label", "labels", "earlier", "val_label", "seed", "features",
                                 "val_features", "prompt", "truth"))
"""Every treatment that a method may name."""


@dataclass(frozen=True)
class Hints:
    """Hidden states of teachers that a student's own are held to, of K pairs of layers."""

    layers: tuple[int, ...]
    """The student's, from 0."""
    states: tuple[np.ndarray, ...]
    """(n, 2, d_k) float32 each: the teacher's, of chosen and rejected."""


@dataclass(frozen=True)
class Taught:
    """What a student learns from a split of n pairs; a treatment that gives labels alone means
    every pair, all with one weight, in any order."""

    labels: np.ndarray
    """(n,): P(left > right)."""
    weights: np.ndarray | None = None
    """(n,): of each pair's loss; their mean over the pairs that are kept is 1."""
    kept: np.ndarray | None = None
    """(n,) bool: the pairs that are learned from; the others are in no step."""
    first: np.ndarray | None = None
    """(n,) bool: the pairs that alone are learned from in the beginning."""
    first_frac: float = 0.0
    """Of the optimiser steps: how long that is."""
    later_rate: float = 1.0
    """What the learning rate is multiplied with afterwards."""
    votes: np.ndarray | None = None
    """(k, n): each teacher's own label, where the loss asks for them."""
    hints: Hints | None = None
    """Where the loss asks for them."""
    notes: dict[str, float] = field(default_factory=dict)
    """What the treatment found, for people: it is written into the run's manifest.json."""


@TREATMENTS.add("as_is")
def as_is(label: np.ndarray) -> np.ndarray:
    """The labels of the one teacher."""
    return label


@TREATMENTS.add("confident")
def confident(label: np.ndarray, keep_share: SomeShare = 0.5) -> Taught:
    """The share of pairs that the teacher is surest of; the others are dropped."""
    return Taught(label, kept=surest(label, keep_share))


@TREATMENTS.add("confidence_weights")
def confidence_weights(label: np.ndarray, power: NotNegative = 1.0) -> Taught:
    """Loss weights C^power / mean(C^power), C = |2 label - 1| (CW-PO, arXiv 2603.04968).

    Its loss is sum(C l) / sum(C) over a batch. Here the sum of all C is over the whole split, once:
    a batch's own would make the weight of a pair depend on those beside it, and be another one in
    every micro batch and on every rank.
    """
    weights = np.abs(2 * label - 1) ** power
    mean = weights.mean()
    return Taught(label, weights / mean if mean > 0 else np.ones(len(label)))


@TREATMENTS.add("calibrated")
def calibrated(label: np.ndarray, val_label: np.ndarray,
               confidence: Annotated[Number, Field(gt=0.5, lt=1)] = 0.73) -> np.ndarray:
    """sigmoid(log-odds / T), where T makes the teacher's mean confidence on val, max(p, 1 - p),
    equal to `confidence`.

    Without human labels nothing says how often a teacher is right, and those of val are not for
    students. What its own labels on pairs that it never saw do fix is T, once it is said how sure
    a label should be. The default is how often two people prefer the same answer: 72.6 +- 1.5% of
    the time (Ouyang et al. 2022, arXiv 2203.02155, section 3.4).
    """
    return sigmoid(log_odds(label) / temperature(log_odds(val_label), confidence))


@TREATMENTS.add("curriculum")
def curriculum(label: np.ndarray, share: SomeShare = 0.5, first_frac: SomeShare = 0.25,
               later_rate: Positive = 0.5) -> Taught:
    """First the pairs that the teacher is surest of, then all at half the learning rate (the
    "curriculum by description length" of the automated-researcher write-up of 2026: the confident
    half for 2 epochs, then everything for 3, which are 1 to 3 in steps).

    In one run of the usual number of steps: the first quarter of them goes through the surest half;
    the others are the steps that the run would have without it, at their learning rate times
    `later_rate`.
    """
    return Taught(label, first=surest(label, share), first_frac=first_frac, later_rate=later_rate)


@TREATMENTS.add("relabel")
def relabel(label: np.ndarray, earlier: np.ndarray, share: SomeShare = 0.5) -> np.ndarray:
    """The teacher's labels of the pairs that it is surest of, the earlier student's of the others.
    After `confident` with the same share, which that student learned from, this is the second stage
    of arXiv 2503.04249."""
    return np.where(surest(label, share), label, earlier)


@TREATMENTS.add("strong_to_strong")
def strong_to_strong(earlier: np.ndarray) -> np.ndarray:
    """The labels of the earlier student: one more round, by a student that begins anew."""
    return earlier


@TREATMENTS.add("shuffled")
def shuffled(label: np.ndarray, seed: int) -> np.ndarray:
    """A control: labels as sure as the teacher's, on other pairs and for a side drawn by lot. What
    a student gains from them it did not learn from the teacher."""
    draw = np.random.default_rng([seed, 1])
    side = np.sign(label - 0.5) * draw.choice([-1.0, 1.0], len(label))  # turns where sides do
    return 0.5 + side * draw.permutation(np.abs(label - 0.5))


@TREATMENTS.add("truth")
def human_labels(truth: np.ndarray) -> np.ndarray:
    """The human labels: what a method could come to, were its teacher always right."""
    return truth


@TREATMENTS.add("noisy_truth")
def noisy_truth(label: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """A control: the human labels, of which as many are wrong as of the teacher's, drawn by lot.
    It is what errors of this number cost without a pattern that could be learned (Burns et al.
    2023, figure 25)."""
    wrong = np.where(label == 0.5, 0.5, (label > 0.5) != (truth > 0.5)).sum()
    flipped = np.random.default_rng([seed, 2]).permutation(len(label)) < round(wrong)
    return np.where(flipped, 1 - truth, truth)
