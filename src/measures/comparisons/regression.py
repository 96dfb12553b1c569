"""A line through clustered points, with an interval that resamples whole clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.measures.bootstrap import Interval, interval

FEWEST_CLUSTERS = 5
"""Below, draws of them give no interval: of three, every ninth is one cluster alone, and a plane of
three coefficients goes through three points whatever they are."""


@dataclass(frozen=True)
class Slope:
    """How much the outcome goes with the first of the predictors, the others held fixed."""

    span: Interval
    points: int
    clusters: int


def clustered_slope(outcome: np.ndarray, predictors: Sequence[np.ndarray], clusters: np.ndarray, *,
                    within: bool = False, level: float = 0.95, samples: int = 10_000,
                    seed: int = 0) -> Slope:
    """The least-squares slope on the first predictor, with a percentile interval.

    Points of one cluster are not independent, so clusters are drawn, with all their points. Few
    clusters make such an interval too narrow: with seven, read it as a lower bound of what is
    not known; below FEWEST_CLUSTERS there is none. A draw in which the predictors do not vary has
    no slope and is left out.

    Args:
        outcome: (n,)
        predictors: (n,) each.
        clusters: (n,), the cluster of each point.
        within: whether each cluster has an intercept of its own, so that only what varies inside
            clusters counts.
    """
    names, index = np.unique(clusters, return_inverse=True)
    columns = [np.column_stack([*predictors, outcome])[index == k].astype(np.float64)
               for k in range(len(names))]
    if within:
        columns = [part - part.mean(axis=0) for part in columns]
    moments = np.array([_moments(part) for part in columns])  # (clusters, k + 2, k + 2)
    drawn = np.random.default_rng(seed).integers(0, len(names), (samples, len(names)))
    counts = np.stack([(drawn == k).sum(axis=1) for k in range(len(names))], axis=1)
    slopes = np.array([_slope(np.tensordot(row, moments, 1), within) for row in counts])
    slopes = slopes[np.isfinite(slopes)]
    estimate = _slope(moments.sum(axis=0), within)
    known = len(slopes) and len(names) >= FEWEST_CLUSTERS
    span = (interval(estimate, slopes, level) if known
            else Interval(estimate, float("nan"), float("nan")))
    return Slope(span, len(outcome), len(names))


def _moments(rows: np.ndarray) -> np.ndarray:
    """Sums of products of 1, the predictors and the outcome."""
    full = np.column_stack([np.ones(len(rows)), rows])
    return full.T @ full


def _slope(moments: np.ndarray, within: bool) -> float:
    """Of the first predictor; NaN where the predictors do not vary."""
    first = 1 if within else 0  # points without their clusters' means need no intercept
    left, right = moments[first:-1, first:-1], moments[first:-1, -1]
    scale = np.sqrt(np.diag(left))
    if (scale == 0).any() or np.linalg.cond(left / np.outer(scale, scale)) > 1e12:
        return float("nan")
    return float(np.linalg.solve(left, right)[1 - first])
