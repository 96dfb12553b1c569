"""How our training time grows: with length, depth, the budget of a packed row, and pairs.

    python -m speed.scaling
    python -m speed.scaling --axis length depth --pairs 64 --json FILE

Every axis doubles three times from the same start, the others staying there. The ratio is time per
pair over that of the axis's start: a time that is linear in tokens x layers has the factor itself
for length and depth, and 1 for budget and pairs. `ratio` here is time, so that less is better.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from model.attention.attend import BACKENDS
from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import Measured, System, alternate, spread
from speed.mixes import Mix, draw
from speed.ours import ALL, steps_of_tricks, training_systems
from speed.peers.peer import Task
from speed.rows import cpu_ratio, show, useful_tokens
from speed.shapes import Shape, write_model
from speed.table import TableRow
from src.common.errors import UserError, run_command

FACTORS = (1, 2, 4, 8)
LINEAR = ("length", "depth")
"""Axes along which the work of a pair grows."""


@dataclass(frozen=True)
class Point:
    """One setting to measure."""

    axis: str
    factor: int
    shape: Shape
    mix: Mix
    budget: int
    pairs: int

    @property
    def name(self) -> str:
        return f"{self.axis} x{self.factor}"


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=16, layers=(2,))
    parser.add_argument("--axis", nargs="+", choices=("length", "depth", "budget", "pairs"),
                        default=["length", "depth", "budget", "pairs"])
    parser.add_argument("--budget", type=int, default=1024, metavar="N",
                        help="micro_batch_tokens of the budget axis's start; the other axes take "
                        "8 times that (default: %(default)s)")
    parser.add_argument("--attention", default="auto", choices=BACKENDS)
    return parser.parse_args()


def points_of(args: argparse.Namespace, axis: str) -> list[Point]:
    """The settings of an axis, its start first."""
    shape, mix = options.shapes_of(args)[0], options.mixes_of(args)[0].scaled(0.5)
    start = Point(axis, 1, shape, mix, FACTORS[-1] * args.budget, args.pairs)
    if axis == "length":
        return [replace(start, factor=k, mix=mix.scaled(k)) for k in FACTORS]
    if axis == "depth":
        return [replace(start, factor=k, shape=shape.with_layers(shape.layers * k))
                for k in FACTORS]
    if axis == "budget":  # long enough for a step of 16 pairs to fill the largest
        return [replace(start, factor=k, mix=mix.scaled(4), budget=args.budget * k)
                for k in FACTORS]
    return [replace(start, factor=k, pairs=args.pairs * k) for k in FACTORS]


def system(point: Point, args: argparse.Namespace, folder: Path) -> tuple[System, int]:
    """Training at a point, and the useful tokens of all its rounds."""
    folder.mkdir()
    rows = [row for number in range(args.rounds) for row in
            draw(point.mix, point.pairs, args.seed + number, point.shape.vocab)]
    model = write_model(point.shape, folder / "model", args.seed)
    task = Task(model, rows, args.rounds, args.batch_pairs, point.shape.pad, args.seed)
    runtime = steps_of_tricks(last_only=True, micro_batch_tokens=point.budget,
                              attention=args.attention)[ALL]
    return training_systems(task, {point.name: runtime}, folder)[0], useful_tokens(rows)


def measure(args: argparse.Namespace, axis: str) -> list[TableRow]:
    """The rows of one axis."""
    points = points_of(args, axis)
    with tempfile.TemporaryDirectory() as folder:
        built = [system(point, args, Path(folder) / str(point.factor)) for point in points]
        measured = alternate([each for each, _ in built], args.rounds, axis)
    facts = {"benchmark": f"scaling with {axis}", "hidden": points[0].shape.hidden,
             "batch_pairs": args.batch_pairs, "rounds": args.rounds, "attention": args.attention,
             "ratio_is": "time per pair over the first row's, "
             + ("linear is the factor itself" if axis in LINEAR else "linear is 1"),
             "layers": points[0].shape.layers, **options.machine_facts(args)}
    return [_row(point, own, points[0], measured[0], useful, args.rounds, facts)
            for point, own, (_, useful) in zip(points, measured, built, strict=True)]


def _row(point: Point, own: Measured, first: Point, start: Measured, useful: int, rounds: int,
         facts: dict[str, object]) -> TableRow:
    more = point.pairs / first.pairs
    ratio = spread([mine / base / more for mine, base in zip(own.seconds, start.seconds,
                                                             strict=True)])
    processor = cpu_ratio(own, start)
    return TableRow(
        point.mix.name, point.name, point.pairs * rounds / own.total_seconds, own.tokens, useful,
        own.peak_mib, ratio.median, ratio.low, ratio.high,
        None if processor is None else 1 / processor / more, None, facts)


def main() -> None:
    args = parse_args()
    options.prepare(args)
    if args.data:
        raise UserError(f"--data {args.data}: lengths are to grow, so they come from a --mix")
    if args.budget <= 0:
        raise UserError(f"--budget {args.budget}: must be above 0")
    show((measure(args, axis) for axis in dict.fromkeys(args.axis)), args.json)


if __name__ == "__main__":
    run_command(main)
