"""Accuracy against tax: points of several seeds, and the curves through them.

    tax             nats a token of held-out text, minus the base's on the same text
    at equal tax    accuracy minus that of uniform averaging where it costs as much, between two of
                    its points on the straight line
    area            mean accuracy of a curve over taxes from 0 to that of the tuned model
    above uniform   of a curve: its area minus that of uniform averaging, both on straight lines
                    between the taxes of the curve's own points

A mean share of the base tells nothing of what it costs: two averages of one mean may differ by half
a nat. So they are compared at equal tax alone. Curves bend, most of all near the base, so an area
hangs on where its points are: one more there, or one nearer, and the straight line down to chance
is shorter. The area of all of uniform averaging's points is no measure for a curve that has others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures.bootstrap import Interval, interval, nested_replicates, resampled_means
from src.measures.cells import interval_fields
from src.measures.change.layers import over_seeds
from src.measures.pgr import Cell, gaps_recovered

TUNED, BASE, PROBE, UNIFORM, BLOCK = "tuned", "base", "linear_probe", "uniform", "one_block"
ENDS = (TUNED, BASE)
"""Of every curve: a = 0 and a = 1."""
NO_CURVE = (*ENDS, PROBE, BLOCK)
Curve = tuple[np.ndarray, np.ndarray]
"""Taxes and accuracies (k,)."""


@dataclass(frozen=True)
class Point:
    """One average, under each of S seeds."""

    family: str
    a: float
    """Mean share of the base over the blocks."""
    place: str
    """Of one block alone, which; else empty."""
    alphas: str
    """Each block's share, means over seeds."""
    right: np.ndarray
    """(S, n) 1, 0 or 0.5 of the test pairs."""
    nats: np.ndarray
    """(S, R) of each held-out text, minus the base's."""


@dataclass(frozen=True)
class Peers:
    """Correctness (S, n) of a student's teacher and of its ceiling, same seeds and pairs."""

    weak: np.ndarray
    ceiling: np.ndarray


def front_table(points: Sequence[Point], tokens: np.ndarray, sizes: np.ndarray,
                prompts: np.ndarray, peers: Peers | None, config: EvalConfig) -> pd.DataFrame:
    """One row a point: accuracy, tax in nats and bits, PGR, and what it is above uniform averaging.

    Args:
        tokens, sizes: (R,) tokens that are foretold of each text, and their bytes.
        prompts: (n,) of the test pairs.
    """
    taxes, accuracies = _seed_taxes(points, tokens), _seed_accuracies(points)
    rows = []
    for place, point in enumerate(points):
        accuracy = spread(point.right, np.ones(point.right.shape[1]), prompts, config)
        texts = np.arange(len(tokens))
        nats = spread(point.nats, tokens, texts, config)
        bits = spread(point.nats / np.log(2), sizes, texts, config)
        above = [accuracies[place, seed] - _uniform_at(points, taxes, accuracies, seed,
                                                       taxes[place, seed])
                 for seed in range(taxes.shape[1])]
        rows.append({"family": point.family, "a": point.a, "place": point.place,
                     "alphas": point.alphas, "n": point.right.shape[1],
                     "texts": len(tokens), "tokens": int(tokens.sum()),
                     **interval_fields("accuracy", accuracy), **interval_fields("tax", nats),
                     **interval_fields("tax_bits", bits),
                     **interval_fields("above_uniform", over_seeds(above, config.level)),
                     **_pgr(point, peers, prompts, config)})
    return pd.DataFrame(rows)


def areas_table(points: Sequence[Point], tokens: np.ndarray, config: EvalConfig) -> pd.DataFrame:
    """One row a curve: its area, and what that is above uniform averaging's at the curve's own
    taxes. So `above_uniform` is not the difference of two rows of `area`."""
    taxes, accuracies = _seed_taxes(points, tokens), _seed_accuracies(points)
    highest, rows = taxes[_place(points, TUNED)], []
    for family in families(points):
        curves = [_curve(points, taxes, accuracies, family, seed) for seed in range(len(highest))]
        own = [area(*curve, end) for curve, end in zip(curves, highest, strict=True)]
        above = [_area_above(curve, _curve(points, taxes, accuracies, UNIFORM, seed), end)
                 for seed, (curve, end) in enumerate(zip(curves, highest, strict=True))]
        rows.append({"family": family, **interval_fields("area", over_seeds(own, config.level)),
                     **interval_fields("above_uniform", over_seeds(above, config.level))})
    return pd.DataFrame(rows)


def _area_above(own: Curve, uniform: Curve, highest: float) -> float:
    """Area of a curve minus that of uniform averaging, which has points at the curve's own taxes
    alone; a point where uniform averaging has no value is of neither."""
    taxes, accuracies = own
    beside = np.array([at_tax(*uniform, tax) for tax in taxes])
    both = np.isfinite(beside)
    return area(taxes[both], accuracies[both] - beside[both], highest)


def families(points: Sequence[Point]) -> list[str]:
    """The curves that there are, uniform averaging first."""
    return list(dict.fromkeys([UNIFORM, *(point.family for point in points
                                          if point.family not in NO_CURVE)]))


def at_tax(taxes: np.ndarray, accuracies: np.ndarray, tax: float) -> float:
    """Accuracy of a curve (k,) at a tax, on straight lines between its points; NaN beyond them."""
    order = np.argsort(taxes, kind="stable")
    return float(np.interp(tax, taxes[order], accuracies[order], left=np.nan, right=np.nan))


def area(taxes: np.ndarray, accuracies: np.ndarray, highest: float) -> float:
    """Mean accuracy of a curve (k,) over taxes from 0 to `highest`; NaN where nothing was lost."""
    if highest <= 0:
        return float("nan")
    order = np.argsort(taxes, kind="stable")
    x, y = taxes[order], accuracies[order]
    inside = x[(x > 0) & (x < highest)]
    grid = np.concatenate([[0.0], inside, [highest]])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / highest)


def _place(points: Sequence[Point], family: str) -> int:
    return next(place for place, point in enumerate(points) if point.family == family)


def _seed_taxes(points: Sequence[Point], tokens: np.ndarray) -> np.ndarray:
    """(points, S) nats a token."""
    return np.array([point.nats.sum(axis=1) / tokens.sum() for point in points])


def _seed_accuracies(points: Sequence[Point]) -> np.ndarray:
    """(points, S)."""
    return np.array([point.right.mean(axis=1) for point in points])


def _curve(points: Sequence[Point], taxes: np.ndarray, accuracies: np.ndarray, family: str,
           seed: int) -> Curve:
    """Taxes and accuracies (k,) of a family's points and of both ends, under one seed."""
    own = [place for place, point in enumerate(points) if point.family in (family, *ENDS)]
    return taxes[own, seed], accuracies[own, seed]


def _uniform_at(points: Sequence[Point], taxes: np.ndarray, accuracies: np.ndarray, seed: int,
                tax: float) -> float:
    return at_tax(*_curve(points, taxes, accuracies, UNIFORM, seed), tax)


def spread(values: np.ndarray, units: np.ndarray, groups: np.ndarray,
            config: EvalConfig) -> Interval:
    """Sum of `values` (S, n) over that of `units` (n,), mean over seeds, with an interval over
    `groups` and seeds. Units vary little, and enter as a constant."""
    scaled = (values * (len(units) / units.sum()))[:, None]  # (S, 1, n)
    over = resampled_means(scaled.mean(axis=0), groups, samples=config.bootstrap_samples)
    replicates = nested_replicates(scaled, over, groups).along((1,))
    return interval(float(scaled.mean()), replicates, config.level)


def _pgr(point: Point, peers: Peers | None, prompts: np.ndarray,
         config: EvalConfig) -> Mapping[str, object]:
    """The average in the student's place; empty where there is no ceiling, or its gap does not
    carry a ratio."""
    if peers is None:
        return {**interval_fields("pgr", None), "status": "no ceiling"}
    found = gaps_recovered([[Cell(peers.weak, point.right, peers.ceiling)]], prompts,
                           floor=config.pgr_floor, level=config.level,
                           samples=config.bootstrap_samples)[0]
    return {**interval_fields("pgr", found.pgr), "status": found.status}
