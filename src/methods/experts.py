"""Label treatments of several teachers: what they say together, and which of them to believe.

Each takes `labels` (k, n), see label_treatments.py, to which it adds its names. By one teacher, or
by several that say the same, the labels are those of each, bit for bit.
"""

import numpy as np

from configs.field_types import NotNegative, Positive
from src.methods.label_treatments import TREATMENTS, Taught
from src.methods.log_odds import log_odds, sigmoid


@TREATMENTS.add("mean_margin")
def mean_margin(labels: np.ndarray) -> np.ndarray:
    """sigmoid of the teachers' mean log-odds: their geometric mean, renormalised (a product of
    experts with weights 1/k; Hinton 2002, Neural Computation 14(8))."""
    equal = (labels == labels[0]).all(axis=0)
    return np.where(equal, labels[0], sigmoid(log_odds(labels).mean(axis=0)))


@TREATMENTS.add("disagreement")
def disagreement(labels: np.ndarray, tau: Positive = 3.0, power: NotNegative = 1.0) -> Taught:
    """The mean margin, and loss weights that fall with confidence and with disagreement:

        weight ~ C(label)^power * max(0, 1 - U / tau^2),    C(q) = |2q - 1|, U = var_k(log-odds_k)

    made to have a mean of 1. By teachers of equal labels U is 0: what is left are the weights of
    `confidence_weights`, or with power 0 the mean margin alone.

    Args:
        tau: in log-odds: where teachers' margins lie this far from their mean, a pair has no
            weight.
    """
    label = mean_margin(labels)
    spread = log_odds(labels).var(axis=0)
    weights = np.abs(2 * label - 1) ** power * np.maximum(0.0, 1 - spread / tau**2)
    mean = weights.mean()
    return Taught(label, weights / mean if mean > 0 else np.ones(len(label)))


@TREATMENTS.add("co_supervised")
def co_supervised(labels: np.ndarray, earlier: np.ndarray) -> Taught:
    """For each pair the label of the one teacher who fits the earlier student best (co-supervised
    learning, arXiv 2402.15505, its E-step; the student that learns from these is its M-step):

        k* = argmin_k -[y_k log p + (1 - y_k) log(1 - p)] = argmax_k (y_k - 1/2) * log-odds(p)

    with p the earlier student's label and y_k the teacher's. So a pair gets the teacher who is
    surest of the side that the student prefers; of two that say the same, the first.
    """
    fit = (labels - 0.5) * log_odds(earlier)  # (k, n)
    chosen = fit.argmax(axis=0)
    shares = np.bincount(chosen, minlength=len(labels)) / len(chosen)
    return Taught(labels[chosen, np.arange(len(chosen))], notes=by_teacher("share", shares))


def by_teacher(name: str, values: np.ndarray) -> dict[str, float]:
    """A note for each teacher, in the order of the experiment: `teacher_1_<name>`, ..."""
    return {f"teacher_{number}_{name}": float(value) for number, value in enumerate(values, 1)}
