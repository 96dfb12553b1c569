"""The report of one evaluation, and its short form for the terminal.

    print(write_report(Path("results/demo")))
"""

import textwrap
from pathlib import Path

import matplotlib
import pandas as pd

from src.common.console import table_lines
from src.common.files import write_text
from src.reports import best_ceiling
from src.reports.document import to_html, to_markdown
from src.reports.figures.ladder import accuracy_by_depth
from src.reports.figures.methods import methods_of_experiment
from src.reports.figures.pgr import pgr_heatmap
from src.reports.figures.style import STYLE, Drawn, save
from src.reports.figures.training import calibration_figure, learning_curves
from src.reports.findings import answer, baseline_notes, points
from src.reports.format import BASELINE_NAMES, count, interval_text, number, pgr_text
from src.reports.results import (
    ALL,
    Results,
    Rungs,
    contamination_mark,
    mean_over_seeds,
    read_results,
    tidy,
)
from src.reports.sections import sections

CONSOLE_COLUMNS = 100


def write_report(results_dir: Path) -> Path:
    """Write figures/*.png, report.md and report.html into a results folder.

    Returns:
        The path of report.html, which stands alone.
    Raises:
        UserError: the folder lacks accuracy.csv or meta.json, or a table is broken.
    """
    results = read_results(Path(results_dir))
    blocks = sections(results, draw_figures(results))
    title = f"Weak-to-strong reward models: {results.meta['experiment']}"
    page = results.folder / "report.html"
    write_text(results.folder / "report.md", to_markdown(title, blocks))
    write_text(page, to_html(title, blocks))
    return page


def console_table(pgr_df: pd.DataFrame, accuracy_df: pd.DataFrame,
                  ceilings_df: pd.DataFrame) -> str:
    """The answer in at most 100 columns: models and baselines, then gain, gap and PGR per cell.

    Args:
        pgr_df, accuracy_df, ceilings_df: rows of pgr.csv, accuracy.csv and ceilings.csv, as
            read back.
    """
    pgr, accuracy = tidy(pgr_df), tidy(accuracy_df)
    models = mean_over_seeds(accuracy)
    models["note"] = baseline_notes(models)
    rungs, split = Rungs.of(accuracy), accuracy.split.iloc[0]
    mark = contamination_mark(split)
    lines = [f"! {mark}", ""] if mark else []
    lines += [f"{split}: {count(accuracy.n.max())} pairs, means over seeds, intervals in brackets"]
    lines += table_lines(["role", "model", "accuracy", ""], _model_rows(models, pgr), 2, True,
                         CONSOLE_COLUMNS)
    if len(pgr):
        lines += ["", "gain and gap to the teacher in points of accuracy"]
        lines += table_lines(["teacher", "student", "method", "acc.", "gain", "gap", "PGR"],
                             _cell_rows(pgr, models, rungs), 3, True, CONSOLE_COLUMNS)
    if len(compared := best_ceiling.console_rows(pgr, rungs)):
        lines += ["", "PGR against the ceiling of the student's own layers, and against the best"]
        lines += table_lines(["teacher", "student", "method", "PGR", "to the best"], compared, 3,
                             True, CONSOLE_COLUMNS)
    if (models.note != "").any():
        lines += ["", "! not above a baseline: has learnt nothing beyond it"]
    for text in (*best_ceiling.statements(pgr, tidy(ceilings_df)), answer(pgr)):
        lines += ["", *textwrap.wrap(text, CONSOLE_COLUMNS)]
    return "\n".join(lines)


def _model_rows(models: pd.DataFrame, pgr: pd.DataFrame) -> list[list[str]]:
    """Baselines, teachers, ceilings, and the students that no PGR row shows."""
    shown = set(zip(pgr.teacher, pgr.student, pgr.method, strict=True))
    rows = []
    for row in models.rename(columns={"name": "model"}).itertuples():
        if (row.teacher, row.model, row.method) in shown:
            continue
        name = BASELINE_NAMES.get(row.model, row.model)
        taught = f" by {row.teacher}, {row.method}" if row.teacher else ""
        rows.append([row.role, name + taught, number(row.accuracy) + ("!" if row.note else " "),
                     interval_text(row.low, row.high)])
    return rows


def _cell_rows(pgr: pd.DataFrame, models: pd.DataFrame, rungs: Rungs) -> list[list[str]]:
    flagged = set(models[models.note != ""][["teacher", "name", "method"]]
                  .itertuples(index=False, name=None))
    rows = []
    for row in pgr.sort_values("teacher", key=lambda names: names != ALL,
                               kind="stable").itertuples():
        names = rungs.short(row.teacher), rungs.short(row.student)
        mark = "!" if (row.teacher, row.student, row.method) in flagged else " "
        rows.append([*names, row.method, number(row.student_accuracy) + mark,
                     points(row, "gain"), points(row, "gap"), pgr_text(row)])
    return rows


def draw_figures(results: Results) -> dict[str, Drawn]:
    """Draw what the tables hold into `<folder>/figures`; a table without rows has no figure.

    Returns:
        By name: accuracy_by_depth, pgr_heatmap, methods, learning_curves, calibration.
    """
    models = results.accuracy[results.accuracy.role != "baseline"]
    wanted = {"accuracy_by_depth": (accuracy_by_depth, models),
              "pgr_heatmap": (pgr_heatmap, results.cells),
              "methods": (methods_of_experiment, results.methods),
              "learning_curves": (learning_curves, results.curves),
              "calibration": (calibration_figure, results.calibration.query("role != 'baseline'"))}
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, (draw, rows) in wanted.items():
            if len(rows):
                figure, title, caption = draw(results)
                drawn[name] = save(figure, results.folder / "figures", name, title, caption)
    return drawn
