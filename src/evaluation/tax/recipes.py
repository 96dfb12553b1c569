"""Which averages a front is made of: families over a, each block alone, and the two ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.averaging import Adaptive, Recipe
from configs.run import RunConfig
from model.base.trunk import frozen_of
from src.measures.tax.front import BASE, BLOCK, TUNED, UNIFORM

BLOCKS = 3
"""Of the layers that train, of as equal size as there are."""
UNIFORM_ALPHAS = (0.2, 0.4, 0.6, 0.8)
ALPHAS = (0.2, 0.4, 0.6)
"""Means of the families whose blocks differ: beyond, some would have more than all of the base."""
SLOPES = {"part_wise_bottom": (1.5, 0.5), "part_wise_top": (0.5, 1.5)}
"""Family -> the shares of the lowest and the highest block, times the mean; between them a line."""
ADAPTIVE = Adaptive(counted="equal", steps=20, batch_pairs=128, learning_rate=0.2)
"""A step takes seconds to a minute of a large model; ratios hardly move after some ten."""
REST = "embeddings, norm"


@dataclass(frozen=True)
class Average:
    """One point of a front, before it is measured."""

    family: str
    recipe: Recipe
    place: str = ""
    """Of one block alone, which; else empty."""

    @property
    def mean(self) -> float:
        return round(float(np.mean(self.recipe.alphas)), 9)


def averages(run: RunConfig) -> list[Average]:
    """Every point of the run's front, the ends first; ratios of adaptive ones are to be learned.

    Layers that do not train are the base's in any case: blocks are of those that do, and what is
    below them goes with the lowest.
    """
    bounds = block_bounds(run)
    count = len(bounds) + 1
    found = [Average(TUNED, recipe(bounds, [0.0] * count)),
             Average(BASE, recipe(bounds, [1.0] * count)),
             *(Average(UNIFORM, recipe(bounds, [a] * count)) for a in UNIFORM_ALPHAS)]
    if count > 1:
        found += [Average(family, recipe(bounds, [a * share for share in
                                                  np.linspace(*ends, count)]))
                  for family, ends in SLOPES.items() for a in ALPHAS]
        found += [Average("adaptive", Recipe("front", (a,), bounds, embed=a, final_norm=a,
                                             adaptive=ADAPTIVE)) for a in ALPHAS]
    return found + one_block(run, bounds)


def one_block(run: RunConfig, bounds: Sequence[int]) -> list[Average]:
    """Each block alone at the base, all else tuned; embeddings and final norm as one more."""
    below = frozen_of(run)
    edges = [below, *(bound + 1 for bound in bounds), len(run.kept)]
    count = len(bounds) + 1
    found = [Average(BLOCK, recipe(bounds, [float(block == own) for block in range(count)], 0.0),
                     _layers(edges[own], edges[own + 1] - 1)) for own in range(count)]
    return [*found, Average(BLOCK, recipe(bounds, [0.0] * count, 1.0), REST)]


def block_bounds(run: RunConfig) -> tuple[int, ...]:
    """The last layer of each block of the trained layers but the top one."""
    below = frozen_of(run)
    trained = len(run.kept) - below
    count = min(BLOCKS, trained)
    return tuple(below + (i + 1) * trained // count - 1 for i in range(count - 1))


def recipe(bounds: Sequence[int], alphas: Sequence[float], rest: float | None = None) -> Recipe:
    """Blocks with their shares; embeddings and final norm have `rest`, or the mean over blocks."""
    rest = float(np.mean(alphas)) if rest is None and len(set(alphas)) > 1 else rest
    policy = alphas[0] if rest is None else rest
    return Recipe("front", tuple(map(float, alphas)), tuple(bounds), embed=policy,
                  final_norm=policy)


def _layers(first: int, last: int) -> str:
    return f"layer {first + 1}" if first == last else f"layers {first + 1}-{last + 1}"
