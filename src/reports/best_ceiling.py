"""Where a deeper ceiling is no better one: what is said of it, and both PGRs side by side."""

from collections.abc import Iterable

import pandas as pd

from src.measures.best_ceiling import BEST, DEEPEST
from src.reports.document import Element, Heading, Table
from src.reports.findings import listed, points
from src.reports.format import MISSING, count, estimate, interval_text, number, pgr_text
from src.reports.results import ALL, Results, Rungs, pgr_cells

CHOSEN = ("The best ceiling is the one with the highest accuracy on these same pairs: the choice "
          "flatters it and lowers the PGR against it, and intervals take the choice as made.")
"""What the reader must hold against a PGR that was formed with a chosen ceiling."""


def statements(pgr: pd.DataFrame, ceilings: pd.DataFrame) -> list[str]:
    """A paragraph for each base model whose ceilings do not rise with depth.

    Args:
        pgr, ceilings: rows of pgr.csv and ceilings.csv, as read back.
    """
    return [" ".join([_not_the_best(ladder), *_shares(pgr, ladder), CHOSEN])
            for _, ladder in ceilings.groupby("base", sort=False)]


def _not_the_best(ladder: pd.DataFrame) -> str:
    """Which ceiling is above the deepest one, by how much, and whether that can be told from 0."""
    best, deepest = (next(ladder[ladder.place == place].rename(columns={"name": "rung"})
                          .itertuples()) for place in (BEST, DEEPEST))
    model = "whole model" if deepest.keep == "all" else "deepest model"
    claim = (f"The {model} is not the best ceiling" if best.over_deepest_low > 0 else
             f"The {model} does not have the highest ceiling, which may be chance")
    others = len(ladder) - 1
    at_once = f"; its interval holds for all {others} other ceilings at once" if others > 1 else ""
    return (f"{claim}: {best.rung} has {_accuracy(best)}, the {model} ({deepest.rung}) "
            f"{_accuracy(deepest)}, a difference of {points(best, 'over_deepest')} points "
            f"(n = {count(best.n)}, seeds {best.seeds}, paired{at_once}).")


def _accuracy(row: object) -> str:
    return f"{number(row.accuracy)} {interval_text(row.low, row.high)}".strip()


def _shares(pgr: pd.DataFrame, ladder: pd.DataFrame) -> list[str]:
    """PGR of each method against the best ceiling and against the students' own, in a sentence."""
    best = ladder[ladder.place == BEST].name.iloc[0]
    rows = pgr[pgr.best_ceiling_name == best]
    cells = pgr_cells(rows)
    parts = []
    for method in dict.fromkeys(cells.method):
        own = cells[cells.method == method]
        total = rows[(rows.teacher == ALL) & (rows.method == method)]
        row = next((total if len(total) else own).itertuples())
        if len(total) or len(own) == 1:
            parts.append(f"{best_pgr_text(row)} with {method} ({pgr_text(row)} against the "
                         f"{'ceilings' if len(own) > 1 else 'ceiling'} of the students' own depth)")
    return [f"Against it PGR is {listed(parts)}."] if parts else []


def best_pgr_text(row: object) -> str:
    """As `pgr_text`, against the best ceiling; `-` where there is none to be held against."""
    if not row.best_status:
        return MISSING
    return pgr_text(pd.Series({"status": row.best_status, "pgr": row.best_pgr,
                               "pgr_low": row.best_pgr_low, "pgr_high": row.best_pgr_high}))


def compared(pgr: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand against a best ceiling, those over all cells first."""
    rows = pgr[pgr.best_status != ""]
    return rows.sort_values("teacher", key=lambda names: names != ALL, kind="stable")


def blocks(results: Results, rungs: Rungs) -> Iterable[Element]:
    """A section with the ladder of ceilings and both PGRs; nothing where all ceilings rise."""
    if not len(results.ceilings):
        return
    yield Heading("The best ceiling")
    rows = [[rungs.short(row.rung), number(row.layers, 0), row.keep or MISSING,
             row.place or MISSING, _accuracy(row), estimate(row, "over_deepest", signed=True),
             count(row.n), row.seeds]
            for row in results.ceilings.rename(columns={"name": "rung"}).itertuples()]
    yield Table("Ceilings, on the seeds that all of them have. Over deepest: the paired difference "
                f"to the deepest ceiling, with {results.percent} intervals that hold for all "
                "differences of a base model at once (Bonferroni).",
                ["ceiling", "layers", "kept", "place", "accuracy", "over deepest", "n", "seeds"],
                rows, words=4)
    rows = [[rungs.short(row.teacher), rungs.short(row.student), row.method,
             number(row.ceiling), estimate(row, "gap", signed=True), pgr_text(row),
             f"{rungs.short(row.best_ceiling_name)} {number(row.best_ceiling)}",
             estimate(row, "best_gap", signed=True), best_pgr_text(row), count(row.n),
             row.best_seeds] for row in compared(results.pgr).itertuples()]
    if rows:
        yield Table("Gap and PGR against the ceiling of the student's own layers, then against the "
                    "best ceiling of its base model. The seeds are those that the best ceiling "
                    f"has as well. {CHOSEN}",
                    ["teacher", "student", "method", "ceiling", "gap", "PGR", "best ceiling",
                     "gap to best", "PGR to best", "n", "seeds"], rows, words=3)


def console_rows(pgr: pd.DataFrame, rungs: Rungs) -> list[list[str]]:
    """Teacher, student, method, then PGR against the student's own ceiling and the best."""
    return [[rungs.short(row.teacher), rungs.short(row.student), row.method, pgr_text(row),
             best_pgr_text(row)] for row in compared(pgr).itertuples()]
