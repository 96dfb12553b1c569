"""A win rate at equal length: what is left of a policy's wins where answers are no longer.

Length-controlled AlpacaEval [1] reduced to what one pair of policies has: with q the judge's
P(after > before) and l the difference in length of two answers to a prompt,

    P(win) = sigmoid(theta + phi x)    x = tanh(l / sd(l))    length-controlled rate: sigmoid(theta)

fitted to soft labels q by iteratively reweighted least squares, that is Newton's method. Its term
for how hard a prompt is, its penalty and its gamed baselines are left out.

[1] Dubois et al. 2024, Length-controlled AlpacaEval, arXiv 2404.04475.
"""

import numpy as np

from src.measures.bootstrap import Interval, interval, resampled_weights
from src.methods.log_odds import sigmoid

SAMPLES = 1_000
"""Bootstrap samples, at most: each is a fit."""
STEPS = 25
RIDGE = 1e-9
"""Keeps a fit solvable where all answers are equally long."""
MOST = 30.0
"""Log-odds beyond which a probability is 0 or 1: all answers won, or none did."""


def length_controlled(q: np.ndarray, longer: np.ndarray, prompts: np.ndarray, *, samples: int,
                      level: float) -> tuple[Interval, float]:
    """The length-controlled win rate with its interval over prompts, and phi.

    Args:
        q: (m,) the judge's P(after > before), in [0, 1].
        longer: (m,) length of the answer after less that before.
        prompts: (m,)
    """
    x = scaled(longer)
    weights = np.stack([np.ones(len(q)), *resampled_weights(
        prompts, samples=min(samples, SAMPLES))])
    theta, phi = fit(q, x, weights).T
    rates = sigmoid(theta)
    replicates = rates[1:] if len(rates) > 1 else np.array([np.nan])
    return interval(float(rates[0]), replicates, level), float(phi[0])


def scaled(longer: np.ndarray) -> np.ndarray:
    """tanh(l / sd(l)); 0 where all differences are alike."""
    sd = longer.std()
    return np.tanh(longer / sd) if sd > 0 else np.zeros(len(longer))


def fit(q: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B, 2): theta and phi under each of B weightings (B, m) of m soft labels."""
    columns = np.stack([np.ones(len(x)), x])  # (2, m)
    found = np.zeros((len(weights), 2))
    for _ in range(STEPS):
        p = sigmoid(found @ columns)
        slope = (weights * (q - p)) @ columns.T  # (B, 2)
        curvature = np.einsum("bm,im,jm->bij", weights * p * (1 - p), columns, columns)
        curvature += RIDGE * weights.sum(axis=1)[:, None, None] * np.eye(2)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        found = np.clip(found + np.clip(step, -2.0, 2.0), -MOST, MOST)
        if np.abs(step).max() < 1e-10:
            break
    return found
