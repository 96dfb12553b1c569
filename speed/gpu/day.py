"""All that a GPU box is asked at once, in one table with the device's name: speed/gpu.sh runs it.

    python -m speed.gpu.day --launches FOLDER --out FILE

FOLDER holds what speed/gpu/losses.py wrote under each kind of hardware, NAME.json. Here follow, in
one process: attention's back ends against each other, training against TRL and against packed rows
that repeat their prompts, and memory against the formula. The exit code is 1 where anything is not
as expected.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from speed import options
from speed.gpu.losses import losses
from speed.measure import alternate
from speed.mixes import MIXES, draw
from speed.ours import ALL, PLAIN, steps_of_tricks, training_systems, used_by_peers
from speed.peers.padded import TRL, trl_peers
from speed.peers.peer import Task
from speed.rows import table_rows
from speed.shapes import SHAPES, write_model
from src.common.arguments import Parser
from src.common.errors import run_command
from src.common.files import write_text

PACKED = "packed rows, prompts repeated"
LAUNCHED = ("multi_gpu", "zero2", "zero3")
FORWARD_AND_BACKWARD = 3


class Day(NamedTuple):
    """Sizes of everything that is asked, and what is expected."""

    shape: str
    correct_layers: int
    speed_layers: tuple[int, ...]
    length_scale: float
    pairs: int
    rounds: int
    tokens: int
    memory_case: str
    rewards: float
    gradients: float
    losses: float
    """The largest difference that is no defect, of each."""


GPU = Day("llama_3_2_1b", 4, (16, 8), 4.0, 48, 3, 8192, "llama_3_2_1b", 0.1, 0.1, 0.05)
REHEARSAL = Day("small", 2, (2, 1), 0.1, 16, 1, 512, "llama", 1e-4, 1e-4, 1e-4)


class Line(NamedTuple):
    """One of the table."""

    what: str
    figure: str
    expected: str = ""
    held: bool | None = None
    """None where nothing is expected."""


def correctness(day: Day) -> Iterator[Line]:
    from speed.gpu.correctness import gaps

    precision, shape = used_by_peers(), SHAPES[day.shape].with_layers(day.correct_layers)
    with tempfile.TemporaryDirectory() as folder:
        for gap in gaps(shape, day.tokens, precision, Path(folder)):
            name = f"{gap.backend} to dense, {precision}"
            yield _at_most(f"rewards, {name}", gap.rewards, day.rewards)
            yield _at_most(f"gradients, {name}, relative", gap.gradients, day.gradients)


def launches(day: Day, folder: Path) -> Iterator[Line]:
    """The losses of each launch against those of one process."""
    with tempfile.TemporaryDirectory() as own:
        single = losses(day.shape, Path(own))
    for hardware in LAUNCHED:
        path = folder / f"{hardware}.json"
        what = f"losses, {hardware} to one process"
        if not path.is_file():
            yield Line(what, "no losses: see above", f"at most {day.losses:g}", False)
            continue
        found = json.loads(path.read_text())
        gap = max(abs(a - b) for a, b in zip(found["losses"], single, strict=True))
        yield _at_most(f"{what}, {found['processes']} processes", gap, day.losses)


def throughput(day: Day) -> Iterator[Line]:
    """Tokens a second that are no padding and no repetition, at each depth."""
    for layers in day.speed_layers:
        shape = SHAPES[day.shape].with_layers(layers)
        mix = MIXES["multi_turn"].scaled(day.length_scale)
        pairs = [row for number in range(day.rounds)
                 for row in draw(mix, day.pairs, number, shape.vocab)]
        with tempfile.TemporaryDirectory() as name:
            task = Task(write_model(shape, Path(name) / "model", 0), pairs, day.rounds, 16,
                        shape.pad, 0)
            configs = {PACKED: replace(PLAIN, pack=True, micro_batch_tokens=day.tokens),
                       **steps_of_tricks(last_only=True, micro_batch_tokens=day.tokens)}
            systems = [trl_peers(task)[0].system(), *training_systems(task, configs, Path(name))]
            measured = alternate(systems, day.rounds, f"{layers} layers")
        rows = table_rows(measured, shape, mix.name, pairs, FORWARD_AND_BACKWARD, {})
        for row, own in zip(rows, measured, strict=True):
            of = {ALL: "ours"}.get(row.system, row.system)
            used = "" if row.mfu is None else f", MFU {row.mfu:.0%}"
            speed = f"{row.tokens_useful / own.total_seconds:,.0f} tokens/s{used}"
            if row.system == ALL:
                best = row.mfu is None or layers != max(day.speed_layers) or row.mfu >= 0.5
                yield Line(f"{of}, {layers} layer(s)", f"{speed}, {row.ratio:.1f} x {TRL}",
                           "3 x, MFU 50%", row.ratio >= 3 and best)
            else:
                yield Line(f"{of}, {layers} layer(s)", speed)


def memory(day: Day) -> Iterator[Line]:
    from speed.gpu.memory import CASES, measure

    found = measure(CASES[day.memory_case])
    share = found.formula / found.peak
    yield Line(f"memory, {day.memory_case}, {found.tokens:,} tokens",
               f"{found.peak / 1e9:.3g} GB, formula {found.formula / 1e9:.3g}", "within 10%",
               abs(share - 1) <= 0.1)


def _at_most(what: str, found: float, limit: float) -> Line:
    return Line(what, f"{found:.2g}", f"at most {limit:g}", found <= limit)


def render(lines: list[Line], facts: dict[str, object]) -> str:
    """Markdown: one table, with the machine above it."""
    said = {None: "", True: "yes", False: "NO"}
    table = [f"| {line.what} | {line.figure} | {line.expected} | {said[line.held]} |"
             for line in lines]
    about = "; ".join(f"{name} {value}" for name, value in facts.items() if value != "")
    return "\n".join([f"# {facts['device']}", "", "| what | figure | expected | held |",
                      "|---|---|---|---|", *table, "", f"{about}.", ""])


def main() -> int:
    parser = Parser(prog="python -m speed.gpu.day", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=Path, metavar="FOLDER",
                        help="with the losses of each launch; left out where there was none")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rehearsal", action="store_true", help="tiny shapes, for a CPU")
    args = parser.parse_args()
    options.prepare(argparse.Namespace(layers=[], threads=1, seed=0))
    day, lines = REHEARSAL if args.rehearsal else GPU, []
    parts = [correctness(day), throughput(day), memory(day)]
    if args.launches:
        parts.insert(1, launches(day, args.launches))
    facts = options.machine_facts(argparse.Namespace(threads=1, seed=0))
    for part in parts:
        for line in part:
            print(" | ".join(filter(None, line[:3])), flush=True)
            lines.append(line)
            write_text(args.out, render(lines, facts))  # what is known, should the rest fail
    print(f"written: {args.out}")
    return int(not args.rehearsal and any(line.held is False for line in lines))


if __name__ == "__main__":
    run_command(lambda: sys.exit(main()))
