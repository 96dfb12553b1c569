"""What a stage would do: its runs, which of them are done, their tokens, an estimate of time."""

from pathlib import Path

from configs.run import POLICIES
from src.batches.steps import optimiser_steps
from src.common.console import table_lines
from src.runs.disk import disk_lines
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.training.estimate import Estimate
from src.training.fit import memory_lines
from src.training.speed import runs_at_a_time
from src.training.work import pairs_of, work


def describe(plan: Plan, stage: str, runs_dir: Path) -> str:
    """The stage as a table, ready to print."""
    if stage == POLICIES:
        return describe_policies(plan, runs_dir)
    workers = runs_at_a_time()
    estimate = Estimate(plan, runs_dir, workers)
    pieces = estimate.pieces[stage]
    lines = [f"{plan.experiment.name}, {stage}: {len(pieces)} runs, "
             f"{sum(piece.is_done for piece in pieces)} done",
             f"{'run':<52} {'state':<6} {'steps':>7} {'tokens':>14} {'time':>9}"]
    for piece in pieces:
        run = piece.run
        tokens, _ = work(run, plan)
        steps = optimiser_steps(run, pairs_of(run, plan)) if tokens else 0
        lines.append(f"{run.display_name:<52} {'done' if piece.is_done else 'to do':<6} "
                     f"{steps:>7,} {tokens:>14,} {duration(estimate.seconds_of(piece)):>9}")
    to_do = [piece.run for piece in pieces if not piece.is_done]
    lines += memory_lines(plan, to_do) + disk_lines(plan, to_do, runs_dir)
    lines.append(f"to do: about {duration(estimate.stage_seconds(stage))} on this machine, "
                 f"{at_a_time(workers)} ({estimate.speed.basis}); nothing was trained")
    return "\n".join(lines)


def describe_policies(plan: Plan, runs_dir: Path) -> str:
    """The policies as a table, and which of the reward models that they need are to be trained
    first. What they take is not known before answers are sampled."""
    done = {run.identity: find_finished(runs_dir, run.stage, run.identity) is not None
            for run in (*plan.runs, *plan.policies)}
    rows = [[run.display_name, "done" if done[run.identity] else "to do",
             run.teacher or "people", f"{run.train.learning_rate:g}"] for run in plan.policies]
    needed = {run.identity: run for policy in plan.policies for run in plan.needed(policy)
              if run.stage != POLICIES and not done[run.identity]}
    first = ", ".join(run.display_name for run in needed.values())
    return "\n".join([
        f"{plan.experiment.name}, {POLICIES}: {len(rows)} runs, "
        f"{sum(done[run.identity] for run in plan.policies)} done",
        *table_lines(["run", "state", "labels of", "learning rate"], rows, words=3),
        *([f"reward models to be trained first: {first}"] if first else []),
        "nothing was trained"])


def at_a_time(workers: int) -> str:
    """`2 runs at a time`."""
    return "one run after the other" if workers == 1 else f"{workers} runs at a time"


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
