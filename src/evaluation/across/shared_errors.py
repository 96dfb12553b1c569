"""Do errors that teacher and ceiling share predict gain? results/shared_errors/."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.common.console import table_lines
from src.common.errors import UserError
from src.common.files import atomic_path
from src.evaluation.across.committed_scores import committed_scores
from src.measures.comparisons.methods import BASELINE
from src.measures.comparisons.regression import clustered_slope
from src.measures.comparisons.shared_errors import shared_errors_table
from src.reports.figures.shared_errors import shared_errors_figure
from src.reports.figures.style import STYLE, save
from src.reports.format import interval_text, number

PREDICTORS = ("capa", "hard", "wrong_overlap")
MODELS = (("all cells", False, False), ("all cells, same gap", True, False),
          ("within experiments", False, True), ("within experiments, same gap", True, True))
"""Name, whether the gap is held fixed, whether each experiment has its intercept."""


def write_shared_errors(experiments: Sequence[str], results_dir: Path, folder: Path) -> str:
    """Write cells.csv, slopes.csv and their figure into `folder`; return what to print.

    Raises:
        UserError: an experiment without scores, or without a student of the baseline beside its
            teacher and ceiling; fewer than two experiments.
    """
    if len(set(experiments)) < 2:
        raise UserError(f"--experiment {' '.join(experiments)}: expected two experiments at least, "
                        "the interval resamples them")
    config = EvalConfig()
    tables = [_cells(results_dir / name, config) for name in dict.fromkeys(experiments)]
    cells = pd.concat(tables, ignore_index=True)
    slopes = slopes_table(cells, config)
    for name, table in (("cells", cells), ("slopes", slopes)):
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with matplotlib.rc_context(STYLE):
        figure, title, caption = shared_errors_figure(cells, slopes)
        drawn = save(figure, folder / "figures", "shared_errors", title, caption)
    rows = [[row.predictor, row.model, number(row.slope, 2, signed=True),
             interval_text(row.slope_low, row.slope_high, 2), f"{row.cells}",
             f"{row.experiments}"] for row in slopes.itertuples()]
    return "\n".join(["points of gain per 0.1 more of what teacher and ceiling share:", "",
                      *table_lines(["predictor", "model", "slope", "", "cells", "experiments"],
                                   rows, 2),
                      "", f"tables: {folder}/*.csv", f"figure: {drawn.path}"])


def _cells(folder: Path, config: EvalConfig) -> pd.DataFrame:
    runs, pairs = committed_scores(folder)
    table = shared_errors_table([run for run in runs if run.role != "baseline"], pairs, config)
    if not len(table):
        raise UserError(f"{pairs.experiment}: no student of method {BASELINE} beside its teacher "
                        "and its ceiling: leave this experiment out")
    return table


def slopes_table(cells: pd.DataFrame, config: EvalConfig) -> pd.DataFrame:
    """slopes.csv: points of gain per 0.1 more of each predictor, experiments resampled.

    All cells, or with an intercept for each experiment, so that only cells of the same data are
    compared; each also with the gap held fixed, as a wide gap leaves more to gain.
    """
    gain, gap = 100 * cells.gain.to_numpy(), 100 * cells.gap.to_numpy()
    rows = []
    for predictor in PREDICTORS:
        values = cells[predictor].to_numpy()
        known = np.isfinite(values)
        for model, same_gap, within in MODELS:
            held = [gap[known]] if same_gap else []
            found = clustered_slope(gain[known], [10 * values[known], *held],
                                    cells.experiment.to_numpy()[known], within=within,
                                    level=config.level, samples=config.bootstrap_samples)
            rows.append({"predictor": predictor, "model": model, "slope": found.span.estimate,
                         "slope_low": found.span.low, "slope_high": found.span.high,
                         "cells": found.points, "experiments": found.clusters})
    return pd.DataFrame(rows)
