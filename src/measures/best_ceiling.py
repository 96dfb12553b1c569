"""Ceilings that do not rise with depth: which one is best, by how much, and PGR against it.

A whole model may be a worse ceiling than the same model cut in the middle. A student's PGR is then
also formed against the best ceiling of its base model, not only against that of its own layers.

**The choice looks at the evaluated pairs.** The best ceiling is the one with the highest mean
accuracy there. The highest of several noisy numbers is too high on average: the choice flatters the
ceiling, widens the gap and lowers that PGR. It is made once and held fixed in the bootstrap, so
the intervals of gap and PGR are those of the *named* ceiling, as if it had been named beforehand.
Choosing anew in each resample would not repair that: a resample's highest is above the sample's
highest, which is above the truth, so the flattery would enter twice; and where several ceilings are
about equal, which is when the choice matters, no bootstrap of a maximum is consistent (Andrews
2000, Inconsistency of the bootstrap when a parameter is on the boundary of the parameter space,
Econometrica 68(2)). What does hold whichever ceiling is chosen: intervals of all differences to the
deepest ceiling at once (Bonferroni's), which `ceilings_table` gives: of six equal ceilings at one
seed the picked one is told apart in 3% of trials, and in 11% by the interval of one difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures.bootstrap import interval, nested_replicates, resampled_means
from src.measures.cells import (
    ALL,
    Correctness,
    Recovered,
    correctness,
    interval_fields,
    recovered,
)
from src.measures.run_scores import EvalPairs, RunScores, base_of

BEST_COLUMNS = ("best_ceiling_name best_seeds best_ceiling best_gap best_gap_low best_gap_high "
                "best_pgr best_pgr_low best_pgr_high best_status").split()
"""Last in pgr.csv, and only where the ceilings of some student's base model do not rise."""
CEILING_COLUMNS = ("experiment base name layers keep place seeds data split n accuracy low high "
                   "over_deepest over_deepest_low over_deepest_high").split()
BEST, DEEPEST = "best", "deepest"
"""What is said of a ceiling in the column `place`."""


@dataclass(frozen=True)
class CeilingLadder:
    """The ceilings of one base model, on the seeds that all of them have."""

    base: str
    rungs: Sequence[RunScores]
    """One run of each, fewest layers first."""
    seeds: Sequence[int]
    right: np.ndarray
    """(S seeds, k rungs, n pairs)"""

    @property
    def means(self) -> np.ndarray:
        """Accuracies (k,) over seeds and pairs; rounded, so that equal ones are equal."""
        return self.right.mean(axis=(0, 2)).round(12)

    @property
    def best(self) -> int:
        """The place of the highest mean; of equal ones, the one with the fewest layers."""
        return int(np.argmax(self.means))

    @property
    def deepest(self) -> int:
        """The place of the rung with the most layers; of equally deep ones, the best."""
        layers = np.array([rung.layers for rung in self.rungs])
        return int(np.argmax(np.where(layers == layers.max(), self.means, -1.0)))

    @property
    def rises(self) -> bool:
        """Whether no ceiling is better than the deepest."""
        return bool(self.means[self.deepest] >= self.means.max())


def falling_ladders(runs: Sequence[RunScores], right: Correctness) -> list[CeilingLadder]:
    """The base models whose ceilings do not rise with depth; those with no seed that all their
    ceilings have cannot be judged and are left out."""
    by_base: dict[str, dict[str, list[RunScores]]] = {}
    for run in runs:
        if run.role == "ceiling":
            by_base.setdefault(base_of(run.name), {}).setdefault(run.name, []).append(run)
    ladders = []
    for base, rungs in by_base.items():
        seeds = sorted(set.intersection(*({run.seed for run in same} for same in rungs.values())))
        ordered = sorted((same[0] for same in rungs.values()), key=lambda run: run.layers)
        if seeds:
            values = np.stack([[right["ceiling", run.name, "", "", seed] for run in ordered]
                               for seed in seeds])
            ladders.append(CeilingLadder(base, ordered, seeds, values))
    return [ladder for ladder in ladders if not ladder.rises]


def ceilings_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """ceilings.csv: one row a ceiling of each ladder that does not rise; else no rows.

    Accuracies are means over seeds with their own intervals, of prompts and seeds. `over_deepest`
    is the paired difference to the deepest ceiling; its intervals hold for all k - 1 differences of
    a ladder at once (each at 1 - (1 - level) / (k - 1)), so that the best may be picked from them.
    """
    rows = [row for ladder in falling_ladders(runs, correctness(runs, pairs))
            for row in _ladder_rows(ladder, pairs, config)]
    return pd.DataFrame(rows, columns=CEILING_COLUMNS)


def _ladder_rows(ladder: CeilingLadder, pairs: EvalPairs, config: EvalConfig) -> Iterable[dict]:
    count, deepest = len(ladder.rungs), ladder.deepest
    over_prompts = resampled_means(ladder.right.mean(axis=0), pairs.prompt_ids,
                                   samples=config.bootstrap_samples)
    replicates = nested_replicates(ladder.right, over_prompts, pairs.prompt_ids)
    units, means = np.eye(count), ladder.means
    together = 1 - (1 - config.level) / (count - 1)
    for place, rung in enumerate(ladder.rungs):
        own = interval(means[place], replicates.along(units[place]), config.level)
        row = {"experiment": pairs.experiment, "base": ladder.base, "name": rung.name,
               "layers": rung.layers, "keep": rung.keep,
               "place": {ladder.best: BEST, deepest: DEEPEST}.get(place, ""),
               "seeds": " ".join(map(str, ladder.seeds)), "data": pairs.data, "split": pairs.split,
               "n": len(pairs.pair_ids), "accuracy": own.estimate, "low": own.low, "high": own.high}
        if place != deepest:
            over = interval(means[place] - means[deepest],
                            replicates.along(units[place] - units[deepest]), together)
            row |= {"over_deepest": over.estimate, "over_deepest_low": over.low,
                    "over_deepest_high": over.high}
        yield row


def with_best_ceiling(pgr: pd.DataFrame, runs: Sequence[RunScores], pairs: EvalPairs,
                      config: EvalConfig) -> pd.DataFrame:
    """pgr.csv with BEST_COLUMNS where some ladder of ceilings does not rise; else as it is.

    PGR follows the same rules against the best ceiling as against the student's own, over the seeds
    that the best ceiling has as well (`best_seeds`). A student whose base model's ceilings rise has
    empty fields, as has an aggregate with such a student in it.
    """
    right = correctness(runs, pairs)
    best = {ladder.base: ladder.rungs[ladder.best].name for ladder in falling_ladders(runs, right)}
    if not best:
        return pgr
    against = {run.name: best[base_of(run.name)] for run in runs
               if run.role == "student" and base_of(run.name) in best}
    keys = list(zip(pgr.teacher, pgr.student, pgr.method, strict=True))
    rows = {one.key: _best_row(one, against) for one in recovered(right, pairs, config, against)
            if one.key[0] != ALL or set(one.cells) == {
                key for key in keys if key[2] == one.key[2] and key[0] != ALL}}
    added = pd.DataFrame([rows.get(key, {}) for key in keys], pgr.index, BEST_COLUMNS)
    texts = ["best_ceiling_name", "best_seeds", "best_status"]
    return pgr.join(added.fillna(dict.fromkeys(texts, "")))


def _best_row(one: Recovered, against: Mapping[str, str]) -> dict:
    names = {against[student] for _, student, _ in one.cells}
    result = one.result
    return {"best_ceiling_name": names.pop() if len(names) == 1 else ALL,
            "best_seeds": " ".join(map(str, one.seeds)), "best_ceiling": result.ceiling,
            **interval_fields("best_gap", result.gap), **interval_fields("best_pgr", result.pgr),
            "best_status": result.status}
