"""Two models on the same rows of a benchmark: subset by subset, which one is right more often?

With 23 subsets one of them differs "significantly" by chance nearly always, so p-values are
corrected for all that are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from src.common.errors import UserError
from src.measures.benchmarks.judges import only_margin
from src.measures.benchmarks.parts import LEVEL, SAMPLES
from src.measures.benchmarks.rows import COLUMNS, read_subsets
from src.measures.bootstrap import interval, resampled_means
from src.measures.multiple_tests import holm

SCORERS = ("reward_bench", "judge_bench", "llmbar", "subsets")
"""Those whose rows are pairs."""


@dataclass(frozen=True)
class Difference:
    """What one model has over another in a subset."""

    subset: str
    n: int
    """Rows of which both have all rewards."""
    score: float
    """Share of rows that the model gets right; a tie is wrong."""
    other: float
    difference: float
    low: float
    """95%, prompts resampled, paired; NaN where there is nothing to resample."""
    high: float
    p: float
    """Exact two-sided McNemar test: of the rows that one of the two gets right, a fair coin."""
    p_holm: float
    """Corrected for all subsets."""


def differences(scorer: str, table: pd.DataFrame, other: pd.DataFrame) -> list[Difference]:
    """The model of `table` against that of `other`, see `rows.py`, in each subset.

    Raises:
        UserError: not a benchmark of pairs; other rows; no row that both have scored.
    """
    if scorer not in SCORERS:
        raise UserError(f"scorer {scorer}: two models are compared on pairs: expected a benchmark "
                        f"of scorer {', '.join(SCORERS)}")
    _check_same(table, other)
    both = table["reward"].notna().to_numpy() & other["reward"].notna().to_numpy()
    sides = [read_subsets(side.assign(reward=side["reward"].where(both)))
             for side in (table, other)]
    found = [_difference(mine.name, mine.prompts, *(
        np.array([only_margin(row) > 0 for row in subset.rows], float) for subset in (mine, its)))
        for mine, its in zip(*sides, strict=True) if mine.rows]
    if not found:
        raise UserError("no row has the rewards of both models: there is nothing to compare")
    corrected = holm([p for *_, p in found])
    return [Difference(*values, p_holm) for values, p_holm in zip(found, corrected, strict=True)]


def _difference(name: str, prompts: Sequence[str], mine: np.ndarray, its: np.ndarray) -> tuple:
    """A subset's fields of Difference but the last; `mine` and `its` (n,) are 1 where right."""
    gained, lost = int(((mine == 1) & (its == 0)).sum()), int(((mine == 0) & (its == 1)).sum())
    replicates = resampled_means((mine - its)[None], np.asarray(prompts), samples=SAMPLES)[:, 0]
    found = interval(float(mine.mean() - its.mean()), replicates, LEVEL)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return (name, len(mine), float(mine.mean()), float(its.mean()), found.estimate, found.low,
            found.high, p)


def _check_same(table: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise where the two tables are not about the same responses in the same order."""
    for side in (table, other):
        if absent := [name for name in COLUMNS if name not in side]:
            raise UserError(f"column {', '.join(absent)} is missing: expected "
                            f"{', '.join(COLUMNS)}, one line a response")
    keys = ["row", "subset", "response", "value"]
    if len(table) != len(other) or not (table[keys].to_numpy() == other[keys].to_numpy()).all():
        raise UserError(f"the two models have scored other rows ({len(table):,} and "
                        f"{len(other):,} responses): score both on the same file")
