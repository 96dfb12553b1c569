"""Whether the runs of a stage fit the devices that they are to be trained on, and what would do.

An 8B model needs 170 GB on each GPU under DDP, and fails there after minutes of loading, run after
run. By the formula of model/base/memory.py it is refused before anything is loaded.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from configs.launch_schema import LaunchConfig
from configs.run import RunConfig
from model.base.memory import Size, scoring_gb, size_of, state_gb, training_gb
from src.batches.packing import scoring_budget
from src.common import distributed
from src.common.errors import UserError
from src.runs.folders import find_finished
from src.runs.launch.graph import Place
from src.runs.plan import Plan

USABLE = 0.95
"""Of a device's memory: the rest is lost between the allocator's blocks."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def device_gb() -> float | None:
    """The memory of this process's GPU in 10^9 bytes; None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(distributed.device()).total_memory / 1e9


def unfinished(plan: Plan, stage: str, runs_dir: Path) -> list[RunConfig]:
    """The runs of a stage that are still to be trained."""
    return [run for run in plan.stage(stage)
            if find_finished(runs_dir, stage, run.identity) is None]


def run_gb(plan: Plan, run: RunConfig, hardware: str, processes: int) -> float:
    """What training `run` takes on each GPU, in 10^9 bytes."""
    runtime = plan.experiment.runtime
    tokens = max(runtime.micro_batch_tokens, plan.data.max_length)
    return training_gb(_size(plan, run), hardware, processes, tokens,
                       runtime.gradient_checkpointing)


def choose(plan: Plan, runs: Iterable[RunConfig], processes: int, memory_gb: float) -> str:
    """The first of gpu or multi_gpu, zero2 and zero3 that holds all of `runs` on so many GPUs.

    Raises:
        UserError: none does: with what would.
    """
    runs = _one_a_rung(runs)
    if not runs:
        return _plain(processes)
    for hardware in _kinds(processes):
        if max(run_gb(plan, run, hardware, processes) for run in runs) <= USABLE * memory_gb:
            return hardware
    raise UserError(_refusal(plan, runs, _kinds(processes)[-1], processes, memory_gb))


def place_of(plan: Plan, run: RunConfig, launch: LaunchConfig) -> Place:
    """The fewest nodes that hold `run`, and the kind of hardware that does; one node, and whatever
    it chooses there, where the launch config has no `gpu_gb`.

    HARDWARE is the only kind that is looked at, if it is set. Without GPUs each node has NPROC
    processes.

    Raises:
        UserError: not even `most_nodes` hold it: with what would.
    """
    if launch.gpu_gb is None:
        return Place()
    asked = os.environ.get("HARDWARE", "auto")
    each = launch.gpus or int(os.environ.get("NPROC") or 1)
    for nodes in range(1, launch.most_nodes + 1):
        kinds = _kinds(nodes * each) if asked == "auto" else (asked,)
        for hardware in kinds:
            if run_gb(plan, run, hardware, nodes * each) <= USABLE * launch.gpu_gb:
                return Place(nodes, hardware)
    raise UserError(f"launch/{launch.name}: " + _refusal(plan, [run], kinds[-1], nodes * each,
                                                         launch.gpu_gb))


def require_fit(plan: Plan, runs: Iterable[RunConfig]) -> None:
    """Raise unless each of `runs` can be trained by this launch.

    On a CPU only what its memory clearly cannot hold is refused: the weights, the gradients and the
    optimiser alone.

    Raises:
        UserError: the biggest run, what it needs, what there is, and what would hold it.
    """
    runs, memory, launch = _one_a_rung(runs), device_gb(), distributed.launch_facts()
    if not runs:
        return
    processes = launch["processes"]
    if memory is None:
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        biggest = max(runs, key=lambda run: _size(plan, run).parameters)
        needed = state_gb(_size(plan, biggest), "cpu", processes)
        if needed > here:
            raise UserError(f"{biggest.display_name} needs about {needed:.0f} GB to be trained on "
                            f"the CPU, and this machine has {here:.0f}: {_remedy(plan, runs, 80)}")
        return
    hardware = Path(launch["deepspeed"]).stem or _plain(processes)
    if max(run_gb(plan, run, hardware, processes) for run in runs) > USABLE * memory:
        raise UserError(_refusal(plan, runs, hardware, processes, memory))


def memory_lines(plan: Plan, runs: Iterable[RunConfig]) -> list[str]:
    """What the biggest of `runs` takes under each kind of hardware, for people."""
    runs = _one_a_rung(runs)
    if not runs:
        return []
    memory, count = device_gb(), torch.cuda.device_count()
    several = count if count > 1 else 4
    biggest = max(runs, key=lambda run: run_gb(plan, run, "gpu", 1))
    kinds = [f"HARDWARE=gpu {run_gb(plan, biggest, 'gpu', 1):.0f}"]
    kinds += [f"{hardware} {run_gb(plan, biggest, hardware, several):.0f}"
              for hardware in _kinds(several)]
    score = scoring_gb(_size(plan, biggest),
                       scoring_budget(plan.experiment.runtime, "cuda", packed=True).tokens)
    lines = [f"{biggest.display_name}, GB on each GPU, by formula: {', '.join(kinds)} (of "
             f"{several} GPUs); to score {score:.0f}"]
    if memory is not None:
        try:
            lines.append(f"HARDWARE=auto takes {choose(plan, runs, count, memory)}")
        except UserError as error:
            lines.append(f"does not fit: {error}")
    return lines


def _one_a_rung(runs: Iterable[RunConfig]) -> list[RunConfig]:
    return list({(run.model, run.kept): run for run in runs}.values())


def _plain(processes: int) -> str:
    return "gpu" if processes == 1 else "multi_gpu"


def _kinds(processes: int) -> tuple[str, ...]:
    """Kinds of hardware for so many GPUs, from the fastest to the one that takes least memory."""
    return ("gpu",) if processes == 1 else ("multi_gpu", "zero2", "zero3")


def _size(plan: Plan, run: RunConfig) -> Size:
    return size_of(plan.bases[run.model].hf_config, run.kept, run.train)


def _refusal(plan: Plan, runs: list[RunConfig], hardware: str, processes: int,
             memory_gb: float) -> str:
    biggest = max(runs, key=lambda run: run_gb(plan, run, hardware, processes))
    needed = run_gb(plan, biggest, hardware, processes)
    return (f"{biggest.display_name} needs about {needed:.0f} GB on each of {processes} GPU(s) "
            f"under HARDWARE={hardware}, and there are {memory_gb:.0f}: "
            + _remedy(plan, runs, memory_gb, processes))


def _remedy(plan: Plan, runs: list[RunConfig], memory_gb: float, processes: int = 1) -> str:
    """What would hold all of `runs`: this number of GPUs, or more of them."""
    for count in sorted({processes, *(n for n in COUNTS if n > processes)}):
        for hardware in _kinds(count):
            needed = max(run_gb(plan, run, hardware, count) for run in runs)
            if needed <= USABLE * memory_gb:
                return (f"HARDWARE={hardware} on {count} GPU(s) of {memory_gb:.0f} GB would do "
                        f"(about {needed:.0f} GB each)")
    return ("set runtime.gradient_checkpointing or lower runtime.micro_batch_tokens in the "
            "experiment, train adapters (train.lora), or leave the biggest rungs out")
