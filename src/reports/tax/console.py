"""The tax of one model: rows for a file, lines for the terminal."""

from collections.abc import Sequence

from src.common.console import table_lines
from src.measures.bootstrap import Interval
from src.measures.tax.paired import Compared
from src.reports.format import count, interval_text, number

COLUMNS = ["data", "measure", "n", "chance", "base", "", "tuned", "", "tuned - base", ""]
SIDES = ("base", "tuned", "difference")


def lines(found: Sequence[Compared]) -> list[str]:
    """A table: base, tuned and difference with their intervals, chance where there is one."""
    return table_lines(COLUMNS, [[one.data, one.measure, count(one.n), number(one.chance),
                                  *_cells(one.base), *_cells(one.tuned),
                                  *_cells(one.difference, signed=True)] for one in found], words=2)


def _cells(span: Interval, signed: bool = False) -> list[str]:
    return [number(span.estimate, signed=signed), interval_text(span.low, span.high)]


def rows(found: Sequence[Compared]) -> list[dict[str, object]]:
    """The same for JSON, where a missing number is null."""
    return [{"data": one.data, "measure": one.measure, "n": one.n, "chance": _known(one.chance),
             **{f"{side}{end}": _known(getattr(getattr(one, side), name))
                for side in SIDES
                for end, name in (("", "estimate"), ("_low", "low"), ("_high", "high"))}}
            for one in found]


def _known(value: float) -> float | None:
    return None if value != value else value
