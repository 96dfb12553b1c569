"""Intervals of gain, gap and PGR that pool what seeds do over all cells of an experiment.

The interval of one cell knows its seeds' noise from S runs: with S = 3 two degrees of freedom, so a
t of 4.3. An experiment has C cells, and what is alike in all may be estimated from all.

**Model.** (gain, gap) of one cell at seed s and prompt j is mu + a_j + b_s + e_sj, as in
`bootstrap.NestedReplicates`. The mean over P prompts and S seeds has the covariance

    V = A + (B - E) / S,   A = var(a)/P + var(e)/(P S),   B = var(b) + var(e)/P,   E = var(e)/P

A is the cell's own: P is large. B, the covariance between the means of seeds, and E, the part of
it that is noise of prompt x seed, are pooled. Matrices below are of the 2C numbers of all cells;
S_B is their sample covariance over seeds, of n = S - 1 degrees of freedom.

**Pooling.** A pooled figure is a weighted sum over pairs of cells, tr(S_B M), M symmetric. With
u = (1, 0) for a gain, (0, 1) for a gap, (1, -rho) for gain - rho gap, and W (C, C):

    M = W (x) u u'     W = I / C               for a cell: the mean over cells, alike in all
                       W_ij = k_ij / m^2       for a mean of m cells: k_ij = 1 where cells i and j
                                               share a teacher or a ceiling (or i = j), else 0

The second takes each of the m cells as it is. It takes as 0 the covariance of cells that share no
run: only chance ties their gains (a seed that moves all runs alike cancels in a gain).

**Degrees of freedom.** Cells that share a teacher or a ceiling move together: C cells do not give
C n. With T the true covariance of the 2C numbers, S_B ~ Wishart(n, T)/n and

    E tr(S_B M) = tr(TM)    var tr(S_B M) = 2 tr(TMTM) / n    nu_B = n tr(TM)^2 / tr(TMTM)

The last is Satterthwaite's [1]: T_ij is 0 for cells without a shared run, and large for cells with
one. T is not known, and with few seeds S_B in its place is far off: chance covariances would count
as shared runs. But of x = tr(S_B M)^2 and y = tr(S_B M S_B M) Wishart's moments are

    E x = tr(TM)^2 + 2/n tr(TMTM)        E y = (1 + 1/n) tr(TMTM) + 1/n tr(TM)^2

and solving them gives unbiased estimates of both, so nu_B, which is cut to [n, n C]. With two seeds
x = y always, there is nothing to solve, and nu_B = n. The variance of a figure u is then

    V_u = A_u + max(0, B_u - f E_u) / S      1/nu = (A_u/V_u)^2 / (P - 1) + (B_u/(S V_u))^2 / nu_B

with f = (nu_B + 1)/(nu_B + 3), which is that of `NestedReplicates` where nu_B = S - 1: with all of
E taken out, the cut at 0 would make intervals too narrow. Intervals are t's with nu degrees of
freedom, those of PGR Fieller's [2], nu and the cut taken at the estimated rho: all rho for which

    (gain - rho gap)^2 <= t^2 (V_11 - 2 rho V_12 + rho^2 V_22),    a quadratic in rho.

What it assumes: seeds are as noisy in one cell as in another. Where they are not, cells with calm
seeds get too wide and cells with wild ones too narrow an interval: `src.simulate_intervals` says by
how much.

[1] Satterthwaite 1946, An approximate distribution of estimates of variance components.
[2] Fieller 1954, Some problems in interval estimation, JRSS B 16(2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from src.common.errors import UserError
from src.measures.bootstrap import Interval, prompt_sums
from src.measures.pgr import Cell, GapRecovered

GAIN, GAP = np.array([1.0, 0.0]), np.array([0.0, 1.0])


@dataclass(frozen=True)
class KeyedCell:
    """A cell and the runs that it may share with others."""

    teacher: str
    ceiling: str
    cell: Cell


@dataclass(frozen=True)
class Components:
    """What (gain, gap) of C cells are made of; k = 2C, gain and gap of a cell beside each other."""

    means: np.ndarray
    """(k,) over seeds and pairs."""
    seeds: int
    prompts: int
    over_prompts: np.ndarray
    """(k, k), A: the covariance of `means` over prompts."""
    between: np.ndarray
    """(k, k), S_B: the sample covariance of the seeds' own means."""
    interaction: np.ndarray
    """(k, k), E: the part of it that prompt x seed explains."""
    related: np.ndarray
    """(C, C), 1 where two cells share a teacher or a ceiling."""


def components(cells: Sequence[KeyedCell], prompt_ids: np.ndarray) -> Components:
    """Split the noise of all cells, which have the same S >= 2 seeds and n pairs.

    Raises:
        UserError: cells of different shapes, fewer than two seeds or prompts.
    """
    shapes = {one.cell.weak.shape for one in cells}
    if len(shapes) != 1 or next(iter(shapes))[0] < 2 or len(np.unique(prompt_ids)) < 2:
        raise UserError(f"cells with seeds x pairs {sorted(shapes)} on "
                        f"{len(np.unique(prompt_ids))} prompts: expected one shape, two seeds and "
                        "two prompts at least, so that there is noise to pool")
    values = np.stack([part - one.cell.weak for one in cells
                       for part in (one.cell.student, one.cell.ceiling)], axis=1)  # (S, k, n)
    seeds, k, n = values.shape
    sums, sizes = prompt_sums(values.reshape(seeds * k, n), prompt_ids)
    sums = sums.reshape(seeds, k, -1)  # (S, k, P)
    seed_means = sums.sum(axis=2) / n
    parts = (sums - seed_means[:, :, None] * sizes) / n
    common = parts.mean(axis=0)
    rest = (parts - common).transpose(1, 0, 2).reshape(k, -1)
    factor = len(sizes) / (len(sizes) - 1)
    related = np.array([[one.teacher == other.teacher or one.ceiling == other.ceiling
                         for other in cells] for one in cells], dtype=float)
    return Components(seed_means.mean(axis=0), seeds, len(sizes), common @ common.T * factor,
                      np.cov(seed_means, rowvar=False),
                      rest @ rest.T * factor / (seeds - 1), related)


def pooled_gaps(cells: Sequence[KeyedCell], groups: Sequence[Sequence[int]],
                prompt_ids: np.ndarray, *, floor: float, level: float = 0.95) -> list[GapRecovered]:
    """Gain, gap and PGR of each group, as `pgr.gaps_recovered`, with pooled intervals.

    Args:
        groups: the places in `cells` that a row is formed of: one, or several for an aggregate.
    """
    parts = components(cells, prompt_ids)
    accuracies = np.array([[one.cell.weak.mean(), one.cell.student.mean(), one.cell.ceiling.mean()]
                           for one in cells])
    return [_recovered(accuracies[list(group)].mean(axis=0), Figures.of(parts, group), floor, level)
            for group in groups]


@dataclass(frozen=True)
class Figures:
    """(gain, gap) of one group of cells with all that their intervals need, 2 x 2 each."""

    means: np.ndarray
    over_prompts: np.ndarray
    blocks: np.ndarray
    """(C, 2, C, 2), S_B, whole: the degrees of freedom are read off it."""
    interaction: np.ndarray
    """(2, 2), E, pooled as W says."""
    weights: np.ndarray
    """(C, C), W."""
    seeds: int
    prompts: int

    @classmethod
    def of(cls, parts: Components, group: Sequence[int]) -> "Figures":
        count = len(parts.related)
        inside = np.isin(np.arange(count), group) / len(group)  # (C,) weights of a mean
        own = np.outer(inside, inside)
        weights = np.eye(count) / count if len(group) == 1 else own * parts.related

        def pooled(matrix: np.ndarray, by: np.ndarray) -> np.ndarray:
            return np.einsum("ij,iajb->ab", by, matrix.reshape(count, 2, count, 2))

        return cls(inside @ parts.means.reshape(count, 2), pooled(parts.over_prompts, own),
                   parts.between.reshape(count, 2, count, 2), pooled(parts.interaction, weights),
                   weights, parts.seeds, parts.prompts)

    def quantile(self, direction: np.ndarray, level: float) -> tuple[float, np.ndarray]:
        """The t of an interval of `direction`'s sum, and the covariance (2, 2) to scale it by."""
        between = np.einsum("ij,iajb->ab", self.weights, self.blocks)
        along = np.einsum("a,iajb,b->ij", direction, self.blocks, direction)
        freedom = pooled_freedom(along, self.weights, self.seeds)
        excess = (between - (freedom + 1) / (freedom + 3) * self.interaction) / self.seeds
        there = direction @ excess @ direction > 0
        covariance = self.over_prompts + excess if there else self.over_prompts
        whole = direction @ covariance @ direction
        shares = np.array([direction @ self.over_prompts @ direction,
                           direction @ between @ direction / self.seeds]) / (whole or 1.0)
        nu = 1 / max(1e-9, shares[0]**2 / (self.prompts - 1) + shares[1]**2 / freedom)
        return float(stdtrit(nu, (1 + level) / 2)), covariance


def pooled_freedom(between: np.ndarray, weights: np.ndarray, seeds: int) -> float:
    """nu_B of the sum of `weights` times `between`.

    Args:
        between: (C, C), the sample covariance of C cells' figures over seeds, S_B in direction u.
        weights: (C, C), W.
    """
    n, count = seeds - 1, len(weights)
    if n == 1:
        return 1.0
    product = between @ weights
    x, y = np.trace(product)**2, np.sum(product * product.T)
    squares = (y - x / n) / (1 + 1 / n - 2 / n**2)  # estimates tr(TMTM)
    if squares <= 0:
        return float(n * count)
    return float(np.clip(n * (x - 2 * squares / n) / squares, n, n * count))


def _recovered(accuracies: np.ndarray, figures: Figures, floor: float,
               level: float) -> GapRecovered:
    gain, gap = (_around(figures, direction, level) for direction in (GAIN, GAP))
    defined = gap.low > 0 and round(gap.estimate, 12) >= floor
    weak, student, ceiling = map(float, accuracies)
    return GapRecovered(weak, student, ceiling, gain, gap,
                        fieller(figures, level) if defined else None)


def _around(figures: Figures, direction: np.ndarray, level: float) -> Interval:
    quantile, covariance = figures.quantile(direction, level)
    estimate = float(direction @ figures.means)
    half = quantile * float(np.sqrt(max(0.0, direction @ covariance @ direction)))
    return Interval(estimate, estimate - half, estimate + half)


def fieller(figures: Figures, level: float) -> Interval | None:
    """Fieller's interval of gain / gap; None where it has no end."""
    gain, gap = figures.means
    ratio = gain / gap
    quantile, covariance = figures.quantile(np.array([1.0, -ratio]), level)
    own, cross, square = quantile**2 * np.array([covariance[0, 0], covariance[0, 1],
                                                 covariance[1, 1]])
    leading, middle = gap**2 - square, gain * gap - cross
    if leading <= 0:
        return None
    root = np.sqrt(max(0.0, middle**2 - leading * (gain**2 - own)))
    return Interval(float(ratio), float((middle - root) / leading),
                    float((middle + root) / leading))
