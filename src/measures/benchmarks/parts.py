"""Scores of a benchmark's parts, with intervals: subsets from their rows, the rest from subsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.measures.bootstrap import interval, resampled_means
from src.measures.metrics import correctness, ties

LEVEL = 0.95
SAMPLES = 2_000


@dataclass(frozen=True)
class Score:
    """What a part of a benchmark comes to."""

    name: str
    kind: str
    """subset, section (made of subsets), style (RM-Bench's easy, normal, hard) or overall."""
    section: str
    """That a subset belongs to, else empty."""
    score: float
    """The benchmark's own."""
    low: float
    """NaN where there is nothing to resample."""
    high: float
    accuracy: float
    """Share of comparisons won, a tie counting one half; mean over rows."""
    n: int
    """Rows that are in the score."""
    ties: int
    """Comparisons of two equal rewards."""
    missing: int
    """Rows that are in no score, for want of a reward."""


@dataclass(frozen=True)
class Part:
    """A score, and what its interval and those of parts made of it are drawn from."""

    score: Score
    replicates: np.ndarray
    """(SAMPLES,) of the score, in bootstrap samples of its prompts."""


def part_of(name: str, score: float, replicates: np.ndarray, margins: Sequence[np.ndarray],
            missing: int, section: str = "", kind: str = "subset", n: int | None = None) -> Part:
    """A part with a score of its own.

    Args:
        margins: better minus worse rewards of each row, for the accuracy.
        n: rows in the score, where it counts rows that have no better response as well.
    """
    found = interval(score, replicates, LEVEL)
    accuracy = float(np.mean([correctness(row).mean() for row in margins])) if margins else np.nan
    return Part(Score(name, kind, section, found.estimate, found.low, found.high, accuracy,
                      len(margins) if n is None else n, sum(ties(row) for row in margins),
                      missing), replicates)


def mean_of_rows(name: str, credit: Sequence[float], prompts: Sequence[str],
                 margins: Sequence[np.ndarray], missing: int, section: str, seed: int,
                 kind: str = "subset") -> Part:
    """A part whose score is the mean of its rows' credits, all (n,).

    Args:
        seed: another for every subset, or they would be resampled as if they were one.
    """
    values = np.asarray(credit, np.float64)
    replicates = resampled_means(values[None], np.asarray(prompts), samples=SAMPLES, seed=seed)
    return part_of(name, float(values.mean()), replicates[:, 0], margins, missing, section, kind)


def mean_of_parts(name: str, kind: str, parts: Sequence[Part],
                  weights: Sequence[float] | None = None) -> Part:
    """The weighted mean of some parts' scores; accuracy is the mean over all their rows."""
    scores = [part.score for part in parts]
    replicates = np.average([part.replicates for part in parts], axis=0, weights=weights)
    found = interval(float(np.average([each.score for each in scores], weights=weights)),
                     replicates, LEVEL)
    rows = [each.n for each in scores]
    return Part(Score(name, kind, "", found.estimate, found.low, found.high,
                      float(np.average([each.accuracy for each in scores], weights=rows)),
                      sum(rows), sum(each.ties for each in scores),
                      sum(each.missing for each in scores)), replicates)
