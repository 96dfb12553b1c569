"""Do teacher and ceiling err on the same pairs? Agreement beyond what their accuracies explain.

CAPA, chance-adjusted probabilistic agreement [1], for two answers a pair. With p_j and q_j the
probabilities that two models give to the true answer of pair j, and p, q their means,

    observed   c_o = mean_j [ p_j q_j + (1 - p_j)(1 - q_j) ]
    by chance  c_e = p q + (1 - p)(1 - q)                      CAPA = (c_o - c_e) / (1 - c_e)

c_e is the agreement of two models that are as good and err independently. With probabilities of 0
and 1 CAPA is Cohen's kappa of being right, or error consistency [2] (`hard`). It is 1 only for
models that agree *and* are sure: an unsure model agrees little even with itself.

[1] Goel et al. 2025, Great models think alike and this undermines AI oversight, arXiv 2502.04313.
[2] Geirhos, Meding, Wichmann 2020, Beyond accuracy: quantifying trial-by-trial behaviour, NeurIPS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from configs.schema import EvalConfig
from src.measures import metrics
from src.measures.bootstrap import Interval, interval, nested_replicates, resampled_means
from src.measures.cells import ALL, interval_fields, recovered
from src.measures.comparisons.methods import BASELINE
from src.measures.run_scores import EvalPairs, RunScores, align

SHARED_COLUMNS = ("experiment teacher student method seeds n capa capa_low capa_high hard hard_low "
                  "hard_high wrong_overlap ceiling_errors_shared gain gain_low gain_high gap "
                  "gap_low gap_high pgr pgr_low pgr_high status").split()


def capa(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CAPA of two models.

    Args:
        first, second: (..., n) probability of the true answer of each pair.
    Returns:
        (...), NaN where both are always sure of the truth, or both of its opposite.
    """
    observed = np.mean(first * second + (1 - first) * (1 - second), axis=-1)
    chance = _chance(first.mean(axis=-1), second.mean(axis=-1))
    with np.errstate(invalid="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def _chance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * q + (1 - p) * (1 - q)


def pseudo_values(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., n) numbers whose mean is CAPA, and which vary over samples of pairs as it does.

    CAPA plus its derivative by the weight of a pair (the delta method): with o_j and c_o,

        CAPA + (o_j - c_o) / (1 - c_e) - (1 - c_o) / (1 - c_e)^2 d_j
        d_j = (2 q - 1)(p_j - p) + (2 p - 1)(q_j - q)
    """
    p, q = first.mean(axis=-1, keepdims=True), second.mean(axis=-1, keepdims=True)
    each = first * second + (1 - first) * (1 - second)
    observed, chance = each.mean(axis=-1, keepdims=True), _chance(p, q)
    by_chance = (2 * q - 1) * (first - p) + (2 * p - 1) * (second - q)
    return (capa(first, second)[..., None] + (each - observed) / (1 - chance)
            - (1 - observed) / (1 - chance)**2 * by_chance)


@dataclass(frozen=True)
class SharedErrors:
    """Of a teacher and a ceiling, means over seeds."""

    capa: Interval
    """Over prompts and seeds, as all intervals here."""
    hard: Interval
    wrong_overlap: float
    """Pairs that both get wrong, of those that either does; NaN where there are none."""
    ceiling_errors_shared: float
    """Share of the ceiling's errors that the teacher makes too."""


def shared_errors(teacher: np.ndarray, ceiling: np.ndarray, prompt_ids: np.ndarray, *,
                  level: float = 0.95, samples: int = 10_000) -> SharedErrors:
    """Compare margins (S seeds, n pairs) of a teacher with those of a ceiling, seed by seed."""
    sides = teacher, ceiling
    soft = pseudo_values(*(expit(side) for side in sides))
    right = [metrics.correctness(side) for side in sides]
    values = np.stack([soft, pseudo_values(*right)], axis=1)  # (S, 2, n)
    over_prompts = resampled_means(values.mean(axis=0), prompt_ids, samples=samples)
    replicates = nested_replicates(values, over_prompts, prompt_ids)
    spans = [interval(float(values[:, place].mean()), replicates.along(unit), level)
             for place, unit in enumerate(((1, 0), (0, 1)))]
    wrong = [1 - side for side in right]
    both, either = np.minimum(*wrong).sum(axis=1), np.maximum(*wrong).sum(axis=1)
    return SharedErrors(*spans, _mean_share(both, either),
                        _mean_share(both, wrong[1].sum(axis=1)))


def _mean_share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(np.mean(part / whole)) if (whole > 0).all() else float("nan")


def shared_errors_table(runs: Sequence[RunScores], pairs: EvalPairs,
                        config: EvalConfig) -> pd.DataFrame:
    """One row a cell of BASELINE: what teacher and ceiling share, beside gain, gap and PGR."""
    margins = dict(zip((run.key for run in runs), align(runs, pairs), strict=True))
    right = {key: metrics.correctness(margin) for key, margin in margins.items()}
    own = {run.name: run.name for run in runs if run.role == "student"}
    rows = []
    for one in recovered(right, pairs, config, own):
        teacher, student, method = one.key
        if method != BASELINE or teacher == ALL:
            continue
        sides = (np.stack([margins[role, name, "", "", seed] for seed in one.seeds])
                 for role, name in (("teacher", teacher), ("ceiling", student)))
        found = shared_errors(*sides, pairs.prompt_ids, level=config.level,
                              samples=config.bootstrap_samples)
        rows.append({"experiment": pairs.experiment, "teacher": teacher, "student": student,
                     "method": method, "seeds": " ".join(map(str, one.seeds)),
                     "n": len(pairs.pair_ids), **interval_fields("capa", found.capa),
                     **interval_fields("hard", found.hard), "wrong_overlap": found.wrong_overlap,
                     "ceiling_errors_shared": found.ceiling_errors_shared,
                     **interval_fields("gain", one.result.gain),
                     **interval_fields("gap", one.result.gap),
                     **interval_fields("pgr", one.result.pgr), "status": one.result.status})
    return pd.DataFrame(rows, columns=SHARED_COLUMNS)
