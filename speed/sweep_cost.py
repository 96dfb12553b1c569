"""A sweep's cost: the demo's grid, students of which only the top layers train, two methods.

    python -m speed.sweep_cost                        # all, small
    python -m speed.sweep_cost --part deep --pairs 480 --mix multi_turn --json FILE
    python -m speed.sweep_cost --part methods --shape smollm2_135m --layers 30 --pairs 64 --rounds 1

demo: teachers, ceilings and students of the demo experiment, one seed and one epoch, trained,
labelled and scored on test: with every key off and labels made anew for each student, with labels
made once for each teacher, and with every key on.
deep: students of 4 teachers x 3 seeds, the top 2 of 8 layers, two epochs and a score on test.
Without the trunk cache; with one that they fill themselves; and with the one that the ceilings
leave, which come first in a sweep and have the same base, layers and pairs. Each round begins
without a cache.
methods: what deep has, of 2 teachers x 3 seeds, by soft labels and by the confidence loss: each
student from scratch, with a teacher, labels and a ceiling of its own; each method as an experiment
of its own; both as one comparison, which shares them and the trunk cache. No round warms these up,
for on a deep model each takes minutes.
Ratios are to each part's first system.
"""

import argparse
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.run import STAGES
from configs.schema import MethodConfig, RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from speed import (
    grids,
    options,  # noqa: I001 - first: it sets the environment
)
from speed.measure import Clock, Measured, Round, System, alternate, ratios
from speed.ours import PLAIN
from speed.rows import cpu_ratio, show
from speed.shapes import Shape
from speed.table import TableRow
from src.batches.trees import trees_of
from src.common.errors import UserError, run_command
from src.runs.plan import Plan
from src.training.work import work

FULL = dataclasses.replace(PLAIN, share_prompt=True, pack=True, last_layer_shortcut=True,
                           trunk_cache_gb=RuntimeConfig().trunk_cache_gb)
SEEDS, TEACHERS, DEEP_LAYERS, TRAINABLE = 3, 4, 8, 2
METHOD_SEEDS, METHOD_TEACHERS = 3, 2
METHODS = (MethodConfig("soft"), MethodConfig("confidence", "confidence", aux_coef=0.75))
PARTS = ("demo", "deep", "methods")


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=16, layers=(DEEP_LAYERS,))
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--test_pairs", type=int, metavar="N",
                        help="deep, methods: test pairs that each student scores (default: as "
                             "many as --pairs; the demo and preference_700K have more)")
    parser.add_argument("--demo_pairs", type=int, default=100, metavar="N",
                        help="of each training split of the demo (default: %(default)s)")
    return parser.parse_args()


def system(name: str, make: Callable[[], Plan], run_all: Callable[[Plan, Path], None], runs: Path,
           before: Callable[[Plan, Path], None] = lambda sweep, folder: None,
           keep: bool = True) -> System:
    """`run_all` over a sweep opened anew and an empty folder of runs; its time begins when `before`
    has been there. The folder stays until the next round, if it is to `keep`."""
    def run(number: int) -> Round:
        folder = Path(tempfile.mkdtemp(prefix="round-", dir=runs))
        sweep = make()
        before(sweep, folder)
        with grids.all_counted() as sizes:
            clock = Clock()
            run_all(sweep, folder)
            result = clock.read(sum(sizes))
        if keep:
            folder.rename(_emptied(runs / "latest"))
        else:
            _emptied(folder)
        return result

    runs.mkdir()
    return System(name, run)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
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
    return _rows("demo", measured, whole, STAGES, _labelled(whole), args,
                 layers=whole.bases["demo"].layers, pairs=args.demo_pairs)


def deep(args: argparse.Namespace, folder: Path) -> list[TableRow]:
    """Deep-only students without the trunk cache, with their own, and with the ceilings'."""
    shape, mix = _shape(args, TEACHERS), options.mixes_of(args)[0]

    def sweep(runtime: RuntimeConfig) -> Plan:
        return Plan(grids.deep_experiment(folder, shape, mix, _pairs(args), tuple(range(SEEDS)),
                                          TRAINABLE, TEACHERS, runtime), folder / "processed")

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
    students_runs = whole.stage("students")
    scored = _tokens(whole.split(students_runs[0], "test")) * len(students_runs)
    return _rows(mix.name, measured, whole, ("students",), scored, args, layers=shape.layers,
                 pairs=args.pairs, test_pairs=_pairs(args)[1], trainable_layers=TRAINABLE,
                 weight_difference=difference)


def methods(args: argparse.Namespace, folder: Path) -> list[TableRow]:
    """Two methods: each student from scratch, each method alone, and both as one comparison."""
    shape, mix = _shape(args, METHOD_TEACHERS), options.mixes_of(args)[0]

    def sweep(runtime: RuntimeConfig, chosen: Sequence[MethodConfig] = METHODS) -> Plan:
        experiment = grids.deep_experiment(folder, shape, mix, _pairs(args),
                                           tuple(range(METHOD_SEEDS)), TRAINABLE, METHOD_TEACHERS,
                                           runtime)
        return Plan(dataclasses.replace(experiment, methods=tuple(chosen)), folder / "processed")

    alone = dataclasses.replace(FULL, trunk_cache_gb=0.0)

    def one_by_one(plan: Plan, runs_dir: Path) -> None:
        for number, method in enumerate(METHODS):
            grids.run_comparison(sweep(FULL, [method]), runs_dir / str(number))

    kinds = [("each student from scratch", alone, grids.run_from_scratch),
             ("each method as an experiment", FULL, one_by_one),
             ("both methods as one comparison", FULL, grids.run_comparison)]
    measured = alternate([system(name, lambda runtime=runtime: sweep(runtime), work,
                                 folder / f"runs-{number}", keep=False)
                          for number, (name, runtime, work) in enumerate(kinds)],
                         args.rounds, f"two methods, top {TRAINABLE} of {shape.layers} layers",
                         warm_up=False)
    whole = sweep(FULL)
    return _rows(f"methods, {mix.name}", measured, whole, STAGES, _labelled(whole), args,
                 layers=shape.layers, pairs=args.pairs, test_pairs=_pairs(args)[1],
                 trainable_layers=TRAINABLE, students=len(whole.stage("students")))


def _shape(args: argparse.Namespace, teachers: int) -> Shape:
    shape = dataclasses.replace(options.shapes_of(args)[0], vocab=grids.vocabulary())
    if shape.layers < TRAINABLE + teachers - 1:
        raise UserError(f"--layers {shape.layers}: {teachers} teachers of {TRAINABLE} layers and "
                        f"more need at least {TRAINABLE + teachers - 1}")
    return shape


def _pairs(args: argparse.Namespace) -> tuple[int, int]:
    """To train on, to test on."""
    return args.pairs, args.test_pairs or args.pairs


def _labelled(plan: Plan) -> int:
    """Tokens of the pairs that teachers label, and that every run is scored on."""
    scored = [(run, "test") for run in plan.runs]
    scored += [(run, "train_2") for run in plan.stage("teachers")]
    return sum(_tokens(plan.split(run, split)) for run, split in scored)


def _tokens(split: TokenisedSplit) -> int:
    """Tokens of the distinct prompts and responses of a split."""
    trees = trees_of(split, share_prompt=True)
    return int(trees.prompt_tokens.sum() + trees.response_tokens.sum())


def _rows(mix: str, measured: list[Measured], sweep: Plan, stages: tuple[str, ...],
          labelled: int, args: argparse.Namespace, **facts) -> list[TableRow]:
    """A row for each system. Useful tokens: those of every step's trees, and `labelled`."""
    runs = [run for stage in stages for run in sweep.stage(stage)]
    useful = sum(work(run, sweep)[0] for run in runs) + labelled
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
                yield {"demo": demo, "deep": deep, "methods": methods}[part](args, Path(folder))

    show(tables(), args.json)


if __name__ == "__main__":
    run_command(main)
