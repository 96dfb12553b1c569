"""Is a method better than soft Bradley-Terry, or is that noise? Paired, over an experiment's cells.

A cell is one teacher, student and seed; both methods have it, with the same teacher, the same pairs
to label and the same test pairs. A student of several teachers has no such peer: it is held against
the baseline's student of that one of them by whom the baseline does best on these pairs, or the
best of the teachers would pass for a method's merit. Two questions are asked of the differences in
accuracy, and a method is called better only where both say yes:

- does the interval of the mean difference exclude 0? Over test prompts and seeds, as everywhere
  (`bootstrap.NestedReplicates`), the cells averaged;
- does Wilcoxon's signed-rank test over cells [1], corrected by Holm's method for all methods that
  are compared, refuse that differences lie about 0? It asks whether the methods differ *across*
  cells, and not in one of them alone. Cells of one teacher or one seed are not independent, so by
  itself it would be too sure. Of n cells it can give no p below 2/2^n: where Holm's correction
  asks more, and the interval excludes 0, the verdict is `too few cells`.

Shares of cells won stand beside, and decide nothing: 16 wins of 21 may be noise. So does `cost`:
the seconds of a method's run, and of the students that it has to have before it, over those of the
baseline's run of the same cell, the median over cells. What all methods share does not count:
teachers, ceilings, labels, and hidden states that are kept. Nor does what a treatment computes
before its student is trained.

[1] Wilcoxon 1945, Individual comparisons by ranking methods. The ranks of differences of 0 are
    split between both signs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from configs.schema import EvalConfig
from src.measures.bootstrap import interval, nested_replicates, resampled_means
from src.measures.cells import Correctness
from src.measures.multiple_tests import holm
from src.measures.run_scores import EvalPairs

BASELINE = "soft"
"""The name of soft Bradley-Terry, without any treatment, in every experiment."""
METHOD_COLUMNS = ("experiment method baseline cells seeds n difference difference_low "
                  "difference_high wins losses win_rate p p_holm verdict").split()
COST = "cost"
"""The column after them, which older tables have not."""
BETTER, WORSE, OPEN = "better", "worse", "not told apart"
TOO_FEW = "too few cells"
"""The interval excludes 0, and no result of so few cells could have passed the test over them."""


@dataclass(frozen=True)
class Difference:
    """One method less the baseline, on one experiment's pairs."""

    method: str
    cells: np.ndarray
    """(cells x seeds,) differences in accuracy, of `seeds`."""
    seeds: Sequence[int]
    """Those that every cell has under both methods."""
    n: int
    mean: float
    replicates: np.ndarray
    """Of the mean, over prompts and seeds."""
    cost: float = float("nan")
    """Seconds of training, with what comes before it, over the baseline's; NaN where not known."""


def differences(right: Correctness, pairs: EvalPairs, config: EvalConfig, seed: int = 0,
                seconds: Mapping[tuple, float] = MappingProxyType({})) -> list[Difference]:
    """Each other method less BASELINE; none where the baseline or a common seed is missing.

    Args:
        seed: of the resampling; experiments that are put together have one each.
        seconds: RunScores.key -> seconds of training, of the runs of which that is known.
    """
    students: dict[str, dict[tuple, np.ndarray]] = {}
    for (role, name, teacher, method, run_seed), values in right.items():
        if role == "student":
            students.setdefault(method, {})[teacher, name, run_seed] = values
    base = students.pop(BASELINE, {})
    peers = _peers({key for own in students.values() for key in own}, base)
    found = []
    for method, own in students.items():
        common = [key for key in own if key in peers]
        cells = {key[:2] for key in common}
        seeds = sorted(set.intersection(*({key[2] for key in common if key[:2] == cell}
                                          for cell in cells))) if cells else []
        if not seeds:
            continue
        less = {key: own[key] - base[peers[key]] for key in common if key[2] in seeds}
        values = np.stack([np.mean([less[*cell, s] for cell in sorted(cells)], axis=0)
                           for s in seeds])[:, None]  # (S, 1, n)
        over_prompts = resampled_means(values.mean(axis=0), pairs.prompt_ids,
                                       samples=config.bootstrap_samples, seed=seed)
        replicates = nested_replicates(values, over_prompts, pairs.prompt_ids, seed=seed)
        found.append(Difference(
            method, np.array([each.mean() for each in less.values()]), seeds,
            values.shape[-1], float(values.mean()), replicates.along([1.0]),
            _cost(method, {key: peers[key] for key in common}, seconds)))
    return found


def _peers(cells: Iterable[tuple], base: Mapping[tuple, np.ndarray]) -> dict[tuple, tuple]:
    """(teacher, student, seed) -> that of the baseline's run that each cell is held against; those
    without one are left out."""
    peers = {}
    for teacher, name, seed in cells:
        single = teacher if (teacher, name, seed) in base else _best_single(teacher, name, base)
        if (single, name, seed) in base:
            peers[teacher, name, seed] = single, name, seed
    return peers


def _best_single(together: str, student: str, base: Mapping[tuple, np.ndarray]) -> str:
    """Of several teachers, named `rule-of-rung+rung`, the one by whom the baseline's students of
    this size are best on average, over the seeds that all have; nothing where there is none."""
    by = {teacher: {seed: right.mean() for (one, name, seed), right in base.items()
                    if (one, name) == (teacher, student)}
          for teacher in together.partition("-of-")[2].split("+")}
    shared = set.intersection(*map(set, by.values()))
    return max(by, key=lambda one: np.mean([by[one][s] for s in shared])) if shared else ""


def _cost(method: str, peers: Mapping[tuple, tuple], seconds: Mapping[tuple, float]) -> float:
    """Median ratio over the cells whose two runs have seconds; NaN where none has."""
    both = [[("student", name, teacher, which, seed) for which, (teacher, name, seed) in (
        (method, cell), (BASELINE, peer))] for cell, peer in peers.items()]
    ratios = [seconds[own] / seconds[base] for own, base in both if own in seconds
              and base in seconds]
    return float(np.median(ratios)) if ratios else float("nan")


def methods_table(experiment: str, found: Sequence[Difference], level: float) -> pd.DataFrame:
    """methods.csv: one row a method, corrected for all of them."""
    p_values = [_wilcoxon(one.cells) for one in found]
    rows = [_row(experiment, one, p, p_holm, level, len(found)) for one, p, p_holm in
            zip(found, p_values, holm(p_values), strict=True)]
    return pd.DataFrame(rows, columns=[*METHOD_COLUMNS, COST])


def ranking_table(by_experiment: Mapping[str, Sequence[Difference]], level: float) -> pd.DataFrame:
    """As methods.csv over several experiments, best mean difference first.

    A method's difference is the mean over the experiments that have it, each with the same weight;
    Wilcoxon's test takes the cells of all of them. `experiment` names them. Its cost is the mean of
    theirs, and missing where one of them does not tell.
    """
    by_method: dict[str, dict[str, Difference]] = {}
    for experiment, found in by_experiment.items():
        for one in found:
            by_method.setdefault(one.method, {})[experiment] = one
    p_values = [_wilcoxon(np.concatenate([one.cells for one in own.values()]))
                for own in by_method.values()]
    rows = []
    for own, p, p_holm in zip(by_method.values(), p_values, holm(p_values), strict=True):
        parts = list(own.values())
        whole = Difference(parts[0].method, np.concatenate([one.cells for one in parts]),
                           sorted(set.union(*(set(one.seeds) for one in parts))),
                           sum(one.n for one in parts), float(np.mean([one.mean for one in parts])),
                           np.mean([one.replicates for one in parts], axis=0),
                           float(np.mean([one.cost for one in parts])))
        rows.append(_row(" ".join(own), whole, p, p_holm, level, len(by_method)))
    table = pd.DataFrame(rows, columns=[*METHOD_COLUMNS, COST])
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def _wilcoxon(cells: np.ndarray) -> float:
    return float(wilcoxon(cells, zero_method="zsplit").pvalue) if np.any(cells) else 1.0


def _verdict(one: Difference, excludes_0: bool, p_holm: float, level: float,
             compared: int) -> str:
    same = np.sign(np.median(one.cells)) == np.sign(one.mean)
    if excludes_0 and same and p_holm < 1 - level:
        return BETTER if one.mean > 0 else WORSE
    least = 2.0 ** (1 - len(one.cells)) * compared  # the lowest of p values gets the whole factor
    return TOO_FEW if excludes_0 and least >= 1 - level else OPEN


def _row(experiment: str, one: Difference, p: float, p_holm: float, level: float,
         compared: int) -> dict:
    span = interval(one.mean, one.replicates, level)
    verdict = _verdict(one, span.low > 0 or span.high < 0, p_holm, level, compared)
    wins, losses = int((one.cells > 0).sum()), int((one.cells < 0).sum())
    return {"experiment": experiment, "method": one.method, "baseline": BASELINE,
            "cells": len(one.cells), "seeds": " ".join(map(str, one.seeds)), "n": one.n,
            "difference": span.estimate, "difference_low": span.low, "difference_high": span.high,
            "wins": wins, "losses": losses,
            "win_rate": (wins + (len(one.cells) - wins - losses) / 2) / len(one.cells),
            "p": p, "p_holm": p_holm, "verdict": verdict, COST: one.cost}
