"""The most memory that a piece of work takes: what torch allocated on a GPU, or this process."""

import contextlib
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Begin anew, so that a run's peak is not that of a run before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # no Linux, or not allowed: the peak is the process's
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory_mib() -> int:
    """MiB at most since `reset_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) >> 10
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
