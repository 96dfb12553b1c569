"""How far each layer of a model moved: hidden states of the same tokens, and weights.

States are (n, d): n tokens behind one layer, before (X) and after (Y) training.

    linear CKA    |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, centred over tokens (Kornblith et al.
                  2019, Similarity of neural network representations revisited, section 3)
    mean cosine   mean over tokens of cos(x_i, y_i), not centred

CKA is 1 where one set of states is the other turned, scaled or shifted, which no later layer need
notice; the cosine sees all of these but the scale. CKA of noise is not 0 but about d / (n + d): it
wants several times as many tokens as the states are wide.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr, t
from sklearn.manifold import TSNE

from src.measures.bootstrap import Interval

PERPLEXITY = 30


def linear_cka(before: np.ndarray, after: np.ndarray) -> float:
    """Linear CKA of states (n, d) and (n, e); NaN where either does not vary."""
    x, y = (states - states.mean(axis=0) for states in map(np.float64, (before, after)))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / own) if own > 0 else float("nan")


def mean_cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over n tokens of the cosine between their states (n, d) before and after."""
    x, y = np.float64(before), np.float64(after)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(np.mean((x * y).sum(axis=1) / norms))


def relative_change(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """|after - before| / |before| of some tensors together, by name."""
    moved = sum(np.square(np.float64(after[name]) - before[name]).sum() for name in before)
    return float(np.sqrt(moved / sum(np.square(np.float64(own)).sum() for own in before.values())))


def depth_slope(values: Sequence[float]) -> float:
    """Least-squares slope of L values over depth, 0 at the first layer and 1 at the last; NaN for
    one layer."""
    return float(np.polyfit(np.linspace(0, 1, len(values)), values, 1)[0]) if len(
        values) > 1 else float("nan")


def depth_order(values: Sequence[float]) -> float:
    """Spearman's rank correlation of L values with depth; NaN below three layers, or where they do
    not vary."""
    if len(values) < 3 or np.ptp(values) == 0:
        return float("nan")
    return float(spearmanr(np.arange(len(values)), values).statistic)


def over_seeds(values: Sequence[float], level: float) -> Interval:
    """Mean of S seeds with Student's interval; without one for a single seed."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), float("nan"), float("nan"))
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def side_by_side(before: np.ndarray, after: np.ndarray, seed: int) -> np.ndarray:
    """(2n, 2): t-SNE of states (n, d) before, then of the same tokens after, in one picture."""
    both = np.concatenate([before, after])
    return TSNE(perplexity=min(PERPLEXITY, (len(both) - 1) / 3), init="pca",
                random_state=seed).fit_transform(both)
