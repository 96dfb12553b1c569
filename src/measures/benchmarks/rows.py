"""A table of rewards -> the rows of a benchmark's subsets, as its arithmetic takes them. No torch.

    row  id  subset  response  value  reward  [prompt_id  length]

One line a response. `row` is the prompt's, `response` counts its responses from 0 in the order of
the benchmark, `value` says which are better (right ones 1, wrong ones 0), `reward` is the model's,
empty where it has none. prompt_id: rows that share one are resampled together; else each row alone.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.common.errors import UserError

COLUMNS = ("row", "id", "subset", "response", "value", "reward")


@dataclass(frozen=True)
class ScoredRow:
    """One prompt of a benchmark with the rewards of its responses, none of them missing."""

    id: str
    prompt: str
    values: np.ndarray
    rewards: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Rewards of the best responses, in the row's order."""
        return self.rewards[self.values == self.values.max()]

    @property
    def wrong(self) -> np.ndarray:
        return self.rewards[self.values != self.values.max()]

    @property
    def margins(self) -> np.ndarray:
        """Better minus worse reward, of every two responses of which one is better."""
        better, worse = np.nonzero(self.values[:, None] > self.values[None, :])
        return self.rewards[better] - self.rewards[worse]


@dataclass(frozen=True)
class Subset:
    """The rows of one subset."""

    name: str
    rows: tuple[ScoredRow, ...]
    missing: int
    """Rows of which a response has no reward: they are in no score, and counted."""
    tied: tuple[ScoredRow, ...] = ()
    """Rows without a better response. Only PandaLM scores them: a tie is one of its classes."""
    missing_tied: int = 0

    @property
    def prompts(self) -> list[str]:
        return [row.prompt for row in self.rows]

    @property
    def margins(self) -> list[np.ndarray]:
        return [row.margins for row in self.rows]


def read_subsets(table: pd.DataFrame) -> list[Subset]:
    """The subsets in the order of their first rows.

    Raises:
        UserError: a column or a response is missing or given twice; a row in two subsets; an
            infinite reward.
    """
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise UserError(f"column {', '.join(absent)} is missing: expected "
                        f"{', '.join(COLUMNS)}, one line a response")
    if np.isinf(table.reward.to_numpy(float)).any():
        raise UserError("infinite rewards: leave the cell empty where there is no reward")
    table = table.sort_values(["row", "response"], kind="stable")
    found: dict[str, list[tuple[bool, ScoredRow | None]]] = {}
    for number, own in table.groupby("row", sort=True):
        if own.response.tolist() != list(range(len(own))) or own.subset.nunique() != 1:
            raise UserError(f"row {number}: responses {own.response.tolist()} of subset "
                            f"{', '.join(map(str, own.subset.unique()))}: expected responses "
                            "0, 1, ... once each, and one subset")
        values, rewards = own["value"].to_numpy(float), own["reward"].to_numpy(float)
        prompt = own["prompt_id"].iloc[0] if "prompt_id" in own else number
        row = ScoredRow(str(own["id"].iloc[0]), str(prompt), values, rewards)
        found.setdefault(str(own["subset"].iloc[0]), []).append(
            (values.max() == values.min(), None if np.isnan(rewards).any() else row))
    return [Subset(name, *_known(rows, False), *_known(rows, True)) for name, rows in found.items()]


def _known(rows: list[tuple[bool, ScoredRow | None]],
           tied: bool) -> tuple[tuple[ScoredRow, ...], int]:
    """The rows that are, or are not, tied and have all rewards; how many of these lack one."""
    own = [row for is_tied, row in rows if is_tied == tied]
    return tuple(row for row in own if row is not None), own.count(None)
