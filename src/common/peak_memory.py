"""The most memory that a piece of work takes: what torch allocated on a GPU, or this process.

On a CPU only Linux can begin anew within a process. Elsewhere nothing is said: the process's own
peak may be that of other work.
"""

import ctypes
import gc
import os
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Begin anew, so that a run's peak is not that of a run before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _can_begin_anew():
        # What a run has freed stays with the process, and would count as the next one's.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
        (_PROCESS / "clear_refs").write_text("5")  # VmHWM becomes VmRSS


def peak_memory_mib() -> int | None:
    """MiB at most since `reset_peak`; None where the system cannot tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    if not _can_begin_anew():
        return None
    lines = (_PROCESS / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) >> 10


def _can_begin_anew() -> bool:
    return os.access(_PROCESS / "clear_refs", os.W_OK)
