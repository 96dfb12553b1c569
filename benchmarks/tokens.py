"""What a set of pairs is made of: tokens that must be computed, and those that padding would add.

Counted from the pairs themselves; what a system really computes is counted from its batches, see
`measure.py`.
"""

import numpy as np

from benchmarks.mixes import Row


def useful_tokens(rows: list[Row]) -> int:
    """Tokens of the distinct prompts plus those of the distinct responses to each."""
    prompts = {row["prompt_id"]: len(row["prompt_ids"]) for row in rows}
    responses = {(row["prompt_id"], tuple(row[side])) for row in rows
                 for side in ("chosen_ids", "rejected_ids")}
    return sum(prompts.values()) + sum(len(ids) for _, ids in responses)


def drawn_ratio(rows: list[Row]) -> float:
    """Prompt tokens / tokens of one response, of the pairs as they were drawn."""
    prompt = sum(len(row["prompt_ids"]) for row in rows)
    answers = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    return 2 * prompt / answers


def padding_share(rows: list[Row], batch_pairs: int, seed: int) -> float:
    """Share of padding in random batches of `batch_pairs`, two rows a pair, each padded to the
    longest of its batch."""
    sides = np.array([[len(row["prompt_ids"]) + len(row[side])
                       for side in ("chosen_ids", "rejected_ids")] for row in rows])
    sides = sides[np.random.default_rng(seed).permutation(len(sides))]
    cuts = range(0, len(sides), batch_pairs)
    computed = sum(sides[i : i + batch_pairs].size * sides[i : i + batch_pairs].max() for i in cuts)
    return 1 - sides.sum() / computed


def describe(rows: list[Row], batch_pairs: int, seed: int) -> dict[str, float | int]:
    """Facts about the pairs that a table's foot states and that its rows carry."""
    total = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])
             for row in rows]
    return {"pairs": len(rows), "prompt_ratio": round(drawn_ratio(rows), 3),
            "median_pair_tokens": int(np.median(total)),
            "padding_share": round(float(padding_share(rows, batch_pairs, seed)), 3)}
