"""What can be said of methods against the baseline: sentences, and a section of the report."""

from collections.abc import Iterable

import pandas as pd

from src.measures.comparisons.methods import BETTER, OPEN, TOO_FEW, WORSE
from src.reports.document import Element, Heading, Picture, Table, Text
from src.reports.figures.style import Drawn
from src.reports.findings import listed
from src.reports.format import count, interval_text, number

COLUMNS = ["verdict", "method", "difference", "cells", "won", "lost", "win rate", "p", "p (Holm)",
           "cost", "n", "seeds"]


def statement(table: pd.DataFrame) -> str:
    """Which methods are better, which worse, and of which neither can be said, by what."""
    groups = {verdict: list(own.method) for verdict, own in table.groupby("verdict", sort=False)}
    baseline = table.baseline.iloc[0]
    parts = [f"{listed(names)} {'is' if len(names) == 1 else 'are'} {what}"
             for names, what in ((groups.get(verdict, []), said) for verdict, said in (
                 (BETTER, f"better than {baseline}"), (WORSE, f"worse than {baseline}"),
                 (TOO_FEW, f"apart from {baseline} by the interval alone, on too few cells for "
                           "the test"),
                 (OPEN, f"not told apart from {baseline}"))) if names]
    return ("By the interval of the difference and by Wilcoxon's test over cells with Holm's "
            f"correction together, {'; '.join(parts)}.")


def comparison(table: pd.DataFrame) -> Table:
    """Rows of methods.csv."""
    rows = [[row.verdict, row.method, points_of(row), count(row.cells), count(row.wins),
             count(row.losses), number(row.win_rate, 2), number(row.p, 4), number(row.p_holm, 4),
             number(row.cost, 2), count(row.n), row.seeds] for row in table.itertuples()]
    return Table("Differences in points of accuracy to the baseline with the same teacher, "
                 "student and seed; intervals over prompts, and seeds where there are several. "
                 "Cost: seconds of training over the baseline's, with those of a student that has "
                 "to come first, without what a treatment computes of the labels before.", COLUMNS,
                 rows, words=2)


def points_of(row: object) -> str:
    """`+1.2 [0.3, 2.1]`."""
    span = interval_text(100 * row.difference_low, 100 * row.difference_high, 1)
    return f"{number(100 * row.difference, 1, signed=True)} {span}".strip()


def blocks(table: pd.DataFrame, figures: dict[str, Drawn]) -> Iterable[Element]:
    """A section; nothing where there is one method."""
    if not len(table):
        return
    yield Heading("Methods compared")
    yield Text(statement(table))
    if "methods" in figures:
        yield Picture(figures["methods"])
    yield comparison(table)
