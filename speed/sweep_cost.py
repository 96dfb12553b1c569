"""A sweep's cost: the demo's grid, and students of which only the top layers train.

    python -m speed.sweep_cost                        # both, small
    python -m speed.sweep_cost --part deep --pairs 480 --mix multi_turn --json FILE

demo: teachers, ceilings and students of the demo experiment, one seed and one epoch, trained,
labelled and scored on test: with every key off and labels made anew for each student, with labels
made once for each teacher, and with every key on.
deep: students of 4 teachers x 3 seeds, the top 2 of 8 layers, two epochs and a score on test.
Without the trunk cache; with one that they fill themselves; and with the one that the ceilings
leave, which come first in a sweep and have the same base, layers and pairs. Each round begins
without a cache. Ratios are to each part's first system.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from speed import (
    grids,
    options,  # noqa: I001 - first: it sets the environment
)
from speed.measure import Clock, Measured, Round, System, alternate, ratios
from speed.ours import PLAIN
from speed.rows import cpu_ratio, show
from speed.table import TableRow
from src.batches.trees import trees_of
from src.common.errors import UserError, run_command
from src.runs.plan import Plan
from src.training import dry_run

FULL = dataclasses.replace(PLAIN, share_prompt=True, pack=True, last_layer_shortcut=True,
                           trunk_cache_gb=RuntimeConfig().trunk_cache_gb)
SEEDS, TEACHERS, DEEP_LAYERS, TRAINABLE = 3, 4, 8, 2


def parse_args() -> argparse.Namespace:
    about, more = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=about, epilog=more,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_options(parser, pairs=16, layers=(DEEP_LAYERS,))
    parser.add_argument("--part", nargs="+", choices=("demo", "deep"), default=["demo", "deep"])
    parser.add_argument("--test_pairs", type=int, metavar="N",
                        help="deep: test pairs that each student scores (default: as many as "
                             "--pairs; the demo and preference_700K have more)")
    parser.add_argument("--demo_pairs", type=int, default=100, metavar="N",
                        help="of each training split of the demo (default: %(default)s)")
    return parser.parse_args()


def system(name: str, make: Callable[[], Plan], work: Callable[[Plan, Path], None], runs: Path,
           before: Callable[[Plan, Path], None] = lambda sweep, folder: None) -> System:
    """`work` over a sweep opened anew and an empty folder of runs, which stays until the next; its
    time begins when `before` has been there."""
    def run(number: int) -> Round:
        folder = Path(tempfile.mkdtemp(prefix="round-", dir=runs))
        sweep = make()
        before(sweep, folder)
        with grids.all_counted() as sizes:
            clock = Clock()
            work(sweep, folder)
            result = clock.read(sum(sizes))
        folder.rename(_emptied(runs / "latest"))
        return result

    runs.mkdir()
    return System(name, run)


def _emptied(folder: Path) -> Path:
    grids.shutil.rmtree(folder, ignore_errors=True)
    return folder


def demo(args: argparse.Namespace, folder: Path) -> list[TableRow]:
    """The demo's grid with less and more of its work shared."""
    def sweep(runtime: RuntimeConfig) -> Plan:
        return Plan(grids.demo_experiment(folder, args.demo_pairs, runtime), folder / "processed")

    kinds = {"every key off, labels for each student": (PLAIN, False),
             "every key off, labels for each teacher": (PLAIN, True),
             "every key on": (FULL, True)}
    systems = [system(name, lambda runtime=runtime: sweep(runtime),
                      lambda opened, runs, once=once: grids.run_grid(opened, runs, once),
                      folder / f"runs-{number}")
               for number, (name, (runtime, once)) in enumerate(kinds.items())]
    measured = alternate(systems, args.rounds, "demo grid")
    whole = sweep(FULL)
    scored = {"train_2": len(whole.runs("teachers")),
              "test": sum(len(whole.runs(stage)) for stage in grids.STAGES)}
    labelled = sum(_tokens(whole.split("demo", split)) * count for split, count in scored.items())
    return _rows("demo", measured, whole, grids.STAGES, labelled, args,
                 layers=whole.base("demo").layers, pairs=args.demo_pairs)


def deep(args: argparse.Namespace, folder: Path) -> list[TableRow]:
    """Deep-only students without the trunk cache, with their own, and with the ceilings'."""
    shape = dataclasses.replace(options.shapes_of(args)[0], vocab=grids.vocabulary())
    if shape.layers < TRAINABLE + TEACHERS - 1:
        raise UserError(f"--layers {shape.layers}: four teachers of {TRAINABLE} layers and more "
                        f"need at least {TRAINABLE + TEACHERS - 1}")
    mix, pairs = options.mixes_of(args)[0], (args.pairs, args.test_pairs or args.pairs)

    def sweep(runtime: RuntimeConfig) -> Plan:
        return Plan(grids.deep_experiment(folder, shape, mix, pairs, tuple(range(SEEDS)),
                                           TRAINABLE, runtime), folder / "processed")

    def students(number: int, name: str, runtime: RuntimeConfig, **options) -> System:
        return system(name, lambda: sweep(runtime), grids.train_students,
                      folder / f"runs-{number}", **options)

    systems = [students(0, "without the trunk cache",
                        dataclasses.replace(FULL, trunk_cache_gb=0.0)),
               students(1, "with it, filled by these students", FULL),
               students(2, "with it, filled by the ceilings", FULL, before=grids.train_ceiling)]
    measured = alternate(systems, args.rounds, f"top {TRAINABLE} of {shape.layers} layers")
    difference = max(grids.largest_difference(folder / "runs-0" / "latest",
                                              folder / f"runs-{number}" / "latest")
                     for number in (1, 2))
    whole = sweep(FULL)
    scored = _tokens(whole.split(whole.students[0].base.key, "test")) * len(whole.runs("students"))
    return _rows(mix.name, measured, whole, ("students",), scored, args, layers=shape.layers,
                 pairs=args.pairs, test_pairs=pairs[1], trainable_layers=TRAINABLE,
                 weight_difference=difference)


def _tokens(split: TokenisedSplit) -> int:
    """Tokens of the distinct prompts and responses of a split."""
    trees = trees_of(split, share_prompt=True)
    return int(trees.prompt_tokens.sum() + trees.response_tokens.sum())


def _rows(mix: str, measured: list[Measured], sweep: Plan, stages: tuple[str, ...],
          labelled: int, args: argparse.Namespace, **facts) -> list[TableRow]:
    """A row for each system. Useful tokens: those of every step's trees, and `labelled`."""
    runs = [run for stage in stages for run in sweep.stage(stage)]
    useful = sum(dry_run.work(run, sweep)[0] for run in runs) + labelled
    pairs = sum(len(sweep.split(run, run.split)) * run.train.epochs for run in runs)
    facts = {"benchmark": "sweep_cost", "runs": len(runs), "rounds": args.rounds, **facts,
             **options.machine_facts(args)}
    rows = []
    for own in measured:
        ratio = ratios(own, measured[0])
        rows.append(TableRow(
            mix, own.system.name, pairs * args.rounds / own.total_seconds, own.tokens,
            useful * args.rounds, own.peak_mib, ratio.median, ratio.low, ratio.high,
            cpu_ratio(own, measured[0]), None, facts))
    return rows


def main() -> None:
    args = parse_args()
    options.prepare(args)

    def tables():
        for part in dict.fromkeys(args.part):
            with tempfile.TemporaryDirectory() as folder:
                yield {"demo": demo, "deep": deep}[part](args, Path(folder))

    show(tables(), args.json)


if __name__ == "__main__":
    run_command(main)
