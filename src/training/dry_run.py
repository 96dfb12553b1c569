"""What a stage would do: its runs, which of them are done, their tokens, an estimate of time, and
the memory that they take on each kind of hardware.
"""

from pathlib import Path

import torch

from configs.run import POLICIES, RunConfig
from model.base.memory import Parts, scoring_gb
from src.batches.packing import scoring_budget
from src.batches.steps import optimiser_steps
from src.common.console import table_lines
from src.common.errors import UserError
from src.runs.disk import disk_lines
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.training import fit
from src.training.estimate import Estimate
from src.training.speed import runs_at_a_time
from src.training.work import pairs_of, work

KINDS = {"cpu": False, "gpu": False, "multi_gpu": True, "zero2": True, "zero3": True}
"""The files of configs/hardware, and whether one is for several processes."""


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
    lines += memory_lines(plan, to_do, workers) + disk_lines(plan, to_do, runs_dir)
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


def memory_lines(plan: Plan, runs: list[RunConfig], workers: int) -> list[str]:
    """What each rung of `runs` takes under each kind of hardware, all runs of a rung the same, and
    whether there is as much; with `micro_batch_tokens: auto`, what that becomes on the GPUs here,
    or else on such of 80 GB."""
    runs = [run for run in fit.one_a_rung(runs) if run.method.learner == "gradient"]
    if not runs:
        return []
    count = torch.cuda.device_count()
    several = count if count > 1 else 4
    auto = plan.experiment.runtime.micro_batch_tokens == "auto"
    memory = fit.device_gb() or fit.SOLD_AS_80_GB
    lines = [f"memory, GB on each device by formula; multi_gpu, zero2, zero3 on {several} GPUs",
             f"{'rung':<27} {'HARDWARE':<10}" + "".join(f"{name:>12}" for name in (
                 *Parts._fields, "all", *(["tokens"] if auto else [])))]
    for run in runs:
        size, name = fit.run_size(plan, run), run.name
        for hardware, distributed in KINDS.items():
            processes = several if distributed else 1
            runtime = fit.filled(plan, size, hardware, processes, memory)
            parts = fit.size_parts(plan, size, hardware, processes, runtime)
            figures = "".join(f"{part:>12.2f}" for part in (*parts, parts.total))
            tokens = f"{runtime.micro_batch_tokens:>12,}" if auto else ""
            lines.append(f"{name:<27} {hardware:<10}{figures}{tokens}")
            name = ""
    return [*lines, *_verdicts(plan, runs, count, workers)]


def _verdicts(plan: Plan, runs: list[RunConfig], count: int, workers: int) -> list[str]:
    """What holds the stage's biggest run: the GPUs here, or else one of 80 GB, and this CPU."""
    memory, sizes = fit.device_gb(), {run.name: fit.run_size(plan, run) for run in runs}
    biggest = max(sizes, key=lambda name: fit.size_parts(plan, sizes[name], "gpu", 1).total)
    budget = scoring_budget(plan.experiment.runtime, "cuda", packed=True)
    lines = [f"{biggest} takes {scoring_gb(sizes[biggest], budget.tokens):.1f} GB of a GPU to be "
             "scored"]
    if memory is None:
        each = sorted((fit.size_parts(plan, size, "cpu", 1).total for size in sizes.values()),
                      reverse=True)
        needed, here = sum(each[:workers]), fit.machine_gb()
        lines.append(f"{at_a_time(workers)} on this CPU: {needed:.1f} GB at most, of {here:.0f}: "
                     + ("fits" if needed <= here else "does not fit: set WORKERS=1, or take GPUs"))
    place = "one GPU of 80 GB: " if memory is None else ""
    try:
        kind = fit.choose(plan, runs, count or 1, memory or fit.SOLD_AS_80_GB)
        lines.append(f"{place}HARDWARE=auto takes {kind}")
    except UserError as error:
        lines.append(f"{place}does not fit: {error}")
    return lines


def at_a_time(workers: int) -> str:
    """`2 runs at a time`."""
    return "one run after the other" if workers == 1 else f"{workers} runs at a time"


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
