"""Models x evaluation sets: accuracies with intervals over prompts and seeds, as one tidy table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures import metrics
from src.measures.baselines import LENGTH_ONLY, length_margins
from src.measures.bootstrap import interval, nested_replicates, resampled_means
from src.measures.run_scores import EvalPairs, RunScores, align
from src.measures.tables import pgr_table

COLUMNS = ["experiment", "role", "model", "teacher", "method", "seeds", "data", "split", "n",
           "dropped", "accuracy", "low", "high"]


@dataclass(frozen=True)
class ScoredSet:
    """One evaluation set and what every run of the experiment makes of it."""

    pairs: EvalPairs
    runs: Sequence[RunScores]
    own: bool
    """The experiment's own test split: in distribution."""
    dropped: int = 0
    """Pairs left out because their prompt is in a training split of the experiment."""
    left_out: str = ""
    """What else was not scored and why, in words."""


def transfer_table(scored: ScoredSet, config: EvalConfig) -> pd.DataFrame:
    """transfer.csv: one row per model, over its seeds; last the rule that the shorter answer wins.

    An accuracy is the mean over seeds; its interval holds the noise of prompts and of seeds, as
    that of a gain does.
    """
    pairs = scored.pairs
    rule = RunScores("baseline", LENGTH_ONLY, None, "", "", None, pairs.pair_ids,
                     length_margins(pairs.length_chosen, pairs.length_rejected))
    runs = [*scored.runs, rule]
    groups: dict[tuple, list[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(run.key[:4], []).append(place)
    right = metrics.correctness(align(runs, pairs))  # (runs, n)
    means = np.stack([right[places].mean(axis=0) for places in groups.values()])
    over_prompts = resampled_means(means, pairs.prompt_ids, samples=config.bootstrap_samples)
    rows = []
    for column, ((role, name, teacher, method), places) in enumerate(groups.items()):
        replicates = nested_replicates(right[places][:, None], over_prompts[:, [column]],
                                       pairs.prompt_ids)
        span = interval(means[column].mean(), replicates.along([1.0]), config.level)
        seeds = " ".join(str(runs[place].seed) for place in places if runs[place].seed is not None)
        rows.append([pairs.experiment, role, name, teacher, method, seeds, pairs.data, pairs.split,
                     len(pairs.pair_ids), scored.dropped, span.estimate, span.low, span.high])
    return pd.DataFrame(rows, columns=COLUMNS)


def transfer_tables(sets: Sequence[ScoredSet],
                    config: EvalConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """transfer.csv and transfer_pgr.csv: the rows of every set, the experiment's own first.

    PGR follows the same rules as in pgr.csv: seeds nested, `undefined` where the gap is not there.
    """
    return (pd.concat([transfer_table(scored, config) for scored in sets], ignore_index=True),
            pd.concat([pgr_table(scored.runs, scored.pairs, config) for scored in sets],
                      ignore_index=True))
