"""How fast this machine computes what runs consist of: from finished runs, or a matrix product."""

import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from src.common.errors import UserError
from src.common.files import read_json
from src.common.precision import products, used
from src.runs.plan import Plan

EFFICIENCY = {"cpu": 0.5, "cuda": 0.3}
"""Share of a matrix product's speed that training and scoring reach."""
ROWS = {"cpu": 1024, "cuda": 8192}
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEASURE_SECONDS = 0.3


class Speed(NamedTuple):
    """Floating-point operations a second of one run, beside the others that go on with it."""

    flops_per_second: float
    basis: str
    """What it was learned from, for people."""


def runs_at_a_time() -> int:
    """How many runs the scripts train at once on this machine: 1 on GPUs, else WORKERS, or one a
    core and at most 99.

    Raises:
        UserError: WORKERS is no number from 1 to 99, which the scripts refuse too.
    """
    if torch.cuda.is_available() or os.environ.get("HARDWARE", "auto") not in ("auto", "cpu"):
        return 1
    asked = os.environ.get("WORKERS") or str(min(os.cpu_count() or 1, 99))
    if not re.fullmatch("[1-9][0-9]?", asked):
        raise UserError(f"WORKERS={asked}: expected how many runs at a time, 1 to 99")
    return int(asked)


def speed_of(plan: Plan, finished: Iterable[tuple[float, Path]], workers: int) -> Speed:
    """The speed that finished runs had, or a guess.

    Args:
        finished: (operations, folder) of runs that are done.
        workers: runs at a time, each on a core of its own.
    """
    known = [(flops, manifest["seconds"]) for flops, folder in finished
             if flops and (manifest := read_json(folder / "manifest.json"))
             and manifest["seconds"] > 0]
    if known:
        flops, seconds = map(sum, zip(*known, strict=True))
        return Speed(flops / seconds, f"from {len(known)} finished runs")
    precision = products(used(plan.experiment.train.precision))
    width = max(base.hf_config.hidden_size for base in plan.bases.values())
    if torch.cuda.is_available():
        devices = torch.cuda.device_count()
        flops = EFFICIENCY["cuda"] * devices * _product("cuda", precision, width)
        return Speed(flops, f"guessed from a {precision} matrix product on {devices} device(s)")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of several runs has
    try:
        with ThreadPoolExecutor(workers) as pool:
            each = list(pool.map(lambda _: _product("cpu", precision, width), range(workers)))
    finally:
        torch.set_num_threads(threads)
    return Speed(EFFICIENCY["cpu"] * min(each), f"guessed from a {precision} matrix product")


def _product(device: str, precision: str, width: int) -> float:
    """Operations a second of a product as a model of this width has them, the fastest of several.

    On a CPU in time that this thread had a core: what else is at work may end before the runs do.
    """
    rows = torch.ones(ROWS[device], width, dtype=DTYPE[precision], device=device)
    weights = torch.ones(width, 3 * width, dtype=DTYPE[precision], device=device)
    clock = time.thread_time if device == "cpu" else time.perf_counter
    fastest, begun = float("inf"), time.monotonic()
    (rows @ weights)[0, 0].item()  # the first one prepares
    while fastest == float("inf") or time.monotonic() - begun < MEASURE_SECONDS:
        start = clock()
        (rows @ weights)[0, 0].item()
        fastest = min(fastest, max(clock() - start, 1e-6))
    return 2 * rows.shape[0] * weights.numel() / fastest
