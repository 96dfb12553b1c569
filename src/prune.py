"""Command: free the disk that the weights of an experiment's scored ceilings and students take.

    python -m src.prune --experiment gemma_3_sciq --dry-run      what would be freed
    python -m src.prune --experiment gemma_3_sciq
    python -m src.prune --experiment gemma_3_sciq --teachers     their weights as well

Weights go once the run's scores on test are written, and its weak labels where students learn from
them: those of teachers, with --teachers, of students that another method comes after, and of links
of chains, which have no scores. All else of a run's folder stays: it counts as finished, and
eval.py gives the same tables from the scores. What needs the weights themselves (--transfer,
--inspect on other data, src.scoring, src.push) says so: delete the folder of such a run and train
it again. Runs that lie under another experiment, which this one shares, are left. Teachers of an
experiment without students need no weak labels.
Of an experiment with policies nothing goes: they learn from its reward models and are judged by
them.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import ExperimentConfig, load_config
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.common.lock import lock

if TYPE_CHECKING:
    from configs.run import RunConfig

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.


def labelled_splits(run: "RunConfig", experiment: ExperimentConfig) -> tuple[str, ...]:
    """The splits that students of `experiment` need the labels of `run` of."""
    from src.methods.label_treatments import TREATMENTS

    if not experiment.students:
        return ()
    after = {method.after for method in experiment.methods}
    labels = run.method.name in after or _may_be_link(run, experiment)
    if run.kind == "ceiling" or (run.role == "student" and not labels):
        return ()
    fits = run.kind == "teacher" and any("val_label" in TREATMENTS.asks(method.treatment)
                                         for method in experiment.methods)
    stops = experiment.train.early_stopping_evals or any(
        method.early_stopping_evals and method.stop_on == "weak" for method in experiment.methods)
    averages = run.kind == "teacher" and experiment.averages  # of which some learn on val
    return ("train_2", "val") if fits or stops or averages else ("train_2",)


def _averages_left(folder: Path, run: "RunConfig", experiment: ExperimentConfig) -> int:
    """How many averages of a student are still to be made of its weights."""
    from src.runs.folders import is_done, read_run_config

    if run.kind != "student":
        return 0
    asked = sum(len(average.alphas) or 1 for average in experiment.averages)
    made = [config.parent for config in folder.parent.glob("*+*/config.yaml")]
    return asked - sum(other.kind == "average" and other.earlier == run.identity
                       and is_done(each, other.identity)
                       for each in made for other in [read_run_config(each)])


def _may_be_link(run: "RunConfig", experiment: ExperimentConfig) -> bool:
    """Whether a student is of a rung that some chain goes through, by its own method or by one of
    the same identity."""
    return any(ladder.model == run.model and len(run.kept) in (ladder.layers or (len(run.kept),))
               for method in experiment.methods for ladder in method.through)


def why_kept(folder: Path, experiment: ExperimentConfig) -> str:
    """Why the weights of the run in `folder` are still needed; empty where they are not."""
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
    if _averages_left(folder, run, experiment):
        return "has not been averaged yet: run weak_to_strong.sh"
    missing = [split for split in labelled_splits(run, experiment)
               if stored_labels(folder, run, split) is None]
    return f"has no weak labels of {' and '.join(missing)} yet" if missing else ""


def prune(folder: Path, experiment: ExperimentConfig, dry_run: bool) -> tuple[int, str]:
    """Free the weights of the run in `folder` if nothing needs them: (bytes, what became of it)."""
    from src.runs.folders import read_run_config
    from src.runs.freed import free_weights, is_freed, weight_bytes

    if is_freed(folder) and not weight_bytes(folder):
        return 0, "freed before"
    kept = why_kept(folder, experiment)  # before the lock: a run in training holds it for hours
    if kept:
        return 0, f"kept: {kept}"
    if dry_run:
        return weight_bytes(folder), "would be freed"
    with lock(folder):
        kept = why_kept(folder, experiment)
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
    return parser.parse_args()


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
    total = 0
    for folder in folders:
        size, became = prune(folder, experiment, args.dry_run)
        total += size
        print(f"{folder.parent.name}/{folder.name}: {became}"
              + (f", {size / 1e6:,.1f} MB" if size else ""), flush=True)
    print(f"{experiment.name}: {total / 1e9:,.2f} GB {'would be ' * args.dry_run}freed of "
          f"{len(folders)} runs")


if __name__ == "__main__":
    run_command(main)
