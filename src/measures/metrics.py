"""What is measured on scored pairs: arrays in, numbers and frozen dataclasses out.

A margin is reward_chosen - reward_rejected, in the order of ground truth; above 0 is right. A tie
counts as half right everywhere, as if a fair coin decided it. A share of nothing is NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from src.common.errors import UserError
from src.measures.bootstrap import Interval, interval, resampled_means


def margins_of(rewards: np.ndarray) -> np.ndarray:
    """(n,) float64: chosen - rejected, of rewards (n, 2), in the precision that they have."""
    return (rewards[:, 0] - rewards[:, 1]).astype(np.float64)


def correctness(margins: np.ndarray) -> np.ndarray:
    """1 where the margin is above 0, 0 below, 0.5 at a tie; any shape in, the same out.

    Raises:
        UserError: a margin that is not a finite number.
    """
    margins = np.asarray(margins, dtype=np.float64)
    if not np.isfinite(margins).all():
        raise UserError(f"{np.sum(~np.isfinite(margins))} of {margins.size} margins are not finite "
                        "numbers: the model's rewards overflowed, train and score it again")
    return 0.5 * (1 + np.sign(margins))


def accuracies(margins: np.ndarray, prompt_ids: np.ndarray, *, level: float = 0.95,
               samples: int = 10_000, seed: int = 0) -> list[Interval]:
    """Accuracy of each of R runs on the same pairs, with its cluster-bootstrap interval.

    The interval is about the pairs, not about the seed: one run has one seed.

    Args:
        margins: (R, n)
        prompt_ids: (n,), the prompt of each pair; whole prompts are resampled.
    """
    right = correctness(margins)
    replicates = resampled_means(right, prompt_ids, samples=samples, seed=seed)
    return [interval(mean, column, level)
            for mean, column in zip(right.mean(axis=1), replicates.T, strict=True)]


def ties(margins: np.ndarray) -> int:
    """How many pairs got two equal rewards."""
    return int(np.sum(np.asarray(margins) == 0))


def auroc(margins: np.ndarray, left_is_chosen: np.ndarray) -> float:
    """Area under the ROC curve of the margin left - right as a score for `left is chosen`.

    Args:
        margins: (n,) chosen - rejected.
        left_is_chosen: (n,) bool, `data.records.left_is_chosen` of each pair.
    Returns:
        NaN where all pairs have the chosen answer on one side.
    """
    label = np.asarray(left_is_chosen, dtype=bool)
    if label.all() or not label.any():
        return float("nan")
    return float(roc_auc_score(label, np.where(label, margins, -np.asarray(margins))))


def log_loss(margins: np.ndarray) -> float:
    """Mean of -log P(chosen > rejected), in nats; log 2 is what knowing nothing costs."""
    return float(np.mean(np.logaddexp(0, -np.asarray(margins, dtype=np.float64))))


def brier(margins: np.ndarray) -> float:
    """Mean of (1 - P(chosen > rejected))^2; 0.25 is what knowing nothing costs."""
    return float(np.mean(expit(-np.asarray(margins, dtype=np.float64)) ** 2))


@dataclass(frozen=True)
class CalibrationBin:
    """The pairs whose confidence, P of the side that the model prefers, lies in [low, high)."""

    low: float
    high: float
    """The last bin holds confidence 1 too."""
    n: int
    confidence: float
    """Mean over the bin; as high as `accuracy` in a calibrated model."""
    accuracy: float


def calibration_bins(margins: np.ndarray, bins: int = 10) -> list[CalibrationBin]:
    """Confidence against accuracy in `bins` equal slices of [0.5, 1]; empty slices are left out."""
    right, confidence = correctness(margins), expit(np.abs(margins))
    edges = np.linspace(0.5, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    rows = []
    for i in np.unique(index):
        inside = index == i
        rows.append(CalibrationBin(float(edges[i]), float(edges[i + 1]), int(inside.sum()),
                                   float(confidence[inside].mean()), float(right[inside].mean())))
    return rows


def calibration_error(bins: ArrayLike) -> float:
    """Expected calibration error: the bins' |accuracy - confidence|, weighted by their pairs.

    Args:
        bins: (k, 3) n, confidence, accuracy of each.
    """
    n, confidence, accuracy = np.asarray(bins, dtype=np.float64).T
    return float((np.abs(accuracy - confidence) * n).sum() / n.sum())


@dataclass(frozen=True)
class Imitation:
    """How far a student follows its teacher, as shares of pairs. NaN is a share of no pair."""

    agreement: float
    """Pairs on which both prefer the same answer."""
    agreement_teacher_right: float
    """The same among pairs where the teacher is right: high is good."""
    agreement_teacher_wrong: float
    """The same among pairs where the teacher is wrong: imitated errors."""
    errors_inherited: float
    """Share of the student's errors on which the teacher errs too."""


def imitation(student_margins: np.ndarray, teacher_margins: np.ndarray) -> Imitation:
    """Compare a student with its teacher on the same (n,) pairs."""
    student, teacher = correctness(student_margins), correctness(teacher_margins)
    both_right, both_wrong = student * teacher, (1 - student) * (1 - teacher)
    return Imitation(
        agreement=float(np.mean(both_right + both_wrong)),
        agreement_teacher_right=_share(both_right, teacher),
        agreement_teacher_wrong=_share(both_wrong, 1 - teacher),
        errors_inherited=_share(both_wrong, 1 - student),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    total = whole.sum()
    return float(part.sum() / total) if total > 0 else float("nan")
