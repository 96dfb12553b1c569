"""Scores of weak, student and ceiling -> gain, gap and PGR with intervals.

Gain = student - weak and gap = ceiling - weak come first; PGR = gain / gap only where the gap is
there: its interval lies above 0 and the gap itself reaches the floor. Nothing is clipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from src.common.errors import UserError
from src.measures.bootstrap import (
    Interval,
    NestedReplicates,
    interval,
    nested_replicates,
    resampled_means,
)


@dataclass(frozen=True)
class Cell:
    """Correctness of one teacher, its student and the student's ceiling: (S seeds, n pairs) each,
    the same seeds and test pairs in the same order in all three."""

    weak: np.ndarray
    student: np.ndarray
    ceiling: np.ndarray

    def __post_init__(self):
        shapes = [np.shape(part) for part in (self.weak, self.student, self.ceiling)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise UserError(f"weak, student and ceiling have the shapes {shapes}: expected the "
                            "same seeds x pairs in all, score them on the same test pairs")


@dataclass(frozen=True)
class GapRecovered:
    """One row of PGR: accuracies are means over seeds, pairs and, for an aggregate, cells."""

    weak: float
    student: float
    ceiling: float
    gain: Interval
    gap: Interval
    pgr: Interval | None
    """None where the gap does not carry a ratio."""

    @property
    def status(self) -> str:
        return "undefined" if self.pgr is None else "ok"


def gaps_recovered(groups: Sequence[Sequence[Cell]], prompt_ids: np.ndarray, *, floor: float,
                   level: float = 0.95, samples: int = 10_000, seed: int = 0) -> list[GapRecovered]:
    """Gain, gap and PGR of each group of cells, all on the same resampled prompts.

    A group is one (teacher, student) cell, or several for an aggregate: PGR is then the ratio of
    their summed gains to their summed gaps. Cells of a group have the same seeds.

    Args:
        prompt_ids: (n,), the prompt of each pair.
        floor: the smallest gap in accuracy that PGR is reported for.
    Raises:
        UserError: cells of different shapes, or of other pairs than `prompt_ids`.
    """
    parts = [_group_parts(group, len(prompt_ids)) for group in groups]  # (3, S, n) each
    if not parts:
        return []
    differences = [np.stack([student - weak, ceiling - weak], axis=1)
                   for weak, student, ceiling in parts]  # (S, 2, n) each
    over_prompts = resampled_means(np.concatenate([d.mean(axis=0) for d in differences]),
                                   prompt_ids, samples=samples, seed=seed)  # (samples, 2 groups)
    return [_recovered(part, nested_replicates(difference, over_prompts[:, 2 * i:2 * i + 2],
                                               prompt_ids, seed=seed), floor, level)
            for i, (part, difference) in enumerate(zip(parts, differences, strict=True))]


def _group_parts(group: Sequence[Cell], pairs: int) -> np.ndarray:
    """Weak, student and ceiling correctness (3, S, n), averaged over the cells of a group."""
    shapes = {cell.weak.shape for cell in group}
    if len(shapes) != 1 or next(iter(shapes))[1] != pairs:
        raise UserError(f"an aggregate of cells with seeds x pairs {sorted(shapes)} over {pairs} "
                        "test pairs: expected one shape, give every cell the same seeds and pairs")
    return np.mean([(cell.weak, cell.student, cell.ceiling) for cell in group], axis=0)


def _recovered(parts: np.ndarray, replicates: NestedReplicates, floor: float,
               level: float) -> GapRecovered:
    """`parts` (3, S, n) with the replicates of its gain and gap, as one result."""
    weak, student, ceiling = (float(x) for x in parts.mean(axis=(1, 2)))
    gain = interval(student - weak, replicates.along((1, 0)), level)
    gap = interval(ceiling - weak, replicates.along((0, 1)), level)
    defined = gap.low > 0 and round(gap.estimate, 12) >= floor
    pgr = _ratio_interval(gain.estimate, gap.estimate, replicates, level) if defined else None
    return GapRecovered(weak, student, ceiling, gain, gap, pgr)


def _ratio_interval(gain: float, gap: float, replicates: NestedReplicates,
                    level: float) -> Interval:
    """Fieller's interval with replicates in place of normal quantiles.

    It holds the ratios rho for which gain - rho gap is compatible with 0: those where the share of
    its replicates below 0 lies between the two quantiles. It is bounded exactly where the gap's own
    interval excludes 0, which the caller has checked. (Fieller 1954, Some problems in interval
    estimation, JRSS B 16(2).)
    """
    def compatible(ratio: float) -> bool:
        share = np.mean(replicates.along((1, -ratio)) < 0)
        return (1 - level) / 2 < share < (1 + level) / 2

    estimate = gain / gap
    return Interval(estimate, _edge(compatible, estimate, -1), _edge(compatible, estimate, 1))


def _edge(compatible: Callable[[float], bool], inside: float, side: int) -> float:
    """The last compatible value on one side of `inside`, by doubling and bisection."""
    step = 1.0
    while compatible(inside + side * step):
        step *= 2
    kept = 0.0
    for _ in range(30):
        middle = (kept + step) / 2
        kept, step = (middle, step) if compatible(inside + side * middle) else (kept, middle)
    return inside + side * kept
