"""The command line of src.train, read before anything else is loaded.

    python -m src.training.command_line --experiment demo --stage teachers    # 2 for a mistake

The scripts ask so before they launch: a launcher takes seconds to start.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from configs.run import POLICIES, STAGES
from configs.schema import ExperimentConfig, load_config, load_with_policies
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT


def parse_args() -> argparse.Namespace:
    """The command line; UserError for a mistake in it, or in the experiment that it names."""
    parser = Parser(prog="python -m src.train", description="Train the runs of one stage, all in "
                    "one launch.")
    add_stage(parser, (*STAGES, POLICIES))
    parser.add_argument("--worker", default="0/1", metavar="I/N",
                        help="take every N-th run, from the I-th on; the scripts set it on CPUs")
    parser.add_argument("--only", nargs="+", default=[], metavar="IDENTITY",
                        help="of the stage's runs these alone, by the eight characters that end a "
                             "run folder's name; what a cluster's job is told")
    args = parser.parse_args()
    worker = re.fullmatch(r"(\d+)/(\d+)", args.worker)
    if worker is None or not int(worker[1]) < int(worker[2]):
        raise UserError(f"--worker {args.worker}: expected I/N with I from 0 to N - 1, such as 0/1")
    if args.stage == POLICIES:
        named = args.experiment.endswith((".yaml", ".yml"))
        found = load_with_policies(args.experiment)
        args.experiment = args.experiment if named else found.name
    else:
        load_config(ExperimentConfig, args.experiment)
    return args


def add_stage(parser: argparse.ArgumentParser, stages: Sequence[str] = STAGES) -> None:
    """What the scripts take, wherever they train; policies train here alone."""
    parser.add_argument("--experiment", required=True,
                        help="name of a file in configs/experiments, or the path of a YAML file")
    parser.add_argument("--stage", required=True, choices=stages)
    parser.add_argument("--seeds", type=int, nargs="+", default=[],
                        help="instead of the experiment's seeds")
    parser.add_argument("--dry-run", action="store_true",
                        help="list the runs, which are done, their tokens and time; train nothing")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed")


def main() -> None:
    parse_args()


if __name__ == "__main__":
    run_command(main)
