"""Memory: the most that a piece of work takes, and what models leave behind.

The most is what torch allocated on a GPU, or this process. On a CPU only Linux can begin anew
within a process. Elsewhere nothing is said: the process's own peak may be that of other work.

A model whose layers hold it, as the hooks of a trunk do, is garbage that only a collection finds.
Python begins those by the number of new objects, and a model is few of them, however large.
"""

import ctypes
import functools
import gc
import os
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@functools.cache
def set_libraries_aside() -> None:
    """Let garbage collections look no more at what is there before the first model: every run makes
    two whole ones, and the libraries' million objects cost each of them a quarter of a second."""
    gc.collect()
    gc.freeze()


def let_go_of_models() -> None:
    """Free what only garbage holds. For the moment before a model is loaded: two do not meet."""
    set_libraries_aside()
    gc.collect()


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
