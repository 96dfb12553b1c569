"""What can be said of rules that choose layers: sentences, a table, and the terminal's lines."""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.common.console import table_lines
from src.reports.document import Bullets, Element, Heading, Picture, Table, Text, sources
from src.reports.figures.style import Drawn
from src.reports.figures.which_layers import GROUP, in_several
from src.reports.findings import listed, points
from src.reports.format import MISSING, count, estimate, interval_text, number

BEST, HIGHEST, BEHIND, LEVEL = "best", "highest", "behind", "not told apart"
"""What may be said of a rule: above every other one of its depth; the highest, but not told apart
from all; below the highest; neither. By the intervals of paired differences."""
MEAN = "mean"
"""In the column `layers`: over the depths that all rules have."""
FILES = [("which_layers.csv", "one row per experiment, model, data, depth and rule: accuracy, and "
          "what it is behind the highest rule")]
COLUMNS = [*GROUP, "layers", "rule", "said", "accuracy", "behind", "n", "seeds"]
WORDS = 6


def statements(table: pd.DataFrame) -> list[str]:
    """A sentence for each experiment, model and depth, and what holds in all of them."""
    cells = [rows for _, rows in table.groupby([*GROUP, "layers"], sort=False)]
    named = in_several(table)
    return [_summary(table), *(_sentence(rows, named) for rows in cells)]


def _sentence(rows: pd.DataFrame, name_experiment: bool) -> str:
    first = next(rows[rows.status.isin([BEST, HIGHEST])].itertuples())
    others = rows[rows.keep != first.keep]
    at = "mean over depths" if first.layers == MEAN else f"{first.layers} layers"
    of = f" ({first.experiment})" if name_experiment else ""
    where = f"{first.model} on {first.data}{of}, {at}"
    own = f"{first.keep} ({number(first.accuracy)} {interval_text(first.low, first.high)})"
    if first.status == BEST:
        said = [f"{row.keep} by {_less(row)} points" for row in others.itertuples()]
        return f"{where}: {own} is best; behind it are {listed(said)}."
    level = list(others[others.status != BEHIND].keep)
    behind = [f"{row.keep} ({points(row, 'behind')} points)"
              for row in others[others.status == BEHIND].itertuples()]
    return (f"{where}: {own} is highest, not told apart from {listed(level)}"
            + (f"; behind {'is' if len(behind) == 1 else 'are'} {listed(behind)}" if behind else "")
            + ".")


def _less(row: object) -> str:
    """How far a rule lies behind, in points without a sign: `16.0 [14.2, 17.8]`."""
    value, low, high = (-100 * getattr(row, name) for name in ("behind", "behind_high",
                                                               "behind_low"))
    return f"{number(value, 1)} {interval_text(low, high, 1)}".strip()


def _summary(table: pd.DataFrame) -> str:
    """In how many depths of all experiments and models each rule is best, and behind."""
    rows = table[table.layers != MEAN]
    total = rows.groupby([*GROUP, "layers"]).ngroups
    behind = rows.assign(behind=rows.status == BEHIND).groupby("keep", sort=False).behind.sum()
    best = rows.assign(best=rows.status == BEST).groupby("keep", sort=False).best.sum()
    each = [f"{rule} is best in {best[rule]} and behind in {behind[rule]}" for rule in behind.index]
    return f"Of {total} comparisons, by intervals, {listed(each)}."


def rows_of(table: pd.DataFrame) -> list[list[str]]:
    return [[row.experiment, row.model, row.data, row.layers, row.keep, row.status,
             f"{number(row.accuracy)} {interval_text(row.low, row.high)}".strip(),
             estimate(row, "behind", signed=True) if row.status not in (BEST, HIGHEST) else MISSING,
             count(row.n), row.seeds] for row in table.itertuples()]


def blocks(table: pd.DataFrame, drawn: Drawn, notes: Sequence[str],
           facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    summary, *each = statements(table)
    return [
        Text(summary, "lead"), Picture(drawn), Bullets(each),
        Heading("Every rule"),
        Table("Accuracy of teachers on held-out pairs, means over seeds, with intervals over "
              "prompts and seeds. Behind: the paired difference to the highest rule of the same "
              "row group, which was chosen on the same pairs. Said: best where the interval of "
              "every other rule lies below 0.", COLUMNS, rows_of(table), words=WORDS),
        *([Heading("Notes"), Bullets(notes)] if notes else []),
        *sources(facts, FILES)]


def console(table: pd.DataFrame) -> list[str]:
    """The table, and the sentences."""
    return [*table_lines(COLUMNS, rows_of(table), WORDS), "", *statements(table)]
