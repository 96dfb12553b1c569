"""Finished runs -> the cells that PGR is formed of: teacher, student and ceiling, seed by seed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import EvalConfig
from src.measures import metrics
from src.measures.bootstrap import Interval
from src.measures.intervals import KeyedCell, pooled_gaps
from src.measures.pgr import Cell, GapRecovered, gaps_recovered
from src.measures.run_scores import EvalPairs, RunScores, align

ALL = "all"
"""Teacher and student of an aggregate row."""

CellKey = tuple[str, str, str]
"""Teacher, student and method."""
Correctness = Mapping[tuple, np.ndarray]
"""RunScores.key -> (n,) 1, 0 or, for a tie, 0.5."""


@dataclass(frozen=True)
class Recovered:
    """PGR of one cell, or of all cells of a method together."""

    key: CellKey
    seeds: Sequence[int]
    cells: Sequence[CellKey]
    """What it is formed of: itself alone, or those of an aggregate."""
    result: GapRecovered


def correctness(runs: Sequence[RunScores], pairs: EvalPairs) -> Correctness:
    """Whether each run is right about each of the pairs, in their order."""
    return dict(zip((run.key for run in runs), metrics.correctness(align(runs, pairs)),
                    strict=True))


def recovered(right: Correctness, pairs: EvalPairs, config: EvalConfig,
              ceilings: Mapping[str, str]) -> list[Recovered]:
    """Every cell over the seeds that its runs all have, then one aggregate per method with several.

    An aggregate takes the seeds that all its cells have, so that a failed run unbalances nothing;
    its accuracies, gain and gap are means over cells, its PGR the ratio of their sums.

    Args:
        ceilings: the rung whose ceiling each student is held against; without one it has no cell.
    """
    named = _named(_seeds_of(right, ceilings))
    groups = [[_cell(right, key, used, ceilings) for key in keys] for _, used, keys in named]
    results = gaps_recovered(groups, pairs.prompt_ids, floor=config.pgr_floor, level=config.level,
                             samples=config.bootstrap_samples)
    return [Recovered(*parts, result) for parts, result in zip(named, results, strict=True)]


def pooled(right: Correctness, pairs: EvalPairs, config: EvalConfig,
           ceilings: Mapping[str, str]) -> list[Recovered]:
    """As `recovered`, with the noise of seeds pooled over all cells (`intervals`).

    Every row takes the seeds that all cells have; there are none where that is fewer than two
    cells, seeds or prompts.
    """
    seeds = _seeds_of(right, ceilings)
    common = sorted(set.intersection(*map(set, seeds.values()))) if seeds else []
    if len(seeds) < 2 or len(common) < 2 or len(set(pairs.prompt_ids)) < 2:
        return []
    named = _named(dict.fromkeys(seeds, common))
    cells = [KeyedCell(key[0], ceilings[key[1]], _cell(right, key, common, ceilings))
             for key in seeds]
    places = {key: place for place, key in enumerate(seeds)}
    results = pooled_gaps(cells, [[places[key] for key in keys] for _, _, keys in named],
                          pairs.prompt_ids, floor=config.pgr_floor, level=config.level)
    return [Recovered(*parts, result) for parts, result in zip(named, results, strict=True)]


def _seeds_of(right: Correctness, ceilings: Mapping[str, str]) -> dict[CellKey, list[int]]:
    """The seeds of each cell with all three runs."""
    seeds = defaultdict(list)
    for role, name, teacher, method, seed in right:
        peers = {("teacher", teacher, "", "", seed),
                 ("ceiling", ceilings.get(name, ""), "", "", seed)}
        if role == "student" and peers <= right.keys():
            seeds[teacher, name, method].append(seed)
    return seeds


def _named(seeds: Mapping[CellKey, Sequence[int]]) -> list[tuple[CellKey, list, list[CellKey]]]:
    """Key, seeds and cells of every row: each cell, then the aggregates."""
    named = [(key, sorted(used), [key]) for key, used in seeds.items()]
    for method in dict.fromkeys(key[2] for key in seeds):
        keys = [key for key in seeds if key[2] == method]
        common = sorted(set.intersection(*(set(seeds[key]) for key in keys)))
        if len(keys) > 1 and common:
            named.append(((ALL, ALL, method), common, keys))
    return named


def _cell(right: Correctness, key: CellKey, seeds: Sequence[int],
          ceilings: Mapping[str, str]) -> Cell:
    teacher, student, method = key
    return Cell(np.stack([right["teacher", teacher, "", "", seed] for seed in seeds]),
                np.stack([right["student", student, teacher, method, seed] for seed in seeds]),
                np.stack([right["ceiling", ceilings[student], "", "", seed] for seed in seeds]))


def interval_fields(name: str, figure: Interval | None) -> dict[str, float]:
    """`name`, `name_low` and `name_high` of a row; NaN where there is no such figure."""
    values = (figure.estimate, figure.low, figure.high) if figure else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
