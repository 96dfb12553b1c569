"""What goes with PGR, in sentences and tables: errors taken over, or skill lost."""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.common.console import table_lines
from src.measures.cells import interval_fields
from src.measures.change.layers import over_seeds
from src.measures.comparisons.regression import FEWEST_CLUSTERS
from src.reports.document import Bullets, Element, Heading, Picture, Table, sources
from src.reports.figures.style import Drawn
from src.reports.format import count, estimate, interval_text, number
from src.reports.results import seed_list

SHOWN = ("pgr", "gain", "inherited", "inherited_by_ceiling", "nats_lost", "moved")
"""Columns of cells.csv with an interval over seeds."""
HALVES = ("inherited_unsure", "inherited_sure", "inherited_short", "inherited_long")
"""Means alone."""
NAMES = {"inherited": "errors inherited", "nats_lost": "nats lost"}
CELL_COLUMNS = ["student", "teacher", "method", "PGR", "gain", "inherited", "by the ceiling",
                "unsure", "sure", "short", "long", "nats lost", "moved", "seeds"]
SLOPE_COLUMNS = ["predictor", "model", "PGR per SD", "", "SD", "students", "teachers"]
FILES = [("students.csv", "one row a student and seed"),
         ("cells.csv", "one row a student, teacher and method: means over seeds"),
         ("slopes.csv", "PGR against errors inherited and nats lost")]


def cells_table(students: pd.DataFrame, level: float) -> pd.DataFrame:
    """cells.csv: means over seeds, with intervals over seeds; teachers as they come, then depth."""
    rows, teachers = [], list(dict.fromkeys(students.teacher))
    for key, own in students.groupby(["layers", "student", "teacher", "method"], sort=False):
        spans = {name: over_seeds(own[name], level) for name in SHOWN}
        rows.append({**dict(zip(("layers", "student", "teacher", "method"), key, strict=True)),
                     "seeds": seed_list(own.seed),
                     **{field: value for name, span in spans.items()
                        for field, value in interval_fields(name, span).items()},
                     **own[list(HALVES)].mean()})
    cells = pd.DataFrame(rows)
    place = cells.teacher.map(teachers.index)  # by name, 10 layers would come before 4
    return cells.assign(place=place).sort_values(
        ["method", "place", "layers"], kind="stable", ignore_index=True).drop(columns="place")


def statements(slopes: pd.DataFrame) -> list[str]:
    """What PGR goes with, by intervals, for each model."""
    if not len(slopes):
        return ["No student with a defined PGR varies in what could explain it."]
    said = []
    for model, own in slopes.groupby("model", sort=False):
        parts = [f"{_verdict(row)} {NAMES[row.predictor]} "
                 f"({estimate(row, 'slope', 2, signed=True)} per SD)" for row in own.itertuples()]
        said.append(f"{model}: PGR {'; it '.join(parts)}.")
    return said


def _verdict(row: object) -> str:
    if row.teachers < FEWEST_CLUSTERS:
        return f"has too few teachers' runs, {row.teachers}, to be told to go with"
    return "falls with" if row.slope_high < 0 else (
        "rises with" if row.slope_low > 0 else "is not told to go with")


def cell_rows(cells: pd.DataFrame) -> list[list[str]]:
    return [[row.student, row.teacher, row.method, estimate(row, "pgr", 2),
             estimate(row, "gain", 3, signed=True), estimate(row, "inherited", 2),
             number(row.inherited_by_ceiling, 2), *(number(getattr(row, name), 2)
                                                    for name in HALVES),
             estimate(row, "nats_lost", 2), number(row.moved, 3), row.seeds]
            for row in cells.itertuples()]


def slope_rows(slopes: pd.DataFrame) -> list[list[str]]:
    return [[NAMES[row.predictor], row.model, number(row.slope, 2, signed=True),
             interval_text(row.slope_low, row.slope_high, 2), number(row.deviation, 3),
             count(row.students), count(row.teachers)] for row in slopes.itertuples()]


def blocks(cells: pd.DataFrame, slopes: pd.DataFrame, drawn: Drawn, notes: Sequence[str],
           facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    return [
        Bullets([*statements(slopes), *notes]), Picture(drawn),
        Heading("What PGR goes with"),
        Table("Least-squares slopes per standard deviation of the predictor; intervals draw "
              "teachers' runs, which are few. Same teacher and seed: only students that one run "
              "taught are compared. Inherited errors are a part of gain by arithmetic.",
              SLOPE_COLUMNS, slope_rows(slopes), words=2),
        Heading("Every student"),
        Table("Means over seeds; intervals over seeds. Inherited: of the pairs that the teacher "
              "gets wrong, those that the student gets wrong too; by the ceiling: the same of the "
              "model of its size that saw human labels; unsure and sure: where the teacher is; "
              "short and long: the wrong answer. Nats lost: more nats a token of held-out answers "
              "than before training, under the base model's own head. Moved: |change| / |weights|.",
              CELL_COLUMNS, cell_rows(cells), words=3),
        *sources(facts, FILES)]


def console(cells: pd.DataFrame, slopes: pd.DataFrame) -> list[str]:
    """Both tables, and the sentences."""
    return [*table_lines(CELL_COLUMNS, cell_rows(cells), 3), "",
            *table_lines(SLOPE_COLUMNS, slope_rows(slopes), 2), "", *statements(slopes)]
