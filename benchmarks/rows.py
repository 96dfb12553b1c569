"""From what was measured to the rows of a table, and out."""

from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.measure import Measured, ratios
from benchmarks.mixes import Row as Pair
from benchmarks.shapes import Shape
from benchmarks.table import Row, render, write_rows
from benchmarks.tokens import useful_tokens

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
              "A10": 125e12, "V100": 125e12, "T4": 65e12}
"""Dense bf16 (or fp16) matrix products a second, by a part of the device's name."""


def table_rows(measured: list[Measured], shape: Shape, mix: str, pairs: list[Pair], passes: int,
               facts: dict[str, object]) -> list[Row]:
    """A row for each system; the first one is the baseline of the ratios.

    Args:
        pairs: of all rounds.
        passes: over the weights: forward 1, backward 2 more.
    """
    useful, rows = useful_tokens(pairs), []
    for own in measured:
        ratio = ratios(own, measured[0])
        rows.append(Row(
            mix, own.system.name, len(pairs) / own.total_seconds, own.tokens, useful, own.peak_mib,
            ratio.median, ratio.low, ratio.high, cpu_ratio(own, measured[0]),
            mfu(shape, useful, own.total_seconds, passes), facts))
    return rows


def cpu_ratio(own: Measured, baseline: Measured) -> float | None:
    """How many times less processor time than `baseline`; None where the work is an accelerator's.
    """
    if torch.cuda.is_available():
        return None
    return baseline.total_cpu_seconds / own.total_cpu_seconds


def show(tables: Iterable[list[Row]], json: Path | None) -> None:
    """Print each table as soon as it is there, and write the rows of all so far."""
    rows: list[Row] = []
    for table in tables:
        print(render([row.as_dict() for row in table]), flush=True)
        rows += table
        if json:
            write_rows(rows, json)


def mfu(shape: Shape, useful: int, seconds: float, passes: int) -> float | None:
    """Model FLOP utilisation: what the distinct tokens need at least, over what the device could do
    in that time. 2 FLOPs a weight and token in each of `passes` (forward 1, backward 2 more);
    attention's own are left out. None on a CPU and on a device whose peak is not known.
    """
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
    return None if peak is None else 2 * passes * shape.parameters * useful / seconds / peak
