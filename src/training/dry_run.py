"""What a stage would do: its runs, which of them are done, their tokens, an estimate of time."""

import time
from pathlib import Path

import torch

from configs.run import RunConfig
from model.base.adapters import adapter_parameters
from src.batches.steps import optimiser_steps, tokens_trained
from src.batches.trees import trees_of
from src.common.files import read_json
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.training.fit import memory_lines

EFFICIENCY = 0.3
"""Share of a big matrix product's speed that training reaches; a run that is done corrects it."""


def describe(plan: Plan, stage: str, runs_dir: Path) -> str:
    """The stage as a table, ready to print."""
    planned = plan.stage(stage)
    done = {run.identity: find_finished(runs_dir, stage, run.identity) for run in planned}
    speed, basis = _flops_per_second([folder for folder in done.values() if folder])
    lines = [f"{plan.experiment.name}, {stage}: {len(planned)} runs, "
             f"{sum(map(bool, done.values()))} done",
             f"{'run':<52} {'state':<6} {'steps':>7} {'tokens':>14} {'time':>9}"]
    seconds = 0.0
    for run in planned:
        tokens, flops = work(run, plan)
        steps = optimiser_steps(run, len(plan.split(run, run.split)))
        seconds += 0 if done[run.identity] else flops / speed
        lines.append(f"{run.display_name:<52} {'done' if done[run.identity] else 'to do':<6} "
                     f"{steps:>7,} {tokens:>14,} {duration(flops / speed):>9}")
    lines += memory_lines(plan, (run for run in planned if not done[run.identity]))
    lines.append(f"to do: about {duration(seconds)} on this machine ({basis}); nothing was trained")
    return "\n".join(lines)


def work(run: RunConfig, plan: Plan) -> tuple[int, float]:
    """(tokens, floating-point operations) of training `run`: 6 per parameter and token, or 4 where
    only its adapter has a gradient. Of prompts that several pairs of a step share, each is counted
    once; of layers below those that train, nothing: they run once for all runs."""
    split, train = plan.split(run, run.split), run.train
    trees = trees_of(split, plan.experiment.runtime.share_prompt)
    tokens = tokens_trained(trees, train.batch_pairs, train.epochs, run.seed,
                            train.shuffle == "prompts")
    top = run.kept[-(train.trainable_layers or len(run.kept)):]
    base = plan.bases[run.model]
    if train.lora is None:
        return tokens, 6.0 * tokens * base.parameters(top)
    adapters = adapter_parameters(base.hf_config, top, train.lora)
    return tokens, tokens * (4.0 * base.parameters(top) + 6.0 * adapters)


def _flops_per_second(folders: list[Path]) -> tuple[float, str]:
    """Training speed, and what it was learned from: finished runs, or a matrix product."""
    manifests = [manifest for manifest in (read_json(f / "manifest.json") for f in folders)
                 if manifest and manifest["seconds"] > 0]
    if manifests:
        return (sum(m["flops"] for m in manifests) / sum(m["seconds"] for m in manifests),
                f"from {len(manifests)} finished runs")
    gpu = torch.cuda.is_available()
    size = 8192 if gpu else 1024
    matrix = torch.ones(size, size, dtype=torch.bfloat16 if gpu else torch.float32,
                        device="cuda" if gpu else "cpu")
    (matrix @ matrix)[0, 0].item()
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()
    speed = 2 * size**3 / (time.perf_counter() - start)
    devices = max(1, torch.cuda.device_count())
    return EFFICIENCY * speed * devices, f"guessed from a matrix product on {devices} device(s)"


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
