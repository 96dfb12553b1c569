"""Tokenised pairs in memory, for tests of what only needs token ids and labels."""

import itertools
from collections.abc import Sequence

import numpy as np

from data.tokens.tokenised import IDS
from src.common.hashing import content_hash
from tests.families import PAD


class MemorySplit:
    """What data.tokens.tokenised.TokenisedSplit offers, over rows in memory."""

    def __init__(self, rows: list[dict], data_hash: str = "data"):
        self._rows = rows
        self.data_hash = data_hash
        self.pair_ids = np.array([row["pair_id"] for row in rows])
        self.order = content_hash(self.pair_ids.tolist())
        self.prompt_ids = np.array([row["prompt_id"] for row in rows])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict:
        return self._rows[i]

    def rows(self, indices: Sequence[int]) -> list[dict]:
        return [self._rows[i] for i in indices]

    def ids(self, rows: Sequence[int], columns: Sequence[int]) -> list[np.ndarray]:
        return [np.array(self._rows[row][IDS[column]], np.int32)
                for row, column in zip(rows, columns, strict=True)]

    def lengths(self) -> np.ndarray:
        return np.array([[len(row[name]) for name in IDS] for row in self._rows])


def random_pairs(count: int, seed: int = 0) -> MemorySplit:
    """Pairs of random tokens and lengths; the chosen answer has more of the low tokens, so that
    there is something to learn."""
    draw = np.random.default_rng(seed)

    def ids(low: int, high: int, most: int) -> list[int]:
        return draw.integers(low, high, draw.integers(1, most)).tolist()

    return MemorySplit([
        {"pair_id": content_hash([seed, i]), "prompt_id": content_hash(f"{seed}-{i // 2}"),
         "prompt_ids": ids(0, PAD, 6), "chosen_ids": ids(0, PAD // 2, 7),
         "rejected_ids": ids(PAD // 2, PAD, 7)} for i in range(count)])


def tree_pairs(prompts: int, responses: int, seed: int = 0) -> MemorySplit:
    """Prompts of that many responses each, and the pairs among them: six of four responses."""
    draw = np.random.default_rng(seed)
    rows = []
    for prompt in range(prompts):
        asked, *said = (draw.integers(0, PAD, draw.integers(2, 9)).tolist()
                        for _ in range(responses + 1))
        rows += [{"pair_id": content_hash([seed, prompt, first, second]),
                  "prompt_id": content_hash(f"{seed}-{prompt}"), "prompt_ids": asked,
                  "chosen_ids": said[first], "rejected_ids": said[second]}
                 for first, second in itertools.combinations(range(responses), 2)]
    return MemorySplit(rows)
