"""The page and the terminal lines of a transfer evaluation: tables -> blocks of a document."""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.common.console import table_lines
from src.measures.transfer import ScoredSet
from src.reports.document import Bullets, Element, Heading, Picture, Table, Text
from src.reports.figures.style import Drawn
from src.reports.figures.transfer import model_name
from src.reports.format import MISSING, count, estimate, interval_text, number, pgr_text
from src.reports.results import ALL

FILES = [("transfer.csv", "one row per model and evaluation set: accuracy and interval"),
         ("transfer_pgr.csv", "one row per teacher, student, method and set: gain, gap, PGR")]


def blocks(sets: Sequence[ScoredSet], accuracy: pd.DataFrame, pgr: pd.DataFrame, drawn: Drawn,
           note: str, facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    own, *others = [scored.pairs.data for scored in sets]
    return [
        Text(f"Models trained on {own}, scored on {own} and on {', '.join(others)}.", "lead"),
        Heading("Accuracy"), Picture(drawn),
        Heading("PGR in and out of distribution"), *_pgr(sets, pgr, note),
        Heading("Gain and gap"), *_gains(pgr),
        Heading("What was scored"), Bullets([_scored(one) for one in sets]),
        Table("", ["fact", "value"], [[name, value or MISSING] for name, value in facts.items()],
              words=2),
        Heading("Files"), Bullets(FILES)]


def _scored(one: ScoredSet) -> str:
    """Pairs of a set, and what was not scored."""
    pairs = one.pairs
    text = (f"{pairs.data}, split {pairs.split}: {count(len(pairs.pair_ids))} pairs of "
            f"{count(len(set(pairs.prompt_ids)))} prompts")
    if one.own:
        return f"{text}; the experiment's own, disjoint from its training splits by prompt"
    left_out = f"; {one.left_out}" if one.left_out else ""
    return (f"{text}; {count(one.dropped)} pairs dropped whose prompt is in a training split of "
            f"the experiment{left_out}")


def _cells(pgr: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Rows of each teacher, student and method, those over all of them first."""
    groups = dict(iter(pgr.groupby(["teacher", "student", "method"], sort=False)))
    return dict(sorted(groups.items(), key=lambda item: item[0][0] != ALL))


def _pgr(sets: Sequence[ScoredSet], pgr: pd.DataFrame, note: str) -> list[Element]:
    if not len(pgr):
        return [Text("There is no row of teacher, student and ceiling.")]
    names = [scored.pairs.data for scored in sets]
    rows = []
    for key, own in _cells(pgr).items():
        by_data = {row.data: pgr_text(row) for row in own.itertuples()}
        rows.append([*key, *(by_data.get(name, MISSING) for name in names)])
    return [Table(f"PGR on the experiment's own test, then elsewhere. {note} Undefined: the gap's "
                  "interval holds 0, or the gap is below the floor. Rows over all cells are "
                  "ratios of sums.", ["teacher", "student", "method", *names], rows, words=3)]


def _gains(pgr: pd.DataFrame) -> list[Element]:
    rows = [[*key, row.data, estimate(row, "gain", signed=True), estimate(row, "gap", signed=True),
             number(row.weak), number(row.student_accuracy), number(row.ceiling), count(row.n),
             row.seeds or MISSING]
            for key, own in _cells(pgr).items() for row in own.itertuples()]
    return [Table("Gain = student - teacher; gap = ceiling - teacher, in accuracy.",
                  ["teacher", "student", "method", "data", "gain", "gap", "weak", "acc.",
                   "ceiling", "n", "seeds"], rows, words=4)]


def console(sets: Sequence[ScoredSet], accuracy: pd.DataFrame, pgr: pd.DataFrame) -> list[str]:
    """The matrix, what was dropped, and PGR over all cells of each method and set."""
    names = [scored.pairs.data for scored in sets]
    lines = []
    for key, rows in accuracy.groupby(["role", "model", "teacher", "method"], sort=False):
        by_data = {row.data: f"{number(row.accuracy)} {interval_text(row.low, row.high)}".strip()
                   for row in rows.itertuples()}
        lines.append([f"{key[0]} {model_name(*key)}", *(by_data[name] for name in names)])
    matrix = table_lines(["model", *names], lines, numbers_left=True)
    shares = [f"PGR {method}, {row.data}: {pgr_text(row)} (gain "
              f"{estimate(row, 'gain', signed=True)}, gap {estimate(row, 'gap', signed=True)})"
              for method, rows in _shown(pgr).items() for row in rows.itertuples()]
    return [*(_scored(scored) for scored in sets), "", *matrix, "", *shares]


def _shown(pgr: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By method: the rows over all its cells, or its only cell's."""
    return {method: rows[rows.teacher == ALL] if (rows.teacher == ALL).any() else rows
            for method, rows in pgr.groupby("method", sort=False)}
