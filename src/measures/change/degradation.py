"""What goes with the gap that a student recovers: errors that it takes over, or skill lost?

Each student, seed by seed, with its teacher and its ceiling of the same seed:

    pgr         its gain over the gap of its cell, which is the mean over seeds; missing where the
                cell's PGR is undefined
    inherited   share of the pairs on which its teacher errs where it prefers the same wrong answer
    nats_lost   nats a token that its states say less of held-out answers than before training

By arithmetic, inherited errors are a part of gain: with the teacher's accuracy a and the student's
agreement with it k where it is right, gain = (1 - a)(1 - inherited) - a (1 - k). That PGR falls
with them says that students do not make up for it elsewhere; how much, and what is left for lost
skill, is what a regression tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures import metrics
from src.measures.cells import Recovered, recovered
from src.measures.comparisons.regression import clustered_slope
from src.measures.run_scores import EvalPairs, RunScores, align

PREDICTORS = ("inherited", "nats_lost")
MODELS = (("alone, all students", False, False), ("both, all students", True, False),
          ("alone, same teacher and seed", False, True),
          ("both, same teacher and seed", True, True))
"""Name, whether the other predictor is held fixed, whether only students of one teacher and seed
are compared with each other."""
SLOPES = ("predictor", "model", "slope", "slope_low", "slope_high", "deviation", "students",
          "teachers")


@dataclass(frozen=True)
class Inherited:
    """Of the pairs that a teacher gets wrong, the share on which a student does so too. NaN where
    there are none."""

    inherited: float
    inherited_unsure: float
    """On the half of them of which the teacher is less sure."""
    inherited_sure: float
    inherited_short: float
    """On the half of them where the wrong answer, which the teacher prefers, is shorter."""
    inherited_long: float


def inherited(student: np.ndarray, teacher: np.ndarray, rejected_length: np.ndarray) -> Inherited:
    """Errors that a student shares with its teacher, margins (n,) of the same pairs."""
    wrong = np.flatnonzero(metrics.correctness(teacher) < 0.5)
    taken = 1 - metrics.correctness(student[wrong])
    sure, long = (_upper_half(values[wrong]) for values in (np.abs(teacher), rejected_length))
    return Inherited(*(float(taken[part].mean()) if part.any() else float("nan")
                       for part in (np.ones(len(wrong), bool), ~sure, sure, ~long, long)))


def _upper_half(values: np.ndarray) -> np.ndarray:
    """(n,) bool: above the median. Lengths tie; those at the median are of the lower half."""
    return values > np.median(values) if len(values) else np.zeros(0, bool)


def students_table(runs: Sequence[RunScores], pairs: EvalPairs, config: EvalConfig) -> pd.DataFrame:
    """One row a student whose teacher and ceiling of the same seed are there."""
    margins = dict(zip((run.key for run in runs), align(runs, pairs), strict=True))
    right = {key: metrics.correctness(margin) for key, margin in margins.items()}
    own = {run.name: run.name for run in runs if run.role == "student"}
    cells = {one.key: one for one in recovered(right, pairs, config, own)}
    rows = []
    for run in runs:
        teacher = "teacher", run.teacher, "", "", run.seed
        ceiling = "ceiling", run.name, "", "", run.seed
        if run.role != "student" or not {teacher, ceiling} <= margins.keys():
            continue
        weak, strong, top = (float(right[key].mean()) for key in (teacher, run.key, ceiling))
        shared = inherited(margins[run.key], margins[teacher], pairs.length_rejected)
        by_ceiling = inherited(margins[ceiling], margins[teacher], pairs.length_rejected)
        rows.append({
            "experiment": pairs.experiment, "student": run.name, "layers": run.layers,
            "teacher": run.teacher, "method": run.method, "seed": run.seed,
            "n": len(pairs.pair_ids), "weak": weak, "student_accuracy": strong, "ceiling": top,
            "gain": strong - weak, "gap": top - weak,
            "pgr": _pgr(strong - weak, cells.get((run.teacher, run.name, run.method))),
            **vars(shared), "inherited_by_ceiling": by_ceiling.inherited})
    return pd.DataFrame(rows)


def _pgr(gain: float, cell: Recovered | None) -> float:
    defined = cell is not None and cell.result.status == "ok"
    return gain / cell.result.gap.estimate if defined else float("nan")


def slopes_table(students: pd.DataFrame, config: EvalConfig) -> pd.DataFrame:
    """How PGR goes with each predictor: per standard deviation of it over the students that have
    all three, an interval that draws teachers' runs. No row for what is missing or never varies."""
    have = [name for name in PREDICTORS if students[name].notna().any()]
    known = students[students[["pgr", *have]].notna().all(axis=1)]
    have = [name for name in have if len(known) and known[name].std() > 0]
    scaled = {name: (known[name] / known[name].std()).to_numpy() for name in have}
    clusters = (known.teacher + " " + known.seed.astype(str)).to_numpy(str)
    rows = []
    for name in have:
        others = [values for other, values in scaled.items() if other != name]
        for model, both, within in MODELS:
            if both and not others:
                continue
            found = clustered_slope(known.pgr.to_numpy(), [scaled[name], *(others if both else [])],
                                    clusters, within=within, level=config.level,
                                    samples=config.bootstrap_samples)
            span = found.span
            rows.append((name, model, span.estimate, span.low, span.high, float(known[name].std()),
                         found.points, found.clusters))
    return pd.DataFrame(rows, columns=list(SLOPES))
