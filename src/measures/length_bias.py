"""How far a reward model's preferences go with the length of the answers.

    d = tokens of the chosen answer - tokens of the rejected one        m = the margin

Correlating m with d as they stand, chosen - rejected, compares pairs with each other. Whether a
model favours length is another question: put the two answers of each pair left and right by a coin
(a hash of the pair's id, as trainer batches do), and ask whether left - right rewards go with left
- right lengths. With s = 1 where chosen is left, else -1, that is the correlation r(sm, sd). The
label s can now be held fixed, which in the order chosen - rejected is a constant and explains
nothing:

    r(sm, sd | s) = (r(sm, sd) - r(sm, s) r(sd, s)) / sqrt((1 - r(sm, s)^2) (1 - r(sd, s)^2))

It is what is left of the correlation once the truth's own preference for length, and the model's
for the truth, are taken out: a model that knows the truth and nothing else has r(sm, sd) > 0 where
chosen answers are longer, but r(sm, sd | s) = 0.

The two orders are related. Were every pair entered both ways round, the means of sm, sd and s would
be 0, r(sm, sd) would be sum(md) / sqrt(sum(m^2) sum(d^2)), and r(sm, sd | s) would equal r(m, d)
exactly: the centring of the one is the partialling of the other. With one coin a pair they differ
by the coin's noise. For ranks, which the coin changes, they are related but not equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.measures import metrics
from src.measures.bootstrap import Interval, interval, resampled_weights
from src.measures.groups import GroupAccuracy, group_accuracies

SAMPLES = 2_000
"""Bootstrap samples of a correlation: each costs a pass over the pairs."""
_CONSTANT = 1e-12
"""A column whose variance is a smaller share of its mean square is constant but for rounding."""


@dataclass(frozen=True)
class Correlation:
    """Of margin and length difference, with intervals over prompts; NaN where one is constant."""

    pearson: Interval
    spearman: Interval


@dataclass(frozen=True)
class LengthBias:
    """What the lengths of two answers say about the margin, on pairs that have both."""

    n: int
    truth_order: Correlation
    """r(m, d): chosen - rejected."""
    by_hash: Correlation
    """r(sm, sd): left - right."""
    given_label: Correlation
    """r(sm, sd | s): the same with the label held fixed."""
    groups: Sequence[GroupAccuracy]
    """Accuracy where the longer, the equally long, the shorter answer is chosen."""
    longer_wins: Interval
    """Accuracy of preferring the longer answer; equal lengths count half."""
    prefers_longer: Interval
    """How often the model prefers the longer answer; equal lengths and ties count half."""


def length_bias(margins: np.ndarray, length_chosen: np.ndarray, length_rejected: np.ndarray,
                prompt_ids: np.ndarray, left_is_chosen: np.ndarray, *, level: float = 0.95,
                samples: int = 10_000) -> LengthBias:
    """Measure it on n pairs; pointwise records have no second length and must be left out before.

    Args:
        left_is_chosen: (n,) bool, `data.records.left_is_chosen` of each pair.
        samples: of the bootstrap; correlations take at most SAMPLES.
    """
    margins = np.asarray(margins, dtype=np.float64)
    longer = np.asarray(length_chosen, dtype=np.float64) - length_rejected
    side = np.where(left_is_chosen, 1.0, -1.0)
    truth, hashed, given = _correlations(margins, longer, side, prompt_ids, level,
                                         min(samples, SAMPLES))
    names = ("the longer answer is chosen", "both are equally long", "the shorter answer is chosen")
    groups = group_accuracies(margins, prompt_ids, 1 - np.sign(longer).astype(int), names,
                              level=level, samples=samples)
    rule, model = metrics.accuracies(np.stack([longer, np.sign(margins) * longer]), prompt_ids,
                                     level=level, samples=samples)
    return LengthBias(len(margins), truth, hashed, given, tuple(groups), rule, model)


def _correlations(margins: np.ndarray, longer: np.ndarray, side: np.ndarray,
                  prompt_ids: np.ndarray, level: float, samples: int) -> list[Correlation]:
    """In the order of truth, by hash, and given the label."""
    columns = np.stack([margins, longer, side * margins, side * longer, side])
    places = [np.unique(column, return_inverse=True)[1] for column in columns]

    def both(weights: np.ndarray) -> np.ndarray:
        ranks = np.stack([_ranks(place, weights) for place in places])
        return np.stack([_three(columns, weights), _three(ranks, weights)])  # (2, 3)

    found = both(np.ones(len(margins)))
    replicates = [both(weights) for weights in
                  resampled_weights(prompt_ids, samples=samples)] or [np.full((2, 3), np.nan)]
    spans = [[interval(found[kind, row], np.array([one[kind, row] for one in replicates]), level)
              for kind in (0, 1)] for row in range(3)]
    return [Correlation(*pair) for pair in spans]


def _ranks(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks, up to a constant, of values that occur `weights` times; equal values share theirs.

    Args:
        places: (n,) the place of each value among the distinct ones, ascending.
    """
    counts = np.bincount(places, weights)
    return (np.cumsum(counts) - counts / 2)[places]


def _three(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """r(m, d), r(sm, sd), r(sm, sd | s) of the columns m, d, sm, sd, s under weights."""
    total = weights.sum()
    squares = (columns**2 * weights).sum(axis=1) / total
    centred = columns - ((columns * weights).sum(axis=1) / total)[:, None]
    covariance = (centred * weights) @ centred.T / total
    variance = covariance.diagonal()
    scale = np.sqrt(np.where(variance > _CONSTANT * squares, variance, np.nan))
    r = covariance / np.outer(scale, scale)
    free = (1 - r[2, 4] ** 2) * (1 - r[3, 4] ** 2)
    partial = (r[2, 3] - r[2, 4] * r[3, 4]) / np.sqrt(free) if free > _CONSTANT else np.nan
    return np.array([r[0, 1], r[2, 3], partial])
