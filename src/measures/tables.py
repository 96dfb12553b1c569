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
from src.measures.best_ceiling import BEST_COLUMNS, CEILING_COLUMNS
from src.measures.cells import Recovered, correctness, interval_fields, pooled, recovered
from src.measures.comparisons.methods import COST, METHOD_COLUMNS
from src.measures.run_scores import EvalPairs, RunScores, align

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
COLUMNS["ceilings"] = CEILING_COLUMNS
COLUMNS["methods"] = METHOD_COLUMNS
COLUMNS["pooled"] = COLUMNS["pgr"]
FURTHER_COLUMNS = {"pgr": BEST_COLUMNS, "methods": [COST]}
"""What may stand after them, all or none."""


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
    """pgr.csv: one row per teacher, student and method, then one aggregate row per method with
    several of them; each student against the ceiling of its own rung."""
    own = {run.name: run.name for run in runs if run.role == "student"}
    return _table([_pgr_row(pairs, one) for one in
                   recovered(correctness(runs, pairs), pairs, config, own)], COLUMNS["pgr"])


def pooled_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """pooled.csv: as pgr.csv, with the noise of seeds pooled over all cells; no rows where there
    is nothing to pool."""
    own = {run.name: run.name for run in runs if run.role == "student"}
    return _table([_pgr_row(pairs, one) for one in
                   pooled(correctness(runs, pairs), pairs, config, own)], COLUMNS["pooled"])


def _pgr_row(pairs: EvalPairs, one: Recovered) -> dict:
    (teacher, student, method), result = one.key, one.result
    return {"experiment": pairs.experiment, "teacher": teacher, "student": student,
            "method": method, "seeds": " ".join(map(str, one.seeds)), "data": pairs.data,
            "split": pairs.split, "n": len(pairs.pair_ids), "weak": result.weak,
            "student_accuracy": result.student, "ceiling": result.ceiling,
            **interval_fields("gain", result.gain), **interval_fields("gap", result.gap),
            **interval_fields("pgr", result.pgr), "status": result.status}


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
