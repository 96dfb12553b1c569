"""Commands: an experiment's runs as jobs of a cluster, and where each of its runs stands.

    LAUNCH=slurm ./weak_to_strong.sh demo              # calls `submit`; --dry-run shows the jobs
    python -m src.runs status demo                     # done, running, queued, failed and why
    python -m src.runs status demo --wait              # the same once nothing is in the queue
"""

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from configs.launch_schema import LaunchConfig
from configs.schema import ExperimentConfig, load_config
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.training.command_line import add_stage

if TYPE_CHECKING:
    from src.runs.launch.graph import Job
    from src.runs.launch.submit import Order

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.

POLL_SECONDS = 10.0
EXAMPLE = """examples:
  LAUNCH=slurm ./weak_to_strong.sh demo --dry-run    the jobs that would be submitted
  LAUNCH=slurm ./weak_to_strong.sh demo              submit them, and the teachers that they need
  python -m src.runs status demo                     where each run stands, and why it failed
"""


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m src.runs", description="Runs as jobs of a Slurm cluster: "
                    "submit a stage, or tell where an experiment's runs stand.", epilog=EXAMPLE,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", help="a stage's runs, and what they need; the scripts "
                                 "call it where LAUNCH names a file of configs/launch")
    add_stage(submit)
    submit.add_argument("--launch", required=True,
                        help="name of a file in configs/launch, or the path of a YAML file")
    status = commands.add_parser("status", help="where each run of an experiment stands, "
                                 "with jobs or without")
    status.add_argument("experiment", help="name of a file in configs/experiments, or the path of "
                        "a YAML file")
    status.add_argument("--seeds", type=int, nargs="+", default=[],
                        help="instead of the experiment's seeds, as given to the scripts")
    status.add_argument("--wait", action="store_true",
                        help="until no run is queued or running; exit code 1 where one failed")
    status.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs")
    status.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed")
    args = parser.parse_args()
    load_config(ExperimentConfig, args.experiment)
    return args


def submit(args: argparse.Namespace) -> None:
    """Submit a stage, or tell what would be."""
    config = load_config(LaunchConfig, args.launch)
    from src.runs.launch.submit import in_queue, jobs_to_submit
    from src.runs.launch.submit import submit as send
    from src.runs.launch.tables import dry_run_lines, submitted_lines

    order = _order(args, config)
    seconds = _seconds(order)
    if args.dry_run:
        queued = in_queue(order.runs_dir)
        print("\n".join(dry_run_lines(order, jobs_to_submit(order, queued), queued,
                                      lambda job: _told(seconds(job)))))
        return
    jobs, numbers = send(order, lambda jobs: _require_time(config, jobs, seconds), print)
    print("\n".join(submitted_lines(order, jobs, numbers)))


def _order(args: argparse.Namespace, config: LaunchConfig) -> "Order":
    from src.common.distributed import device
    from src.common.precision import SAID
    from src.runs.launch.submit import Order
    from src.runs.plan import Plan
    from src.scoring.labels import SCRIPTS
    from src.training.fit import place_of

    experiment = load_config(ExperimentConfig, args.experiment)
    if config.gpus and experiment.train.precision == "auto" and device().type != "cuda" and (
            not os.environ.get(SAID)):
        raise UserError(f"experiments/{experiment.name}: precision auto is bf16 on a GPU, and "
                        "this machine, which has none, cannot know what the nodes have: set "
                        f"{SAID}=bf16 before this and every other command on these runs, or write "
                        "bf16 into the experiment")
    plan = Plan(experiment, args.data_dir, tuple(args.seeds))
    options = ("--runs_dir", str(args.runs_dir.resolve()),
               "--data_dir", str(args.data_dir.resolve()),
               *(("--seeds", *map(str, args.seeds)) if args.seeds else ()))
    return Order(plan, args.stage, args.runs_dir.resolve(), config,
                 lambda run: place_of(plan, run, config),
                 {stage: (f"./{script}", args.experiment, *options)
                  for stage, script in SCRIPTS.items()})


def _seconds(order: "Order"):
    """What says how long a job takes; None where nobody knows: of GPUs only by finished runs."""
    from src.training.estimate import LAUNCH_SECONDS, Estimate

    config = order.config
    workers = 1 if config.gpus else min(config.cpus, config.runs_a_job)
    estimate = Estimate(order.plan, order.runs_dir, workers)
    pieces = {piece.run.identity: piece for stage in estimate.pieces.values() for piece in stage}

    def of_job(job: "Job") -> float | None:
        if config.gpus and not estimate.done:
            return None
        left = [estimate.left(pieces[run.identity]) for run in job.runs]
        return LAUNCH_SECONDS + max(sum(left[worker::workers]) for worker in range(workers))

    return of_job


def _told(seconds: float | None) -> str:
    from src.training.dry_run import duration

    return "unknown" if seconds is None else duration(seconds)


def _require_time(config: LaunchConfig, jobs: "list[Job]", seconds) -> None:
    longest = max(((seconds(job) or 0.0, job) for job in jobs), key=lambda each: each[0],
                  default=None)
    if longest and longest[0] > config.hours * 3600:
        names = [run.display_name for run in longest[1].runs]
        raise UserError(f"launch/{config.name}: hours {config.hours:g} is too short: the job of "
                        f"{', '.join(names)} takes about {_told(longest[0])}: raise hours, or "
                        f"lower runs_a_job ({config.runs_a_job}); nothing was submitted")


def status(args: argparse.Namespace) -> int:
    """Print where the runs stand; 1 if some that were waited for failed."""
    from src.runs.launch.status import standings
    from src.runs.launch.tables import status_lines
    from src.runs.plan import Plan

    plan = Plan(load_config(ExperimentConfig, args.experiment), args.data_dir, tuple(args.seeds))
    found = standings(plan, args.runs_dir)
    told = ""
    while args.wait and any(each.state in ("queued", "running") for each in found):
        *_, line = status_lines(plan.experiment.name, found)
        if line != told:
            print(line, flush=True)
        told = line
        time.sleep(POLL_SECONDS)
        found = standings(plan, args.runs_dir)
    print("\n".join(status_lines(plan.experiment.name, found)))
    return int(args.wait and any(each.state == "failed" for each in found))


def main() -> int:
    args = parse_args()
    return status(args) if args.command == "status" else submit(args) or 0


if __name__ == "__main__":
    run_command(main)
