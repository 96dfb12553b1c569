"""What alignment costs and what averaging buys back, in sentences and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from src.common.console import table_lines
from src.measures.tax.front import BASE, BLOCK, PROBE, TUNED, UNIFORM
from src.reports.document import Bullets, Element, Heading, Picture, Table, sources
from src.reports.figures.style import Drawn
from src.reports.format import MISSING, count, estimate, number, pgr_text

NAMES = {TUNED: "tuned", BASE: "base", PROBE: "linear probe", UNIFORM: "uniform",
         BLOCK: "one block", "part_wise_bottom": "more at the bottom",
         "part_wise_top": "more at the top", "adaptive": "adaptive"}
COLUMNS = ["average", "a", "blocks", "accuracy", "tax, nats", "bits", "above uniform", "PGR"]
AREA_COLUMNS = ["curve", "area", "above uniform"]
TASK_COLUMNS = ["task", "metric", "average", "score", "lost", "chance", "questions"]
FILES = [("front.csv", "one row an average: accuracy, tax, PGR, above uniform at equal tax"),
         ("areas.csv", "one row a curve: mean accuracy over taxes, above uniform like for like"),
         ("tasks.csv", "one row an average, task and metric: score, lost of the base's, chance")]
TASK_READING = (
    "Questions through lm-eval, without examples: the likeliest answer, and with acc_norm the "
    "likeliest for its length. Lost: of the base's score, on the same questions.")
READING = (
    "Tax: nats a token of held-out text, less the base's on the same text, both under the base's "
    "own head; a share a of the base and 1 - a of the tuned model in every tensor but the reward "
    "head, a = 0 is the tuned model and a = 1 its base. Above uniform: accuracy less that of "
    "uniform averaging at equal tax. Area: mean accuracy of a curve over taxes from 0 to the tuned "
    "model's. Above uniform, of a curve: its area less that of uniform averaging, both on "
    "straight lines between the taxes of the curve's own points; so not the difference of the "
    "areas shown.")

Key = tuple[str, str, str]


def statements(front: pd.DataFrame, areas: pd.DataFrame) -> list[str]:
    """Of each student: what it paid, what uniform averaging gives back, whether another way is
    better."""
    said = []
    for key, own in students_of(front):
        tuned = own[own.family == TUNED].iloc[0]
        parts = [f"{_name(key)} lost {estimate(tuned, 'tax', 2, signed=True)} nats a token and has "
                 f"an accuracy of {estimate(tuned, 'accuracy')}"]
        for row in own[own.family == UNIFORM].itertuples() if tuned.tax_low > 0 else ():
            back = 1 - row.tax / tuned.tax
            share = f"{back:.0%} of that back" if back >= 0 else f"{-back:.0%} more lost"
            parts.append(f"a = {row.a:g}: {share}, accuracy "
                         f"{number(row.accuracy - tuned.accuracy, signed=True)}")
        probe = own[own.family == PROBE].iloc[0]
        parts.append(f"a linear probe of the base, for nothing: {estimate(probe, 'accuracy')}")
        said.append("; ".join(parts) + ".")
        if not tuned.tax_low > 0:
            said.append(f"{_name(key)}: no tax that can be told from 0, so nothing to buy back.")
            continue
        said += [f"{_name(key)}, {NAMES[row.family]}: {_verdict(row)} uniform averaging by area "
                 f"at the same taxes ({estimate(row, 'above_uniform', signed=True)})."
                 for row in of_student(areas, key).itertuples()
                 if row.family != UNIFORM and row.above_uniform == row.above_uniform]
    return said


def _verdict(row: object) -> str:
    if row.above_uniform_low > 0:
        return "above"
    return "below" if row.above_uniform_high < 0 else "not told from"


def blocks(tables: Mapping[str, pd.DataFrame], drawn: Sequence[Drawn],
           facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    front, areas, asked = tables["front"], tables["areas"], tables["tasks"]
    page: list[Element] = [Bullets(statements(front, areas)), *map(Picture, drawn)]
    for key, own in students_of(front):
        page += [Heading(_name(key)), Table(READING, COLUMNS, point_rows(own), words=3),
                 Table("", AREA_COLUMNS, area_rows(of_student(areas, key)))]
        answers = of_student(asked, key)
        if len(answers):
            page.append(Table(TASK_READING, TASK_COLUMNS, task_rows(answers), words=3))
    return [*page, *sources(facts, [each for each in FILES if len(tables[Path(each[0]).stem])])]


def console(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The tables of each student, and the sentences."""
    front, areas, lines = tables["front"], tables["areas"], []
    for key, own in students_of(front):
        lines += [_name(key), "", *table_lines(COLUMNS, point_rows(own), 3), "",
                  *table_lines(AREA_COLUMNS, area_rows(of_student(areas, key))), ""]
        answers = of_student(tables["tasks"], key)
        if len(answers):
            lines += [*table_lines(TASK_COLUMNS, task_rows(answers), 3), ""]
    return [*lines, *statements(front, areas)]


def point_rows(own: pd.DataFrame) -> list[list[str]]:
    return [[NAMES[row.family], number(row.a, 2), row.place or row.alphas,
             estimate(row, "accuracy"), estimate(row, "tax", signed=True),
             estimate(row, "tax_bits", signed=True), estimate(row, "above_uniform", signed=True),
             pgr_text(row) if row.status in ("ok", "undefined") else MISSING]
            for row in own.itertuples()]


def area_rows(own: pd.DataFrame) -> list[list[str]]:
    return [[NAMES[row.family], estimate(row, "area"),
             MISSING if row.family == UNIFORM else estimate(row, "above_uniform", signed=True)]
            for row in own.itertuples()]


def task_rows(own: pd.DataFrame) -> list[list[str]]:
    return [[row.task, row.metric, _average(row), estimate(row, "score"),
             MISSING if row.family == BASE else estimate(row, "lost", signed=True),
             number(row.chance), count(row.n)] for row in own.itertuples()]


def _average(row: object) -> str:
    return f"{NAMES[row.family]} {row.a:g}" if row.family == UNIFORM else NAMES[row.family]


def students_of(table: pd.DataFrame) -> list[tuple[Key, pd.DataFrame]]:
    """(student, teacher, method) -> its rows, in the table's order."""
    return list(table.groupby(["student", "teacher", "method"], sort=False))


def of_student(table: pd.DataFrame, key: Key) -> pd.DataFrame:
    """The rows of one student; none of an empty table."""
    if not len(table):
        return table
    student, teacher, method = key
    return table[(table.student == student) & (table.teacher == teacher)
                 & (table.method == method)]


def _name(key: Key) -> str:
    student, teacher, method = key
    return f"{student} taught by {teacher} ({method})"
