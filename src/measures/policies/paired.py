"""One policy against another on the same prompts, by the rewards that a judge gives their answers.

Rewards of different judges, as each seed has its own, share neither zero nor scale. They are told
in standard deviations: z = (r - m) / s, where m and s are the mean and the standard deviation of
the judge's rewards for the answers of the reference, the fine-tuned policy. With d = z_after -
z_before of a prompt,

    better, worse, tie    d >= 0.05, d <= -0.05, between
    win rate              share of better, a tie counts half
    soft win rate         mean of sigmoid((r_after - r_before) / tau), tau fitted on human pairs

Intervals are over prompts and seeds, as everywhere (`bootstrap.NestedReplicates`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, wilcoxon

from src.measures.bootstrap import Interval, interval, nested_replicates, resampled_means
from src.methods.log_odds import sigmoid

TIE = 0.05
"""Standard deviations within which two answers are equally good."""


@dataclass(frozen=True)
class Answers:
    """One answer to each of n prompts under each of S seeds; every array is (S, n)."""

    rewards: np.ndarray
    """The judge's."""
    tokens: np.ndarray
    characters: np.ndarray
    finished: np.ndarray
    log_ratio: np.ndarray
    """log pi(answer) - log pi_reference(answer), nats; its mean estimates KL(pi, reference). NaN
    where answers were drawn at another temperature than 1."""
    proxy: np.ndarray | None = None
    """Rewards by the model that labelled for the policy; None for people."""


@dataclass(frozen=True)
class Reference:
    """What rewards are measured in."""

    mean: np.ndarray
    """(S,)"""
    sd: np.ndarray

    @classmethod
    def of(cls, rewards: np.ndarray) -> "Reference":
        """Of a judge's rewards (S, n) for the reference's answers; where all are alike, as is."""
        sd = rewards.std(axis=1)
        return cls(rewards.mean(axis=1), np.where(sd > 0, sd, 1.0))

    def z(self, rewards: np.ndarray) -> np.ndarray:
        """(S, n) in standard deviations from the reference's mean."""
        return (rewards - self.mean[:, None]) / self.sd[:, None]


@dataclass(frozen=True)
class Paired:
    """`after` against `before`."""

    difference: Interval
    """Mean of d."""
    better: int
    worse: int
    ties: int
    win_rate: Interval
    soft_win_rate: Interval
    sign_p: float
    """Two-sided sign test and Wilcoxon's signed-rank test of each prompt's mean d over seeds; NaN
    where all are 0."""
    wilcoxon_p: float


def paired(before: np.ndarray, after: np.ndarray, reference: Reference, tau: np.ndarray,
           prompts: np.ndarray, *, samples: int, level: float) -> Paired:
    """Compare rewards (S, n) of two policies' answers to the same prompts.

    Args:
        tau: (S,), see `fitted_tau`.
        prompts: (n,).
    """
    d = reference.z(after) - reference.z(before)
    wins = (d >= TIE) + 0.5 * (np.abs(d) < TIE)
    soft = sigmoid((after - before) / tau[:, None])
    spans = means_with_intervals(np.stack([d, wins, soft], axis=1), prompts, samples=samples,
                                 level=level)
    own = d.mean(axis=0)
    up, down = int((own > 0).sum()), int((own < 0).sum())
    some = up + down > 0
    return Paired(spans[0], int((d >= TIE).sum()), int((d <= -TIE).sum()),
                  int((np.abs(d) < TIE).sum()), spans[1], spans[2],
                  float(binomtest(up, up + down).pvalue) if some else float("nan"),
                  float(wilcoxon(own).pvalue) if some else float("nan"))


def means_with_intervals(values: np.ndarray, prompts: np.ndarray, *, samples: int,
                         level: float) -> list[Interval]:
    """Of k quantities (S, k, n) the means over seeds and prompts."""
    over = resampled_means(values.mean(axis=0), prompts, samples=samples)
    replicates = nested_replicates(values, over, prompts)
    return [interval(values[:, place].mean(), replicates.along(direction), level)
            for place, direction in enumerate(np.eye(values.shape[1]))]


def fitted_tau(margins: np.ndarray) -> float:
    """The tau for which sigmoid(margin / tau) is the likeliest on pairs of known preference.

    Args:
        margins: (n,), reward of the preferred answer less that of the other.
    """
    def nats(log_tau: float) -> float:
        return float(np.logaddexp(0.0, -margins * np.exp(-log_tau)).mean())

    return float(np.exp(minimize_scalar(nats, bounds=(-5.0, 5.0), method="bounded").x))
