"""Logistic regression of labels on the features of pairs: one direction, no intercept.

A pair whose sides are swapped has the opposite features and label. For the same answer either way,
P(left > right) = sigmoid(w . x) has no intercept, and features are divided by a scale and not
shifted.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

FOLDS = 5
STRENGTHS = tuple(10.0 ** power for power in range(-5, 2))
"""What the sum of losses may be multiplied with, beside |w|^2 / 2 on scaled features."""


def scaled(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float64 and (d,): the features, divided by the root mean square of each."""
    features = np.asarray(features, np.float64)
    size = np.sqrt(np.square(features).mean(axis=0)) if len(features) else np.ones(
        features.shape[1])
    size = np.where(size > 0, size, 1.0)
    return features / size, size


def fit(features: np.ndarray, labels: np.ndarray, strength: float,
        weights: np.ndarray | None = None) -> np.ndarray:
    """w (d,) that minimises |w|^2 / 2 + strength * sum of weights * cross-entropy of sigmoid(x . w)
    against the label, which may be any probability.

    Args:
        features: (n, d); labels, weights: (n,).
    """
    weights = np.ones(len(labels)) if weights is None else weights
    # A soft label is two hard ones that weigh as much as it gives to each.
    both = np.concatenate([weights * labels, weights * (1 - labels)])
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-9,
                               max_iter=200)
    model.fit(np.concatenate([features, features]), np.repeat([1, 0], len(labels)), both)
    return model.coef_[0]


def cross_entropy(margins: np.ndarray, labels: np.ndarray,
                  weights: np.ndarray | None = None) -> float:
    """Mean of log(1 + exp(margin)) - label * margin, with the weights of the pairs."""
    return float(np.average(np.logaddexp(0.0, margins) - labels * margins, weights=weights))


def out_of_fold(features: np.ndarray, labels: np.ndarray, prompt: np.ndarray, seed: int,
                weights: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """(n,) margins, each by a probe that saw no label of its pair's prompt, and the strength that
    they are best with: the one of STRENGTHS whose margins have the least cross-entropy. 0 where
    there is one prompt only.

    The folds are drawn by the seed and not by the labels.
    """
    prompts = len(np.unique(prompt))
    if prompts < 2:
        return np.zeros(len(labels)), STRENGTHS[0]
    features, _ = scaled(features)
    weights = np.ones(len(labels)) if weights is None else weights
    folds = list(GroupKFold(min(FOLDS, prompts), shuffle=True, random_state=seed).split(
        features, groups=prompt))
    margins = np.zeros((len(STRENGTHS), len(labels)))
    for row, strength in enumerate(STRENGTHS):
        for train, held_out in folds:
            found = fit(features[train], labels[train], strength, weights[train])
            margins[row, held_out] = features[held_out] @ found
    best = int(np.argmin([cross_entropy(each, labels, weights) for each in margins]))
    return margins[best], STRENGTHS[best]
