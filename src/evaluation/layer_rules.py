"""Which layers a teacher should keep: rules compared at the same depth, on the same pairs.

Rules, and depths, are read off the rungs' names. Accuracies are means over seeds with intervals of
prompts and seeds. `behind` is the paired difference to the highest rule of that depth, and its
interval takes that rule as given: it is chosen on the same pairs. A rule is called best only where
the interval of every other one lies below 0.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.measures.bootstrap import NestedReplicates, interval, nested_replicates, resampled_means
from src.measures.cells import correctness, interval_fields
from src.measures.run_scores import EvalPairs, RunScores, base_of
from src.reports.which_layers import BEHIND, BEST, HIGHEST, LEVEL, MEAN
from src.runs.rungs import LETTERS

COLUMNS = ("experiment model data split layers keep seeds n accuracy low high behind behind_low "
           "behind_high status").split()

Rung = tuple[int, str]
"""Depth and rule."""


def rules_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """Rows of which_layers.csv: one a rule and depth, then one a rule with the mean of its depths.

    Raises:
        UserError: no depth with two rules; rungs of a model with no seed in common.
    """
    right = correctness(runs, pairs)
    models: dict[str, dict[Rung, str]] = {}
    for run in runs:
        rung = _rung(run.name)
        if run.role == "teacher" and rung:
            models.setdefault(base_of(run.name), {})[rung] = run.name
    rows = []
    for model, names in models.items():
        depths = [depth for depth, _ in names]
        compared = {rung: name for rung, name in sorted(names.items())
                    if depths.count(rung[0]) > 1}
        seeds = [{key[-1] for key in right if key[:2] == ("teacher", name)}
                 for name in compared.values()]
        common = sorted(set.intersection(*seeds)) if seeds else []
        if seeds and not common:
            raise UserError(f"{pairs.experiment}: the teachers {', '.join(compared.values())} have "
                            "no seed in common: train what is missing, and run eval.py again")
        if common:
            values = np.stack([[right["teacher", name, "", "", seed] for name in compared.values()]
                               for seed in common])
            facts = {"experiment": pairs.experiment, "model": model, "data": pairs.data,
                     "split": pairs.split, "seeds": " ".join(map(str, common)),
                     "n": len(pairs.pair_ids)}
            rows += [facts | row for row in _rows(list(compared), values, pairs, config)]
    if not rows:
        raise UserError(f"{pairs.experiment}: no two teachers of one model and depth that keep "
                        "other layers: there is nothing to compare")
    return pd.DataFrame(rows, columns=COLUMNS)


def _rung(name: str) -> Rung | None:
    """Depth and rule in a rung's name: 8 and `first` of `demo-F8`."""
    found = re.search(rf"-([{''.join(LETTERS.values())}])(\d+)$", name)
    return found and (int(found[2]), next(rule for rule, letter in LETTERS.items()
                                          if letter == found[1]))


def _rows(rungs: Sequence[Rung], values: np.ndarray, pairs: EvalPairs,
          config: EvalConfig) -> Iterable[dict]:
    """The rows of one model.

    Args:
        values: (S seeds, k rungs, n pairs), whether each is right.
    """
    over_prompts = resampled_means(values.mean(axis=0), pairs.prompt_ids,
                                   samples=config.bootstrap_samples)
    replicates = nested_replicates(values, over_prompts, pairs.prompt_ids)
    means = values.mean(axis=(0, 2))
    depths = sorted({depth for depth, _ in rungs})
    for depth in depths:
        units = {rule: unit for (layers, rule), unit in zip(rungs, np.eye(len(rungs)), strict=True)
                 if layers == depth}
        yield from _compared(str(depth), units, means, replicates, config.level)
    everywhere = [rule for rule in LETTERS if all((depth, rule) in rungs for depth in depths)]
    if len(depths) > 1 and len(everywhere) > 1:
        units = {rule: np.array([other == rule for _, other in rungs]) / len(depths)
                 for rule in everywhere}
        yield from _compared(MEAN, units, means, replicates, config.level)


def _compared(layers: str, units: dict[str, np.ndarray], means: np.ndarray,
              replicates: NestedReplicates, level: float) -> Iterable[dict]:
    """One row a rule: its accuracy, and what it is behind the highest.

    Args:
        units: rule -> (k,), what of `means` its accuracy is.
    """
    highest = max(units, key=lambda rule: round(float(units[rule] @ means), 12))
    others = {rule: interval(float((unit - units[highest]) @ means),
                             replicates.along(unit - units[highest]), level)
              for rule, unit in units.items() if rule != highest}
    best = all(other.high < 0 for other in others.values())
    for rule, unit in units.items():
        own = interval(float(unit @ means), replicates.along(unit), level)
        status = (BEST if best else HIGHEST) if rule == highest else (
            BEHIND if others[rule].high < 0 else LEVEL)
        yield {"layers": layers, "keep": rule, "accuracy": own.estimate, "low": own.low,
               "high": own.high, **interval_fields("behind", others.get(rule)), "status": status}
