"""Questions answered by the base, by the tuned model and by averages of the two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures.cells import interval_fields
from src.measures.tax.front import spread


@dataclass(frozen=True)
class Answered:
    """One metric of one task, by one average under each of S seeds."""

    family: str
    a: float
    task: str
    metric: str
    chance: float
    """What guessing gives."""
    each: np.ndarray
    """(S, n) of the questions."""
    base: np.ndarray
    """(n,) of the same, by the base."""


def tasks_table(answered: Sequence[Answered], config: EvalConfig) -> pd.DataFrame:
    """One row an average, task and metric: the score, and what was lost of the base's."""
    rows = []
    for one in answered:
        ones, questions = np.ones(one.each.shape[1]), np.arange(one.each.shape[1])
        rows.append({
            "family": one.family, "a": one.a, "task": one.task, "metric": one.metric,
            "n": len(questions), "chance": one.chance,
            **interval_fields("score", spread(one.each, ones, questions, config)),
            **interval_fields("lost", spread(one.base - one.each, ones, questions, config))})
    return pd.DataFrame(rows)
