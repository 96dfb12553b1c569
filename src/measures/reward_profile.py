"""Everything that is measured of one model's rewards: scored pairs in, frozen dataclasses out.

A pointwise record has one side only; the other's reward is 0 by definition and says nothing about
the model. It enters margins and counts, but no mean of rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import EvalConfig
from data.records import left_is_chosen
from src.measures import metrics
from src.measures.bootstrap import Interval
from src.measures.groups import GroupAccuracy, group_accuracies, quantile_bins
from src.measures.length_bias import LengthBias, length_bias


@dataclass(frozen=True)
class RewardFigures:
    """Level and spread of the rewards. The four long names are those of align-anything, which calls
    the chosen answer better and the rejected one worse."""

    reward_mean: float
    """Over all answers, chosen and rejected; NaN, as all figures here, where there are none."""
    reward_std: float
    """Of the same, dividing by their number."""
    better_data_mean: float
    """Mean reward of the chosen answers."""
    worse_data_mean: float
    """Mean reward of the rejected answers."""
    worse_better_than_better_count: int
    """Pairs whose rejected answer has the higher reward."""
    worse_worse_than_better_count: int
    """Pairs whose rejected answer has the lower reward."""
    ties: int
    """Pairs with two equal rewards: in neither of the two counts."""


def reward_figures(rewards: np.ndarray, present: np.ndarray) -> RewardFigures:
    """The figures of n pairs.

    Args:
        rewards: (n, 2) chosen, rejected.
        present: (n, 2) bool, False where a pointwise record has no such side.
    """
    margins = metrics.margins_of(rewards)
    chosen, rejected = (rewards[present[:, side], side] for side in (0, 1))
    everything = np.concatenate([chosen, rejected])
    return RewardFigures(
        reward_mean=_mean(everything),
        reward_std=float(np.std(everything)) if len(everything) else float("nan"),
        better_data_mean=_mean(chosen), worse_data_mean=_mean(rejected),
        worse_better_than_better_count=int(np.sum(margins < 0)),
        worse_worse_than_better_count=int(np.sum(margins > 0)),
        ties=metrics.ties(margins))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


@dataclass(frozen=True)
class ScoredPairs:
    """n pairs under one model's tokenizer, with its rewards."""

    pair_ids: np.ndarray
    prompt_ids: np.ndarray
    rewards: np.ndarray
    """(n, 2) float64: chosen, rejected; 0 where the side is absent."""
    lengths: np.ndarray
    """(n, 3) tokens of prompt, chosen, rejected."""
    subset: np.ndarray
    """(n,) text; empty where the pairs name no part of their data set."""
    difficulty: np.ndarray
    """(n,) NaN where unknown."""

    @property
    def margins(self) -> np.ndarray:
        return metrics.margins_of(self.rewards)

    @property
    def present(self) -> np.ndarray:
        """(n, 2) bool: chosen, rejected. A pointwise record has no tokens on its absent side."""
        return self.lengths[:, 1:] > 0

    @property
    def whole(self) -> np.ndarray:
        """(n,) bool: pairs that have both sides."""
        return self.present.all(axis=1)


@dataclass(frozen=True)
class RewardProfile:
    """One model on one set of pairs."""

    n: int
    prompts: int
    level: float
    """Of every interval."""
    pointwise: int
    """Records that have one side only."""
    accuracy: Interval
    figures: RewardFigures
    auroc: float
    log_loss: float
    brier: float
    calibration: Sequence[metrics.CalibrationBin]
    calibration_error: float
    """The bins' |accuracy - confidence|, weighted by their pairs."""
    groups: Mapping[str, Sequence[GroupAccuracy]]
    """By kind: subset and difficulty where the pairs name them, length."""
    bias: LengthBias | None
    """Of pairs with both sides; None where there are none."""


def reward_profile(scored: ScoredPairs, config: EvalConfig) -> RewardProfile:
    """Measure everything."""
    margins, options = scored.margins, {"level": config.level, "samples": config.bootstrap_samples}
    left = np.array([left_is_chosen(pair_id) for pair_id in scored.pair_ids])
    bins = metrics.calibration_bins(margins)
    whole = scored.whole
    bias = length_bias(margins[whole], scored.lengths[whole, 1], scored.lengths[whole, 2],
                       scored.prompt_ids[whole], left[whole], **options) if whole.any() else None
    return RewardProfile(
        n=len(margins), prompts=len(set(scored.prompt_ids)), level=config.level,
        pointwise=int((~whole).sum()),
        accuracy=metrics.accuracies(margins[None], scored.prompt_ids, **options)[0],
        figures=reward_figures(scored.rewards, scored.present),
        auroc=metrics.auroc(margins, left), log_loss=metrics.log_loss(margins),
        brier=metrics.brier(margins), calibration=bins,
        calibration_error=metrics.calibration_error(
            [(part.n, part.confidence, part.accuracy) for part in bins]),
        groups={kind: group_accuracies(margins, scored.prompt_ids, index, names, **options)
                for kind, (index, names) in _kinds(scored).items()},
        bias=bias)


def _kinds(scored: ScoredPairs) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Kind -> the group of each pair, and the groups' names. A single group is no division."""
    subsets, subset_of = np.unique(scored.subset, return_inverse=True)
    kinds = {"subset": (subset_of, [str(name) or "(none)" for name in subsets]),
             "length": quantile_bins(scored.lengths[:, 0] + scored.lengths[:, 1:].max(axis=1)),
             "difficulty": quantile_bins(scored.difficulty)}
    return {kind: (index, names) for kind, (index, names) in kinds.items() if len(names) > 1}


def most_wrong(scored: ScoredPairs, most: int) -> np.ndarray:
    """Places of the pairs that the model is surest of and wrong about, worst first."""
    order = np.argsort(scored.margins, kind="stable")[:most]
    return order[scored.margins[order] < 0]
