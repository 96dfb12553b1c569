"""Training in big pages of memory: what GLIBC_TUNABLES=glibc.malloc.hugetlb=1 saves.

    python -m speed.big_pages --shape smollm2_135m --layers 2 --data sciq_local

The scripts at the top set that variable (src/shell.sh): glibc, from 2.35, then asks Linux for pages
of 2 MiB instead of 4 KiB. It is read as a process starts, so each row is a process of its own that
trains with every key on, and they take turns. Elsewhere it does nothing, and the ratio is about 1.
"""

import argparse
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import System, alternate
from speed.mixes import Row as Pair
from speed.peers.peer import Task
from speed.rows import show
from speed.shapes import Shape, write_model
from speed.table import TableRow
from speed.two_workers import rows_of_workers, set_up, slowest
from src.common.errors import run_command

PAGES = {"pages of 4 KiB": "", "pages of 2 MiB": "glibc.malloc.hugetlb=1"}
"""Name -> GLIBC_TUNABLES."""


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=48, layers=(4,))
    options.add_ours(parser, "micro_batch_tokens")
    return parser.parse_args()


def trainer_process(args: argparse.Namespace, task: Task, tunables: str) -> ProcessPoolExecutor:
    """A process that was started under these tunables."""
    os.environ["GLIBC_TUNABLES"] = tunables
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), set_up, (args, task, None))
    slowest(pool, 1, 0)  # so that it is there
    return pool


def measure(args: argparse.Namespace, shape: Shape, mix: str, pairs: list[Pair]) -> list[TableRow]:
    """The rows of one mix and one depth."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        model = write_model(shape, Path(folder) / "model", args.seed)
        task = Task(model, pairs, args.rounds, args.batch_pairs, shape.pad, args.seed)
        pools = {name: processes.enter_context(trainer_process(args, task, tunables))
                 for name, tunables in PAGES.items()}
        systems = [System(name, lambda number, pool=pool: slowest(pool, 1, number))
                   for name, pool in pools.items()]
        measured = alternate(systems, args.rounds, f"{mix}, {shape.layers} layers")
    return rows_of_workers("big_pages", args, shape, mix, pairs, measured)


def main() -> None:
    args = parse_args()
    options.prepare(args)
    show((measure(args, *each) for each in options.work_of(args)), args.json)


if __name__ == "__main__":
    run_command(main)
