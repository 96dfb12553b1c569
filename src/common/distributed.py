"""Rank helpers: who this process is, and how processes agree. All work without a process group."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist

from src.common.checkpoints import SAVE_SECONDS
from src.common.errors import UserError
from src.common.gpus import usable_gpus

T = TypeVar("T")


def device() -> torch.device:
    """This process's accelerator, or the CPU. UserError where GPUs are listed and not usable."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.cuda.device_count():
        usable_gpus()  # says why they are not
    return torch.device("cpu")


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


def require_one_gpu() -> None:
    """UserError where one process sees several GPUs: transformers' Trainer would spread each batch
    over them, without autocast, in steps of as many times the rows."""
    count = torch.cuda.device_count()
    if count > 1 and world_size() == 1 and device().type == "cuda":
        raise UserError(f"one process sees {count} GPUs, and would spread each batch over them: "
                        "set CUDA_VISIBLE_DEVICES=0, or train by the scripts with HARDWARE=gpu or "
                        "several processes")


def say(text: str) -> None:
    """Print on that process."""
    if is_main():
        print(text, flush=True)


@contextmanager
def group(timeout_hours: float = 6) -> Iterator[None]:
    """Inside, the launcher's processes are one group: gloo on CPUs, NCCL beside it on GPUs.

    Without this, a launch can run as independent copies on the same data and still exit 0; so an
    announced world that does not come up is an error here. After an error other than a UserError,
    which all processes meet alike, the group stays: `in_group` tells that others may be waiting.
    """
    if world_size() > 1 and not dist.is_initialized():
        _without_compiler()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group(backend, timeout=timedelta(hours=timeout_hours))
    try:
        yield
    except UserError:
        _leave()
        raise
    _leave()


def in_group() -> bool:
    """Whether this process is one of several that may be waiting for each other."""
    return dist.is_initialized()


def _leave() -> None:
    """Close the process group, after everyone has arrived."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


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


def on_main(action: Callable[[], T]) -> T:
    """Run `action` on the main process alone; its result, or its error, on every process.

    An error on one process only would leave the others waiting for it.
    """
    outcome: tuple[Any, Exception | None] = (None, None)
    if is_main():
        try:
            outcome = action(), None
        except Exception as error:  # noqa: BLE001 - raised again below, on every process
            outcome = None, error
    value, error = broadcast(outcome)
    if error is not None:
        raise error
    return value


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


def end_with_script(script: int, is_saving: Callable[[], bool] = lambda: False) -> None:
    """End this process when the script with that process number, or what is between, has gone;
    some time later where it `is_saving`, which ends it as well.

    A launcher of one process does not pass on the signal that stops it, what a script starts in the
    background does not hear Ctrl-C, and nothing hears of a script that is killed: training would go
    on, unseen, and keep its run's lock.
    """
    def watch() -> None:
        while _has_ancestor(script):
            time.sleep(0.5)
        deadline = time.monotonic() + SAVE_SECONDS
        while is_saving() and time.monotonic() < deadline:
            time.sleep(0.5)
        os._exit(0)  # a launcher that is still there answers any other code with a traceback

    threading.Thread(target=watch, daemon=True).start()


def _has_ancestor(process: int) -> bool:
    """Whether this process comes from that one; True as well where that cannot be told just now."""
    with suppress(psutil.NoSuchProcess):  # one of them ended while they were listed
        return process in (parent.pid for parent in psutil.Process().parents())
    return True


def uses_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def launch_facts() -> dict[str, Any]:
    """What a checkpoint's files depend on: only a launch of the same kind can resume from it."""
    return {"processes": world_size(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "deepspeed": os.path.basename(os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", ""))
            if uses_deepspeed() else ""}
