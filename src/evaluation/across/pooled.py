"""pooled.csv for experiments that were evaluated before, from their scores."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from configs.schema import EvalConfig
from src.common.console import table_lines
from src.common.errors import UserError
from src.common.files import atomic_path, read_json
from src.evaluation.across.committed_scores import committed_scores
from src.measures.tables import pooled_table
from src.reports.format import number
from src.reports.results import read_csv_table, tidy


def write_pooled(experiments: Sequence[str], results_dir: Path) -> str:
    """Write results/<experiment>/pooled.csv of each; return how its widths compare to pgr.csv's.

    Raises:
        UserError: an experiment without scores, or with fewer than two cells or seeds.
    """
    tables = {name: _pooled(results_dir / name) for name in experiments}
    for name, table in tables.items():
        with atomic_path(results_dir / name / "pooled.csv") as partial:
            table.to_csv(partial, index=False)
    rows = [_compared(results_dir / name, table) for name, table in tables.items()]
    return "\n".join(["median width of pooled intervals over those of pgr.csv:", "", *table_lines(
        ["experiment", "rows", "gain", "gap", "PGR", "defined (pgr.csv)"], rows)])


def _pooled(folder: Path) -> pd.DataFrame:
    runs, pairs = committed_scores(folder)
    meta = read_json(folder / "meta.json")
    config = dataclasses.replace(EvalConfig(), level=meta["level"], pgr_floor=meta["pgr_floor"])
    table = pooled_table([run for run in runs if run.role != "baseline"], pairs, config)
    if not len(table):
        raise UserError(f"{folder.name}: expected two cells and two seeds that all cells have: "
                        "there is nothing to pool")
    return table


def _compared(folder: Path, table: pd.DataFrame) -> list[str]:
    """Rows, median ratios of widths, and how many PGRs are defined in either table."""
    both = tidy(table).merge(read_csv_table(folder / "pgr.csv"), suffixes=("", "_own"),
                             on=["teacher", "student", "method"])
    ratios = [((both[f"{figure}_high"] - both[f"{figure}_low"])
               / (both[f"{figure}_high_own"] - both[f"{figure}_low_own"])).median()
              for figure in ("gain", "gap", "pgr")]
    return [folder.name, f"{len(both)}", *(number(ratio, 2) for ratio in ratios),
            f"{(both.status == 'ok').sum()} ({(both.status_own == 'ok').sum()})"]
