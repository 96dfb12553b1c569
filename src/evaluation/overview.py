"""Command: an experiment as a whole: its runs, which are done, and how long the rest takes.

    python -m src.evaluation.overview --experiment smollm2_sciq

quickstart.sh asks before it trains; while it trains, every run that ends tells `progress`.
"""

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from configs.run import STAGES
from configs.schema import ExperimentConfig, load_config
from src.common.arguments import Parser
from src.common.errors import run_command
from src.common.files import REPO_ROOT

if TYPE_CHECKING:
    from src.runs.plan import Plan
    from src.training.estimate import Piece

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.

STEP, SINCE = "QUICKSTART_STEP", "QUICKSTART_SINCE"
"""Environment variables that quickstart.sh sets: `4/7`, and seconds since 1970 when it began."""


EVALUATION_SECONDS = 25.0
"""To load libraries, for intervals, figures and report."""


class Whole:
    """An experiment with its evaluation, given what is in `runs_dir`."""

    def __init__(self, plan: "Plan", runs_dir: Path, workers: int):
        from data.manifest import read_manifest
        from src.methods.labelling import is_link
        from src.training.estimate import Estimate

        self.plan, self.runs_dir, self.workers = plan, runs_dir, workers
        self.training: Estimate = Estimate(plan, runs_dir, workers)
        pairs = {name: split["pairs"] for name, split in
                 read_manifest(plan.prepared.folder)["splits"].items()}
        ratio = pairs["test"] / pairs["train_2"]  # training never opens test
        self.scores: list[Piece] = [self.training.scored(run, "test", "train_2", ratio)
                                    for run in plan.runs
                                    if not is_link(run.method, plan.experiment.methods)]

    def evaluation_seconds(self) -> float:
        """What is left to score, so many runs at a time, and to tabulate."""
        return sum(map(self.training.left, self.scores)) / self.workers + EVALUATION_SECONDS

    def seconds(self) -> float:
        """What is left of the whole."""
        return sum(map(self.training.stage_seconds, STAGES)) + self.evaluation_seconds()


def table(whole: Whole) -> str:
    """What is left of each stage and of the whole, ready to print."""
    from src.common.console import table_lines
    from src.runs.disk import disk_lines
    from src.training.dry_run import at_a_time, duration

    training = whole.training
    parts = [(stage, training.pieces[stage], training.stage_seconds(stage)) for stage in STAGES]
    parts.append(("scores, tables", whole.scores, whole.evaluation_seconds()))
    rows = [[name, str(len(pieces)), str(sum(piece.is_done for piece in pieces)), duration(seconds)]
            for name, pieces, seconds in parts]
    to_do = [run for run in whole.plan.runs if not training.folders[run.identity]]
    return "\n".join([
        *table_lines(["", "runs", "done", "time left"], rows),
        *disk_lines(whole.plan, to_do, whole.runs_dir),
        f"{whole.plan.experiment.name}: about {duration(whole.seconds())} on this machine, "
        f"{at_a_time(whole.workers)} ({training.speed.basis}; finished runs correct it)"])


def progress(whole: Whole) -> str:
    """One line on the whole, for when a run has ended under quickstart.sh."""
    from src.training.dry_run import duration

    since = duration(max(0.0, time.time() - float(os.environ[SINCE])))
    return (f"{whole.plan.experiment.name}, step {os.environ[STEP]}: {whole.training.done} of "
            f"{len(whole.plan.runs)} runs done, {since} so far, about {duration(whole.seconds())} "
            "left")


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m src.evaluation.overview", description="What an experiment's "
                    "runs are, which are done, and how long the rest takes on this machine: "
                    "training, labelling, scoring.")
    parser.add_argument("--experiment", required=True,
                        help="name of a file in configs/experiments, or the path of a YAML file")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    experiment = load_config(ExperimentConfig, args.experiment)

    from src.runs.plan import Plan
    from src.training.speed import runs_at_a_time

    print(table(Whole(Plan(experiment, args.data_dir), args.runs_dir, runs_at_a_time())))


if __name__ == "__main__":
    run_command(main)
