"""Command: free the disk that the weights of an experiment's scored ceilings and students take.

    python -m src.prune --experiment gemma_3_sciq --dry-run      what would be freed
    python -m src.prune --experiment gemma_3_sciq
    python -m src.prune --experiment gemma_3_sciq --teachers     their weights as well

Weights go once the run's scores on test are written, and its weak labels where students learn from
them: those of teachers, with --teachers, of students that another method comes after, and of links
of chains, which have no scores. A run whose hidden states students distil waits until these are
finished. All else of a run's folder stays: it counts as finished, and eval.py gives the same tables
from the scores. What needs the weights themselves (--transfer, --inspect on other data,
src.scoring, src.push) says so: delete the folder of such a run and train it again. Runs that lie
under another experiment, which this one shares, are left. Pruning looks at the named experiment
alone: others that use its runs, as demo_dpo does demo's, need them trained again. Teachers of an
experiment without students need no weak labels.
Of an experiment with policies nothing goes: they learn from its reward models and are judged by
them.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import ExperimentConfig, LadderConfig, load_config
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.common.lock import lock

if TYPE_CHECKING:
    from configs.run import RunConfig
    from src.runs.plan import Plan

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.


def labelled_splits(run: "RunConfig", experiment: ExperimentConfig) -> tuple[str, ...]:
    """The splits that students of `experiment` need the labels of `run` of."""
    from src.methods.label_treatments import TREATMENTS

    if not experiment.students:
        return ()
    after = {method.after for method in experiment.methods}
    labels = run.method.name in after or _may_be_link(
        run, (ladder for method in experiment.methods for ladder in method.through))
    if run.kind == "ceiling" or (run.role == "student" and not labels):
        return ()
    fits = run.kind == "teacher" and any("val_label" in TREATMENTS.asks(method.treatment)
                                         for method in experiment.methods)
    stops = experiment.train.early_stopping_evals or any(
        method.early_stopping_evals and method.stop_on == "weak" for method in experiment.methods)
    val = fits or stops or _teaches_averaged(run, experiment)
    return ("train_2", "val") if val else ("train_2",)


def _teaches_averaged(run: "RunConfig", experiment: ExperimentConfig) -> bool:
    """Whether averages learn on the labels of val of `run`, as those of its own students may."""
    from src.runs.averages import recipes_of

    taught = (any(not method.through for method in experiment.methods) if run.kind == "teacher" else
              _may_be_link(run, (ladder for method in experiment.methods
                                 for ladder in method.through[-1:])))
    return taught and any(
        recipe.needs_labels and (recipe.adaptive is None or recipe.adaptive.target == "weak")
        for recipe in recipes_of(experiment.averages, f"experiments/{experiment.name}"))


def _is_averaged(folder: Path, run: "RunConfig", experiment: ExperimentConfig) -> bool:
    """Whether every average of a student's weights that is asked for is made; of links none is."""
    from src.methods.labelling import is_link
    from src.runs.averages import average_of, recipes_of
    from src.runs.folders import find_finished

    if run.kind != "student" or is_link(run.method, experiment.methods):
        return True
    recipes = recipes_of(experiment.averages, f"experiments/{experiment.name}")
    return all(find_finished(folder.parents[2], run.stage, average_of(run, recipe).identity)
               for recipe in recipes)


def _may_be_link(run: "RunConfig", rungs: Iterable[LadderConfig]) -> bool:
    """Whether a student is of one of `rungs`, through which chains go, by its own method or by one
    of the same identity."""
    return any(ladder.model == run.model and len(run.kept) in (ladder.layers or (len(run.kept),))
               for ladder in rungs)


def distilled_by_unfinished(plan: "Plan", runs_dir: Path) -> frozenset[str]:
    """Identities of the runs whose hidden states students that are not finished learn from."""
    from src.methods.distilled_layers import distils
    from src.runs.folders import find_finished

    return frozenset(
        identity for run in plan.stage("students")
        if distils(run.method) and find_finished(runs_dir, run.stage, run.identity) is None
        for identity in ([run.earlier] if run.method.through else run.labels.split("+")))


def why_kept(folder: Path, experiment: ExperimentConfig,
             distilled: frozenset[str] = frozenset()) -> str:
    """Why the weights of the run in `folder` are still needed; empty where they are not.

    Args:
        distilled: identities of the runs whose hidden states are still to be learned from.
    """
    from src.methods.labelling import is_link
    from src.runs.folders import is_done, read_run_config
    from src.scoring.pairs import stored_scores
    from src.scoring.weak_labels import stored_labels

    if experiment.policies is not None:
        return "policies learn from it or are judged by it"
    run = read_run_config(folder)
    if not is_done(folder, run.identity):
        return "not finished"
    scored = run.kind != "student" or not is_link(run.method, experiment.methods)
    if scored and stored_scores(folder, run, "test") is None:
        return "has no scores of these weights on test yet: run eval.py"
    if not _is_averaged(folder, run, experiment):
        return "has not been averaged yet: run weak_to_strong.sh"
    if run.identity in distilled:
        return "a student is still to learn from its hidden states: run weak_to_strong.sh"
    missing = [split for split in labelled_splits(run, experiment)
               if stored_labels(folder, run, split) is None]
    return f"has no weak labels of {' and '.join(missing)} yet" if missing else ""


def prune(folder: Path, experiment: ExperimentConfig, dry_run: bool,
          distilled: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Free the weights of the run in `folder` if nothing needs them: (bytes, what became of it).
    `distilled`: see why_kept."""
    from src.runs.folders import read_run_config
    from src.runs.freed import free_weights, is_freed, weight_bytes

    if is_freed(folder) and not weight_bytes(folder):
        return 0, "freed before"
    # before the lock: a run in training holds it for hours
    kept = why_kept(folder, experiment, distilled)
    if kept:
        return 0, f"kept: {kept}"
    if dry_run:
        return weight_bytes(folder), "would be freed"
    with lock(folder):
        kept = why_kept(folder, experiment, distilled)
        if kept:
            return 0, f"kept: {kept}"
        return free_weights(folder, read_run_config(folder).identity), "freed"


def parse_args() -> argparse.Namespace:
    about, more = __doc__.split("\n\n", 1)
    parser = Parser(prog="python -m src.prune", description=about, epilog=more,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", required=True,
                        help="name of a file in configs/experiments, or the path of a YAML file")
    parser.add_argument("--teachers", action="store_true",
                        help="free the weights of teachers too, once their labels are written")
    parser.add_argument("--dry-run", action="store_true", help="say what would be freed, and stop")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs",
                        help="where the runs are (default: runs/)")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="where prepared data are, which tell who distils whom (default: "
                             "data/processed/)")
    return parser.parse_args()


def _distilled(experiment: ExperimentConfig, args: argparse.Namespace) -> frozenset[str]:
    """See why_kept. Where nothing that may go is distilled, prune asks for no data."""
    from src.methods.distilled_layers import distils
    from src.runs.plan import Plan

    if not any(distils(method) and (args.teachers or method.through)
               for method in experiment.methods):
        return frozenset()
    return distilled_by_unfinished(Plan(experiment, args.data_dir), args.runs_dir)


def main() -> None:
    args = parse_args()
    experiment = load_config(ExperimentConfig, args.experiment)
    root = args.runs_dir / experiment.name
    stages = ("ceilings", "students", *(["teachers"] if args.teachers else []))
    folders = [config.parent for stage in stages
               for config in sorted((root / stage).glob("*/config.yaml"))]
    if not folders:
        others = not args.teachers and any(root.glob("teachers/*/config.yaml"))
        raise UserError(f"{root}: no {' or '.join(stages)} there: " + (
            "--teachers frees the weights of teachers" if others else
            "--runs_dir names the folder of the runs"))
    distilled = _distilled(experiment, args)
    total = 0
    for folder in folders:
        size, became = prune(folder, experiment, args.dry_run, distilled)
        total += size
        print(f"{folder.parent.name}/{folder.name}: {became}"
              + (f", {size / 1e6:,.1f} MB" if size else ""), flush=True)
    print(f"{experiment.name}: {total / 1e9:,.2f} GB {'would be ' * args.dry_run}freed of "
          f"{len(folders)} runs")


if __name__ == "__main__":
    run_command(main)
