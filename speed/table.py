"""What a benchmark prints and writes: one row a system, as a Markdown table and as JSON.

    python -m speed.table results.json ...       # the tables of --json files, as Markdown
"""

import argparse
import dataclasses
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

from src.common.errors import UserError, run_command


@dataclass(frozen=True)
class TableRow:
    """One line of a table; None where there is no such figure."""

    mix: str
    system: str
    pairs_per_s: float
    tokens_computed: int
    tokens_useful: int
    peak_mib: float | None
    ratio: float
    """How many times the baseline's speed: median over the rounds, then lowest and highest."""
    ratio_low: float
    ratio_high: float
    cpu_ratio: float | None = None
    """The same in processor time, over all rounds: other work on the machine does not enter. None
    on CUDA."""
    mfu: float | None = None
    facts: dict[str, object] = field(default_factory=dict)
    """What held for the whole table: machine, versions, model, pairs."""
    ours: float | None = None
    """How many times this row's speed ours has, with every key on: median, then lowest and highest
    round, then in processor time; None where it is not measured beside ours."""
    ours_low: float | None = None
    ours_high: float | None = None
    ours_cpu: float | None = None

    def as_dict(self) -> dict[str, object]:
        """The row as JSON keys, `facts` beside the others."""
        values = dataclasses.asdict(self)
        return {**values.pop("facts"), **values}


COLUMNS = {
    "system": lambda row: row["system"],
    "pairs/s": lambda row: _number(row["pairs_per_s"]),
    "tokens computed": lambda row: f"{row['tokens_computed']:,}",
    "useful": lambda row: f"{row['tokens_useful'] / row['tokens_computed']:.1%}",
    "peak MiB": lambda row: _or_nothing(row["peak_mib"], ",.0f"),
    "MFU": lambda row: _or_nothing(row["mfu"], ".1%"),
    "ratio": lambda row: f"{row['ratio']:.2f}",
    "low to high": lambda row: f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
    "in CPU time": lambda row: _or_nothing(row["cpu_ratio"], ".2f"),
    "ours to it": lambda row: _or_nothing(row.get("ours"), ".2f"),
    "its low to high": lambda row: "" if row.get("ours") is None else (
        f"{row['ours_low']:.2f} to {row['ours_high']:.2f}"),
    "its CPU time": lambda row: _or_nothing(row.get("ours_cpu"), ".2f"),
}
MACHINE = ("date", "commit", "machine", "device", "threads", "torch", "transformers", "trl",
           "prefix_grouper")
"""Facts of a table's last line; its heading and its first line have the others."""
HEADING = ("benchmark", "mix", "layers")


def render(rows: list[dict[str, object]]) -> str:
    """Markdown: a table for each stretch of rows that have all facts in common, with the facts."""
    shown = {*TableRow.__dataclass_fields__, "facts"}
    facts = [{key: value for key, value in row.items() if key not in shown or key == "mix"}
             for row in rows]
    parts = []
    for common, group in itertools.groupby(zip(facts, rows, strict=True), key=lambda pair: pair[0]):
        parts.append(_one_table(common, [row for _, row in group]))
    return "\n".join(parts)


def _one_table(facts: dict[str, object], rows: list[dict[str, object]]) -> str:
    cells = [list(COLUMNS), *([show(row) for show in COLUMNS.values()] for row in rows)]
    told = [any(column[1:]) for column in zip(*cells, strict=True)]  # no MFU on a CPU
    cells = [list(itertools.compress(line, told)) for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(line, widths) for line in cells]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    heading = f"### {facts['benchmark']}: {facts['mix']}, {facts['layers']} layers"
    foot = [f"{key} {value}" for key, value in facts.items() if key not in (*MACHINE, *HEADING)]
    machine = [f"{key} {facts[key]}" for key in MACHINE if facts.get(key) not in (None, "")]
    return "\n".join([heading, "", *lines, "", "; ".join(foot) + ".", "", "; ".join(machine) + ".",
                      ""])


def _line(cells: list[str], widths: list[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *rest]) + " |"


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_rows(rows: list[TableRow], path: Path) -> None:
    """The rows as a JSON list, whole or not at all."""
    from src.common.files import atomic_path

    with atomic_path(path) as partial:
        partial.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n",
                           encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, object]]:
    """What write_rows wrote; UserError where it is something else."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not readable as a benchmark's rows ({error}); give a file that "
                        "a benchmark wrote with --json") from error
    later = {"facts", "ours", "ours_low", "ours_high", "ours_cpu"}
    needed = set(TableRow.__dataclass_fields__) - later | set(HEADING)
    if not (isinstance(rows, list) and all(isinstance(row, dict) and needed <= set(row)
                                           for row in rows)):
        raise UserError(f"{path}: expected a list of rows with {', '.join(sorted(needed))}; give a "
                        "file that a benchmark wrote with --json")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables of benchmarks' --json files, as Markdown.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE",
                        help="written by a benchmark's --json")
    for path in parser.parse_args().files:
        print(render(read_rows(path)))


if __name__ == "__main__":
    run_command(main)
