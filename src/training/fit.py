"""Whether the runs of a stage fit the devices that they are to be trained on, and what would do.

An 8B model needs 170 GB on each GPU under DDP, and fails there after minutes of loading, run after
run. By the formula of model/base/memory.py it is refused before anything is loaded.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from configs.launch_schema import LaunchConfig
from configs.run import RunConfig
from configs.schema import LoraConfig, RuntimeConfig, TrainConfig
from model.base.memory import Forward, Parts, Size, size_of, training_parts
from src.batches.packing import AUTO_TOKENS, fewest_tokens
from src.common import distributed
from src.common.errors import UserError
from src.common.precision import cpu_has_bf16
from src.runs.folders import find_finished
from src.runs.launch.graph import Place
from src.runs.plan import Plan

USABLE = 0.95
"""Of a device's memory: the rest is lost between the allocator's blocks."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)
SOLD_AS_80_GB = 85.0
FEWER_TOKENS = 1024
"""The step in which fewer tokens of a micro batch are tried."""
ADAPTERS = LoraConfig(rank=16, alpha=32)


def device_gb() -> float | None:
    """The memory of this process's GPU in 10^9 bytes; None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(distributed.device()).total_memory / 1e9


def machine_gb() -> float:
    """This machine's memory in 10^9 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def unfinished(plan: Plan, stage: str, runs_dir: Path) -> list[RunConfig]:
    """The runs of a stage that are still to be trained."""
    return [run for run in plan.stage(stage)
            if find_finished(runs_dir, stage, run.identity) is None]


def run_size(plan: Plan, run: RunConfig, train: TrainConfig | None = None) -> Size:
    """The size of what `run` trains, or would train with `train` in place of its own."""
    return size_of(plan.bases[run.model].hf_config, run.kept, train or run.train)


def size_parts(plan: Plan, size: Size, hardware: str, processes: int,
               runtime: RuntimeConfig | None = None) -> Parts:
    """What a model of that size takes on each device to be trained in this plan; with
    `micro_batch_tokens: auto`, at the least."""
    runtime = runtime or plan.experiment.runtime
    tokens = max(fewest_tokens(runtime), plan.data.max_length)
    return training_parts(size, hardware, processes, _precision(plan, hardware),
                          Forward(tokens, runtime.gradient_checkpointing,
                                  runtime.last_layer_shortcut))


def run_gb(plan: Plan, run: RunConfig, hardware: str, processes: int) -> float:
    """What training `run` takes on each device, in 10^9 bytes."""
    return size_parts(plan, run_size(plan, run), hardware, processes).total


def runtime_of(plan: Plan, run: RunConfig) -> RuntimeConfig:
    """The plan's runtime, with the number of tokens that `run` is trained with in this launch in
    place of `auto`. Every process asks, and the one whose GPU has least decides."""
    if plan.experiment.runtime.micro_batch_tokens != "auto":
        return plan.experiment.runtime
    gpus = [memory for memory in distributed.gather(device_gb()) if memory is not None]
    hardware, processes = ("cpu", 1) if not gpus else _launched()
    return filled(plan, run_size(plan, run), hardware, processes, min(gpus, default=0.0))


def auto_line(plan: Plan, runs: Iterable[RunConfig]) -> str:
    """What `micro_batch_tokens: auto` is for each rung of `runs`, for the log; every process asks.
    """
    tokens = {run.name: runtime_of(plan, run).micro_batch_tokens for run in one_a_rung(runs)}
    return "micro_batch_tokens auto: " + ", ".join(f"{name} {each:,}"
                                                   for name, each in tokens.items())


def filled(plan: Plan, size: Size, hardware: str, processes: int,
           memory_gb: float) -> RuntimeConfig:
    """The plan's runtime, with the most of AUTO_TOKENS in place of `auto` that GPUs of so much
    memory hold beside a model of that size; on a CPU, and where none fits, the least."""
    runtime = plan.experiment.runtime
    if runtime.micro_batch_tokens != "auto":
        return runtime
    *more, least = (replace(runtime, micro_batch_tokens=tokens) for tokens in AUTO_TOKENS)
    held = (each for each in more if hardware != "cpu" and size_parts(
        plan, size, hardware, processes, each).total <= USABLE * memory_gb)
    return next(held, least)


def choose(plan: Plan, runs: Iterable[RunConfig], processes: int, memory_gb: float) -> str:
    """The first of gpu or multi_gpu, zero2 and zero3 that holds all of `runs` on so many GPUs.

    Raises:
        UserError: none does: with what would.
    """
    runs = one_a_rung(runs)
    sizes = [run_size(plan, run) for run in runs]
    for hardware in _kinds(processes):
        if _most(plan, sizes, hardware, processes) <= USABLE * memory_gb:
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
    runs, memory = one_a_rung(runs), device_gb()
    if not runs:
        return
    if memory is None:
        states = [size_parts(plan, run_size(plan, run), "cpu", 1).state for run in runs]
        if max(states) > machine_gb():
            biggest = runs[states.index(max(states))]
            raise UserError(f"{biggest.display_name} needs about {max(states):.0f} GB to be "
                            f"trained on the CPU, and this machine has {machine_gb():.0f}: "
                            f"{_remedies(plan, runs, SOLD_AS_80_GB, 1, 'gpu')}")
        return
    hardware, processes = _launched()
    needed = _most(plan, [run_size(plan, run) for run in runs], hardware, processes)
    if needed > USABLE * memory:
        raise UserError(_refusal(plan, runs, hardware, processes, memory))


def one_a_rung(runs: Iterable[RunConfig]) -> list[RunConfig]:
    """A run of each size: those of one rung take the same memory."""
    return list({(run.model, run.kept): run for run in runs}.values())


def _launched() -> tuple[str, int]:
    """The kind of hardware that this launch is of, on GPUs, and its processes."""
    launch = distributed.launch_facts()
    plain = "gpu" if launch["processes"] == 1 else "multi_gpu"
    return Path(launch["deepspeed"]).stem or plain, launch["processes"]


def _kinds(processes: int) -> tuple[str, ...]:
    """Kinds of hardware for so many GPUs, from the fastest to the one that takes least memory."""
    return ("gpu",) if processes == 1 else ("multi_gpu", "zero2", "zero3")


def _precision(plan: Plan, hardware: str) -> str:
    """What a run of the plan computes in there, whatever machine asks."""
    asked = plan.experiment.train.precision
    if asked != "auto":
        return asked
    return "fp32" if hardware == "cpu" and not cpu_has_bf16() else "bf16"


def _most(plan: Plan, sizes: list[Size], hardware: str, processes: int,
          runtime: RuntimeConfig | None = None) -> float:
    """What the biggest takes on each device; 0 where there is none."""
    return max((size_parts(plan, size, hardware, processes, runtime).total for size in sizes),
               default=0.0)


def _refusal(plan: Plan, runs: list[RunConfig], hardware: str, processes: int,
             memory_gb: float) -> str:
    needed = {run.display_name: run_gb(plan, run, hardware, processes) for run in runs}
    biggest = max(needed, key=needed.get)
    return (f"{biggest} needs about {needed[biggest]:.0f} GB on each of {processes} GPU(s) "
            f"under HARDWARE={hardware}, and there are {memory_gb:.0f}: "
            + _remedies(plan, runs, memory_gb, processes, hardware))


def _remedies(plan: Plan, runs: list[RunConfig], memory_gb: float, processes: int,
              hardware: str) -> str:
    """All that would hold each of `runs`: this number of GPUs or more of them, or one change of the
    experiment on `hardware`."""
    sizes, runtime = [run_size(plan, run) for run in runs], plan.experiment.runtime
    found = [_other_hardware(plan, sizes, memory_gb, processes)]

    def fits(text: str, sizes: list[Size], runtime: RuntimeConfig) -> bool:
        needed = _most(plan, sizes, hardware, processes, runtime)
        if needed <= USABLE * memory_gb:
            found.append(f"{text} would (about {needed:.0f} GB)")
        return needed <= USABLE * memory_gb

    if not runtime.gradient_checkpointing:
        fits("runtime.gradient_checkpointing: true", sizes,
             replace(runtime, gradient_checkpointing=True))
    for tokens in range(fewest_tokens(runtime) - FEWER_TOKENS, plan.data.max_length - 1,
                        -FEWER_TOKENS):
        if fits(f"runtime.micro_batch_tokens: {tokens}", sizes,
                replace(runtime, micro_batch_tokens=tokens)):
            break
    if runs[0].train.lora is None:
        train = replace(runs[0].train, freeze_embeddings=False, lora=ADAPTERS)
        fits(f"adapters (train.lora: {{rank: {ADAPTERS.rank}, alpha: {ADAPTERS.alpha:.0f}}})",
             [run_size(plan, run, train) for run in runs], runtime)
    return "; ".join(filter(None, found)) or (
        "set runtime.gradient_checkpointing and lower runtime.micro_batch_tokens in the "
        "experiment, train adapters (train.lora), or leave the biggest rungs out")


def _other_hardware(plan: Plan, sizes: list[Size], memory_gb: float, processes: int) -> str:
    """The first kind of hardware, and the fewest GPUs, that hold all."""
    for count in sorted({processes, *(n for n in COUNTS if n > processes)}):
        for hardware in _kinds(count):
            needed = _most(plan, sizes, hardware, count)
            if needed <= USABLE * memory_gb:
                return (f"HARDWARE={hardware} on {count} GPU(s) of {memory_gb:.0f} GB would do "
                        f"(about {needed:.0f} GB each)")
    return ""
