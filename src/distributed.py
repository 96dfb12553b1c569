"""Rank helpers: who this process is, and how processes agree. All work without a process group."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


def world_size() -> int:
    """Processes in this launch: the group's, or what the launcher announced before there is one."""
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """True on the one process that writes files and talks."""
    return rank() == 0


def join(timeout_hours: float = 6) -> None:
    """Start the process group if the launcher announced more than one process.

    gloo on CPU, NCCL beside it on GPUs. Without this, a launch can run as independent copies on the
    same data and still exit 0; so an announced world that does not come up is an error here.
    """
    if world_size() > 1 and not dist.is_initialized():
        _without_compiler()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group(backend, timeout=timedelta(hours=timeout_hours))


def _without_compiler() -> None:
    """Keep DeepSpeed on CPUs to gloo: it would compile a shared-memory collective for a minute."""
    if uses_deepspeed() and not torch.cuda.is_available():
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def broadcast(value: Any) -> Any:
    """The main process's `value` on every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Every process's `value`, by rank, on every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def any_true(flag: torch.Tensor) -> bool:
    """Whether `flag` (a scalar bool tensor) holds on any process: they agree on the answer."""
    if not dist.is_initialized():
        return bool(flag)
    votes = flag.to(torch.int32)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes)


def leave() -> None:
    """Close the process group, after everyone has arrived."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def uses_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
