"""Finished runs -> tidy tables, one function a file of `results/<experiment>/`.

A run that is missing is a missing row. A figure that does not exist (the AUROC of one-sided pairs,
the log-loss of a rule without probabilities) is NaN, which pandas writes as an empty field.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from data.records import left_is_chosen
from src.measures import metrics
from src.measures.baselines import LENGTH_ONLY, length_margins
from src.measures.pgr import Cell, GapRecovered, gaps_recovered
from src.measures.run_scores import EvalPairs, RunScores, align

ALL = "all"
"""Teacher and student of an aggregate row."""

COLUMNS = {name: columns.split() for name, columns in {
    "accuracy": "experiment role name layers teacher method seed data split n accuracy low high "
                "ties auroc log_loss brier length_only",
    "pgr": "experiment teacher student method seeds data split n weak student_accuracy ceiling "
           "gain gain_low gain_high gap gap_low gap_high pgr pgr_low pgr_high status",
    "companions": "experiment teacher student method seed split n agreement "
                  "agreement_teacher_right agreement_teacher_wrong errors_inherited",
    "calibration": "experiment role name teacher method split bin_low bin_high n confidence "
                   "accuracy",
    "curves": "experiment role name teacher method seed step loss"}.items()}
"""File of `results/<experiment>/` -> its columns, in order."""


def accuracy_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """accuracy.csv: one row a run or baseline."""
    margins = align(runs, pairs)
    intervals = metrics.accuracies(margins, pairs.prompt_ids, level=config.level,
                                   samples=config.bootstrap_samples)
    left = np.array([left_is_chosen(pair_id) for pair_id in pairs.pair_ids])
    shorter = length_margins(pairs.length_chosen, pairs.length_rejected)
    length_only = float(metrics.correctness(shorter).mean())
    rows = []
    for run, margin, accuracy in zip(runs, margins, intervals, strict=True):
        rule = run.name == LENGTH_ONLY  # its margins are characters, not log-odds
        rows.append({
            "experiment": pairs.experiment, "role": run.role, "name": run.name,
            "layers": run.layers, "teacher": run.teacher, "method": run.method, "seed": run.seed,
            "data": pairs.data, "split": pairs.split, "n": len(margin),
            "accuracy": accuracy.estimate, "low": accuracy.low, "high": accuracy.high,
            "ties": metrics.ties(margin), "auroc": metrics.auroc(margin, left),
            "log_loss": np.nan if rule else metrics.log_loss(margin),
            "brier": np.nan if rule else metrics.brier(margin), "length_only": length_only})
    return _table(rows, COLUMNS["accuracy"])


def pgr_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """pgr.csv: one row per teacher, student and method over the seeds that teacher, student and
    ceiling all have, then one aggregate row per method with several of them.

    An aggregate takes the seeds that all its cells have, so that a failed run unbalances nothing;
    its accuracies, gain and gap are means over cells, its PGR the ratio of their sums.
    """
    right = dict(zip((run.key for run in runs), metrics.correctness(align(runs, pairs)),
                     strict=True))
    seeds = defaultdict(list)  # (teacher, student, method) -> seeds with all three runs
    for run in runs:
        peers = {("teacher", run.teacher, "", "", run.seed),
                 ("ceiling", run.name, "", "", run.seed)}
        if run.role == "student" and peers <= right.keys():
            seeds[run.teacher, run.name, run.method].append(run.seed)

    def cell(key: tuple[str, str, str], used: Sequence[int]) -> Cell:
        teacher, student, method = key
        return Cell(np.stack([right["teacher", teacher, "", "", seed] for seed in used]),
                    np.stack([right["student", student, teacher, method, seed] for seed in used]),
                    np.stack([right["ceiling", student, "", "", seed] for seed in used]))

    named = [(key, sorted(used), [key]) for key, used in seeds.items()]
    for method in dict.fromkeys(key[2] for key in seeds):
        keys = [key for key in seeds if key[2] == method]
        common = sorted(set.intersection(*(set(seeds[key]) for key in keys)))
        if len(keys) > 1 and common:
            named.append(((ALL, ALL, method), common, keys))
    results = gaps_recovered([[cell(key, used) for key in keys] for _, used, keys in named],
                             pairs.prompt_ids, floor=config.pgr_floor, level=config.level,
                             samples=config.bootstrap_samples)
    return _table([_pgr_row(pairs, key, used, result)
                   for (key, used, _), result in zip(named, results, strict=True)], COLUMNS["pgr"])


def _pgr_row(pairs: EvalPairs, key: tuple[str, str, str], seeds: Sequence[int],
             result: GapRecovered) -> dict:
    teacher, student, method = key
    row = {"experiment": pairs.experiment, "teacher": teacher, "student": student,
           "method": method, "seeds": " ".join(map(str, seeds)), "data": pairs.data,
           "split": pairs.split, "n": len(pairs.pair_ids), "weak": result.weak,
           "student_accuracy": result.student, "ceiling": result.ceiling, "status": result.status}
    for name, figure in (("gain", result.gain), ("gap", result.gap), ("pgr", result.pgr)):
        values = (figure.estimate, figure.low, figure.high) if figure else (np.nan,) * 3
        row.update(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return row


def companions_table(runs: Sequence[RunScores], pairs: EvalPairs) -> pd.DataFrame:
    """companions.csv: one row a student whose teacher of the same seed is there."""
    margins = dict(zip((run.key for run in runs), align(runs, pairs), strict=True))
    rows = []
    for run in runs:
        teacher = margins.get(("teacher", run.teacher, "", "", run.seed))
        if run.role != "student" or teacher is None:
            continue
        imitation = metrics.imitation(margins[run.key], teacher)
        rows.append({"experiment": pairs.experiment, "teacher": run.teacher, "student": run.name,
                     "method": run.method, "seed": run.seed, "split": pairs.split,
                     "n": len(teacher), **vars(imitation)})
    return _table(rows, COLUMNS["companions"])


def calibration_table(runs: Sequence[RunScores], pairs: EvalPairs) -> pd.DataFrame:
    """calibration.csv: bins of confidence per run, pooled over its seeds; no empty bins."""
    pooled = defaultdict(list)
    for run, margin in zip(runs, align(runs, pairs), strict=True):
        if run.name != LENGTH_ONLY:
            pooled[run.role, run.name, run.teacher, run.method].append(margin)
    rows = []
    for (role, name, teacher, method), margin in pooled.items():
        for part in metrics.calibration_bins(np.concatenate(margin)):
            rows.append({"experiment": pairs.experiment, "role": role, "name": name,
                         "teacher": teacher, "method": method, "split": pairs.split,
                         "bin_low": part.low, "bin_high": part.high, "n": part.n,
                         "confidence": part.confidence, "accuracy": part.accuracy})
    return _table(rows, COLUMNS["calibration"])


def curves_table(runs: Sequence[RunScores], pairs: EvalPairs) -> pd.DataFrame:
    """curves.csv: the training loss of each run, step by step."""
    return _table([{"experiment": pairs.experiment, "role": run.role, "name": run.name,
                    "teacher": run.teacher, "method": run.method, "seed": run.seed, "step": step,
                    "loss": loss} for run in runs for step, loss in run.curve], COLUMNS["curves"])


def scores_table(runs: Sequence[RunScores], pairs: EvalPairs) -> pd.DataFrame:
    """scores.csv: one row a pair, one column a run, margins to 6 significant digits."""
    columns = {run.column: [float(f"{value:.6g}") for value in margin]
               for run, margin in zip(runs, align(runs, pairs), strict=True)}
    return pd.DataFrame({"pair_id": pairs.pair_ids, "prompt_id": pairs.prompt_ids, **columns})


def _table(rows: list[dict], columns: list[str]) -> pd.DataFrame:
    """Rows in the columns of the contract; whole numbers stay whole where some are missing."""
    table = pd.DataFrame(rows, columns=columns)
    whole = [name for name in ("layers", "seed") if name in columns]
    return table.astype(dict.fromkeys(whole, "Int64"))
