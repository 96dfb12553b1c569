"""What models compute in: fp32, or bf16 over fp32 weights where the device is faster at it.

Weights, head, norms, rotary positions and loss are fp32 either way; bf16 are the matrix products,
and with `bf16_residual` the residual stream too, see model/base/residual.py.
"""

import os
import time

import torch

from src.common import distributed
from src.common.errors import UserError

RESIDUAL = "bf16_residual"
PRECISIONS = ("fp32", "bf16", RESIDUAL)
SAID = "PRECISION"
"""Environment variable that says what `auto` is: on a cluster, the machine that plans runs has not
what the nodes have that train them."""


def used(asked: str) -> str:
    """One of PRECISIONS, for what a config asks: `auto` is what PRECISION says, or else bf16 on
    CUDA and on CPUs that multiply matrices in it, or else fp32."""
    if asked != "auto":
        return asked
    said = os.environ.get(SAID)
    if said:
        if said not in PRECISIONS:
            raise UserError(f"{SAID}={said}: expected one of {', '.join(PRECISIONS)}")
        return said
    return "bf16" if distributed.device().type == "cuda" or cpu_has_bf16() else "fp32"


def products(precision: str) -> str:
    """`fp32` or `bf16`: what matrix products compute in."""
    return "fp32" if precision == "fp32" else "bf16"


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 matrices: AVX512-BF16 or AMX."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def computing(precision: str, weights_change: bool = False) -> torch.autocast:
    """A context that computes in it, on this process's device.

    Args:
        weights_change: inside it; else the library rounds each of them once and keeps that.
    """
    return torch.autocast(distributed.device().type, torch.bfloat16, cache_enabled=not
                          weights_change, enabled=products(precision) == "bf16")


def weights_to_score(precision: str) -> torch.dtype:
    """What a model is read in to be scored: bf16 on CUDA, where a model that trains on several GPUs
    must fit one; on CPUs fp32, as it was trained."""
    on_gpu = distributed.device().type == "cuda"
    return torch.bfloat16 if products(precision) == "bf16" and on_gpu else torch.float32


def notice(precision: str) -> str:
    """A line for the log: what is computed in, and why; a warning where that is slow."""
    if precision == "fp32" or distributed.device().type == "cuda":
        return f"computes in {precision}"
    if cpu_has_bf16():
        return f"computes in {precision} over fp32 weights: this CPU multiplies matrices in it"
    return (f"warning: computes in {precision}, for which this CPU has no instructions: a matrix "
            f"product takes {_slowdown():.1f} times as long as in fp32; `precision: fp32` is "
            "faster here")


def _slowdown() -> float:
    """How many times as long a product of bf16 matrices takes."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        matrix @ matrix  # the first one prepares
        start = time.perf_counter()
        matrix @ matrix
        seconds[dtype] = time.perf_counter() - start
    return seconds[torch.bfloat16] / seconds[torch.float32]
