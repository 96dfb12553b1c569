"""What the weights of runs take on disk, by formula, and whether the disk has it.

Four bytes a parameter: what is saved is fp32 (bf16 under ZeRO: half of it). Not counted: the
checkpoints to resume from, three times as much each, of the runs that are in training.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from configs.run import RunConfig
from src.runs.plan import Plan

BYTES = 4


def weights_gb(plan: Plan, runs: Iterable[RunConfig]) -> float:
    """The weights of `runs` in 10^9 bytes."""
    return BYTES * sum(plan.bases[run.model].all_parameters(run.kept) for run in runs) / 1e9


def is_short(plan: Plan, runs: Iterable[RunConfig], runs_dir: Path) -> bool:
    """Whether the disk of `runs_dir` has less than the weights of `runs` will take."""
    return weights_gb(plan, runs) > _free_gb(runs_dir)


def disk_lines(plan: Plan, runs: Iterable[RunConfig], runs_dir: Path) -> list[str]:
    """What the weights of the `runs` that are to be trained will take, for people; with a warning
    where the disk `is_short`."""
    runs = list(runs)
    if not runs:
        return []
    lines = [f"weights of the {len(runs)} runs to do: about {_text(weights_gb(plan, runs))} on "
             f"disk, of {_text(_free_gb(runs_dir))} free"]
    if is_short(plan, runs, runs_dir):
        lines.append(f"! {runs_dir}: the disk has less: free weights of scored runs on the way, "
                     f"python -m src.prune --experiment {plan.experiment.name}, or put --runs_dir "
                     "on a bigger disk")
    return lines


def _text(gb: float) -> str:
    return f"{gb:,.1f} GB" if gb >= 1 else f"{1000 * gb:,.1f} MB"


def _free_gb(runs_dir: Path) -> float:
    """What is free where `runs_dir` lies, or will."""
    place = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents)
                 if path.exists())
    return shutil.disk_usage(place).free / 1e9
