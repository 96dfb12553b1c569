"""From what was measured to the rows of a table, and out.

And what the pairs are made of: tokens that must be computed, and those that padding would add.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from speed.measure import Measured, ratios
from speed.mixes import Row as Pair
from speed.shapes import Shape
from speed.table import TableRow, render, write_rows

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
              "A10": 125e12, "V100": 125e12, "T4": 65e12}
"""Dense bf16 (or fp16) matrix products a second, by a part of the device's name."""


def table_rows(measured: list[Measured], shape: Shape, mix: str, pairs: list[Pair], passes: int,
               facts: dict[str, object], ours: str = "") -> list[TableRow]:
    """A row for each system; the first one is the baseline of the ratios.

    Args:
        pairs: of all rounds.
        passes: over the weights: forward 1, backward 2 more.
        ours: the system that is also held against each of the others; empty for none.
    """
    best = next((each for each in measured if each.system.name == ours), None)
    useful, rows = useful_tokens(pairs), []
    for own in measured:
        ratio = ratios(own, measured[0])
        rows.append(TableRow(
            mix, own.system.name, len(pairs) / own.total_seconds, own.tokens, useful, own.peak_mib,
            ratio.median, ratio.low, ratio.high, cpu_ratio(own, measured[0]),
            mfu(shape, useful, own.total_seconds, passes), facts, **beside(best, own)))
    return rows


def beside(best: Measured | None, own: Measured) -> dict[str, float | None]:
    """A row's fields on how far `best` is ahead of it; none where there is no such system."""
    if best is None:
        return {}
    ahead = ratios(best, own)
    return {"ours": ahead.median, "ours_low": ahead.low, "ours_high": ahead.high,
            "ours_cpu": cpu_ratio(best, own)}


def cpu_ratio(own: Measured, baseline: Measured) -> float | None:
    """How many times less processor time than `baseline`; None where the work is an accelerator's.
    """
    if torch.cuda.is_available():
        return None
    return baseline.total_cpu_seconds / own.total_cpu_seconds


def show(tables: Iterable[list[TableRow]], json: Path | None) -> None:
    """Print each table as soon as it is there, and write the rows of all so far."""
    rows: list[TableRow] = []
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


def useful_tokens(rows: list[Pair]) -> int:
    """Tokens of the distinct prompts plus those of the distinct responses to each."""
    prompts = {row["prompt_id"]: len(row["prompt_ids"]) for row in rows}
    responses = {(row["prompt_id"], tuple(row[side])) for row in rows
                 for side in ("chosen_ids", "rejected_ids")}
    return sum(prompts.values()) + sum(len(ids) for _, ids in responses)


def drawn_ratio(rows: list[Pair]) -> float:
    """Prompt tokens / tokens of one response, of the pairs as they were drawn."""
    prompt = sum(len(row["prompt_ids"]) for row in rows)
    answers = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    return 2 * prompt / answers


def padding_share(rows: list[Pair], batch_pairs: int, seed: int) -> float:
    """Share of padding in random batches of `batch_pairs`, two rows a pair, each padded to the
    longest of its batch."""
    sides = np.array([[len(row["prompt_ids"]) + len(row[side])
                       for side in ("chosen_ids", "rejected_ids")] for row in rows])
    sides = sides[np.random.default_rng(seed).permutation(len(sides))]
    cuts = range(0, len(sides), batch_pairs)
    computed = sum(sides[i : i + batch_pairs].size * sides[i : i + batch_pairs].max() for i in cuts)
    return 1 - sides.sum() / computed


def describe(rows: list[Pair], batch_pairs: int, seed: int) -> dict[str, float | int]:
    """Facts about the pairs that a table's foot states and that its rows carry."""
    total = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
             for row in rows]
    return {"pairs": len(rows), "prompt_ratio": round(drawn_ratio(rows), 3),
            "median_pair_tokens": int(np.median(total)),
            "padding_share": round(float(padding_share(rows, batch_pairs, seed)), 3)}
