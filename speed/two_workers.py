"""Runs side by side: how much workers on cores of their own slow each other, as a sweep has them.

    python -m speed.two_workers --shape smollm2_135m --layers 8 --data sciq_local

A worker is a process that trains with every key on. The first row has one of them at a time, the
second as many as `--workers` says, all on the same pairs and started together. The ratio is the
speed of a worker among others over that of one alone: 1 where they do not slow each other.
"""

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import Measured, Round, System, alternate
from speed.mixes import Row as Pair
from speed.ours import steps_of_tricks, training_systems
from speed.peers.peer import Task
from speed.rows import describe, show, table_rows
from speed.shapes import Shape, write_model
from speed.table import TableRow
from src.common.errors import run_command

FORWARD_AND_BACKWARD = 3
_own: dict[str, object] = {}
"""What a worker process keeps between rounds."""


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=48, layers=(4,))
    options.add_ours(parser, "micro_batch_tokens")
    parser.add_argument("--workers", type=int, default=2, metavar="N",
                        help="at once in the second row (default: %(default)s)")
    return parser.parse_args()


def set_up(args: argparse.Namespace, task: Task, barrier: Barrier | None) -> None:
    """Make this process a worker; `barrier` is None where it has no others beside it."""
    options.prepare(args)
    folder = tempfile.TemporaryDirectory()
    configs = steps_of_tricks(last_only=True, micro_batch_tokens=args.micro_batch_tokens,
                              attention=args.attention)
    systems = training_systems(task, configs, Path(folder.name), args.bf16)
    _own.update(folder=folder, system=systems[-1], barrier=barrier)


def train(number: int, together: bool) -> Round:
    """A round in a worker, begun when all that take part are there."""
    if together:
        _own["barrier"].wait()
    return _own["system"].run(number)


def slowest(pool: ProcessPoolExecutor, workers: int, number: int) -> Round:
    """A round of `workers` at once, as long as the last of them took."""
    tasks = [pool.submit(train, number, workers > 1) for _ in range(workers)]
    return max((each.result() for each in tasks), key=lambda each: each.seconds)


def measure(args: argparse.Namespace, shape: Shape, mix: str, pairs: list[Pair]) -> list[TableRow]:
    """The rows of one mix and one depth."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(shape, Path(folder) / "model", args.seed)
        task = Task(model, pairs, args.rounds, args.batch_pairs, shape.pad, args.seed)
        with ProcessPoolExecutor(args.workers, context, set_up,
                                 (args, task, context.Barrier(args.workers))) as pool:
            slowest(pool, args.workers, 0)  # so that all of them are there
            systems = [System(f"{count} at a time", lambda k, count=count: slowest(pool, count, k))
                       for count in (1, args.workers)]
            measured = alternate(systems, args.rounds, f"{mix}, {shape.layers} layers")
    return rows_of_workers("two_workers", args, shape, mix, pairs, measured)


def rows_of_workers(benchmark: str, args: argparse.Namespace, shape: Shape, mix: str,
                    pairs: list[Pair], measured: list[Measured]) -> list[TableRow]:
    """A row for each system, whose rounds were other processes'."""
    for each in measured:
        each.peak_mib = None  # of this process, which computes nothing
    facts = {"benchmark": benchmark, "layers": shape.layers, "hidden": shape.hidden,
             **describe(pairs, args.batch_pairs, args.seed), "batch_pairs": args.batch_pairs,
             "rounds": args.rounds, "micro_batch_tokens": args.micro_batch_tokens,
             "precision": "bf16" if args.bf16 else "fp32", **options.machine_facts(args)}
    return table_rows(measured, shape, mix, pairs, FORWARD_AND_BACKWARD, facts)


def main() -> None:
    args = parse_args()
    options.prepare(args)
    show((measure(args, *each) for each in options.work_of(args)), args.json)


if __name__ == "__main__":
    run_command(main)
