"""How often intervals hold the truth, and how wide they are: results/intervals/.

Pooled intervals (`measures.intervals`) beside those of pgr.csv (`measures.pgr`), on experiments of
which everything is known. The second take about ten times as long, so fewer repetitions have them.
`coverage_se` is the Monte-Carlo error of a coverage; the cells of one repetition are one draw.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.common.files import atomic_path
from src.evaluation.simulation.experiments import PAIRS, Scenario, World, scenarios
from src.measures.intervals import pooled_gaps
from src.measures.pgr import GapRecovered, gaps_recovered
from src.reports.figures.coverage import draw_coverage

POOLED, NESTED = "pooled", "nested"
NESTED_SAMPLES = 1000
"""Bootstrap samples of an interval of pgr.csv here; an evaluation has 10,000."""
FLOOR = 0.0
"""PGR is undefined only where the gap's interval holds 0."""


def write_coverage(folder: Path, repetitions: int, nested: int) -> Path:
    """Write coverage.csv and its figure; scenarios that are in it with as many repetitions stay.

    Returns:
        The path of coverage.csv.
    """
    path = folder / "coverage.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    wanted = {POOLED: repetitions, NESTED: min(nested, repetitions)}
    for scenario in tqdm(scenarios(), unit="scenario"):
        if len(table):
            same = (table.scenario == scenario.name) & (table.seeds == scenario.seeds)
            if table[same].groupby("interval").repetitions.first().to_dict() == wanted:
                continue
            table = table[~same]
        found = {kind: [] for kind in wanted}
        for kind, ends in simulate(scenario, repetitions, nested):
            found[kind].append(ends)
        rows = [row for kind, ends in found.items() if ends
                for row in coverage_rows(scenario, kind, np.array(ends))]
        table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
        with atomic_path(path) as partial:
            table.to_csv(partial, index=False, float_format="%.5g")
    draw_coverage(pd.read_csv(path), folder)
    return path


def simulate(scenario: Scenario, repetitions: int, nested: int,
             seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Per repetition and kind of interval: (rows, 3, 2) low and high of gain, gap, PGR; NaN where
    PGR is undefined. The kind `nested` is made for the first `nested` repetitions alone."""
    world = World(scenario)
    rng = np.random.default_rng([seed, scenario.seeds, *scenario.name.encode()])
    count = scenario.teachers * scenario.students
    groups = [*([place] for place in range(count)), list(range(count))]
    prompts = np.arange(PAIRS)
    for repetition in tqdm(range(repetitions), desc=f"{scenario.name}, {scenario.seeds} seeds",
                           leave=False):
        cells = world.draw(rng)
        yield POOLED, _ends(pooled_gaps(cells, groups, prompts, floor=FLOOR))
        if repetition < nested:
            yield NESTED, _ends(gaps_recovered(
                [[cells[place].cell for place in group] for group in groups], prompts, floor=FLOOR,
                samples=NESTED_SAMPLES, seed=repetition))


def _ends(found: list[GapRecovered]) -> np.ndarray:
    missing = (np.nan, np.nan)
    return np.array([[(one.gain.low, one.gain.high), (one.gap.low, one.gap.high),
                      (one.pgr.low, one.pgr.high) if one.pgr else missing] for one in found])


def coverage_rows(scenario: Scenario, kind: str, ends: np.ndarray) -> Iterator[dict]:
    """Rows of coverage.csv: of each figure, over all cells, and of the aggregate.

    Args:
        ends: (repetitions, rows, 3, 2), what `simulate` gave for this kind.
    """
    truth = World(scenario).truth()
    defined = ~np.isnan(ends[..., 0])
    inside = (ends[..., 0] <= truth) & (truth <= ends[..., 1])
    width = ends[..., 1] - ends[..., 0]
    for place, figure in enumerate(("gain", "gap", "pgr")):
        for of, rows in (("cell", slice(None, -1)), ("all cells", slice(-1, None))):
            there, held = defined[:, rows, place], inside[:, rows, place]
            if not there.any():
                continue
            share = held.sum() / there.sum()
            error = np.std(held.sum(1) - share * there.sum(1)) / there.sum(1).mean()
            each = held.sum(0) / np.maximum(1, there.sum(0))
            yield {"scenario": scenario.name, "seeds": scenario.seeds, "interval": kind,
                   "figure": figure, "of": of, "repetitions": len(ends),
                   "defined": there.mean(), "coverage": share,
                   "coverage_se": error / np.sqrt(len(ends)), "worst_cell": each.min(),
                   "width": np.nanmedian(width[:, rows, place])}
