"""Mixtures of several teachers' labels whose weights are learned, beside a linear student on the
hidden states of the student's own base.

The student that is fine-tuned then learns from the mixture. In the literature the weights are
learned with it, by its own gradients; a linear one finds them before, from arrays alone, so that
they cost no training run and are known of before one begins.

By one teacher, or by several that say the same, the labels are those of each, bit for bit. A pair
whose sides are swapped has the opposite features and labels, and no weight changes.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from configs.field_types import Count, NotNegative, Positive
from src.methods.experts import by_teacher
from src.methods.label_treatments import TREATMENTS, Taught
from src.methods.linear_probe import cross_entropy, fit, out_of_fold, scaled
from src.methods.log_odds import sigmoid

LEAST_WEIGHT = 1e-6


@TREATMENTS.add("raven")
def raven(labels: np.ndarray, features: np.ndarray, prompt: np.ndarray, seed: int,
          rounds: Count = 10, rate: Positive = 0.5) -> Taught:
    """sum_k w_k y_k, with one weight a teacher on the simplex (RAVEN, arXiv 2510.21332).

    The linear student begins with the pairs whose teachers all prefer one side, by their mean. Then
    each round takes a step down the slope of its mean cross-entropy in the weights, which for w_k
    is that against teacher k,

        w <- w - rate * CE(student, y_k);    w <- max(w, 1e-6);    w <- w / sum w

    and fits the student again, to the mixture of all pairs. How far it is held back is what does
    best out of fold on the first pairs. The slope does not depend on the weights, so enough rounds
    always end with one teacher, whose labels the features bear out best: `rate` times `rounds` is
    how far they go towards it.
    """
    weights = np.full(len(labels), 1 / len(labels))
    features, _ = scaled(features)
    first = ((labels > 0.5) == (labels[0] > 0.5)).all(axis=0) & (labels != 0.5).all(axis=0)
    first = first if first.any() else np.ones_like(first)
    _, strength = out_of_fold(features[first], mixed(labels, weights)[first], prompt[first], seed)
    student = fit(features[first], mixed(labels, weights)[first], strength)
    for _ in range(rounds):
        margins = features @ student
        weights = on_simplex(weights - rate * np.array([
            cross_entropy(margins, label) for label in labels]))
        student = fit(features, mixed(labels, weights), strength)
    return Taught(mixed(labels, weights), notes=by_teacher("weight", weights))


@TREATMENTS.add("gate")
def gate(labels: np.ndarray, features: np.ndarray, prompt: np.ndarray, seed: int,
         inputs: Count = 8, balance: NotNegative = 0.1, decay: Positive = 0.01) -> Taught:
    """sum_k a_k y_k, with weights of its own for each pair: a mixture of experts (Jacobs et al.
    1991, Neural Computation 3(1)) whose gate is a = softmax(W g).

    g is 1 and, on the `inputs` first principal axes of the features, how far the pair lies from 0,
    in root mean squares. It has no sign, so that sides do not show in it. W and a linear student v
    minimise together, from an even mixture on,

        mean CE(sigmoid(v.x), sum_k a_k y_k) + |v|^2 / (2 n strength)
            + balance * (k * sum_k mean(a_k)^2 - 1) + decay / 2 * |W|^2

    where `balance` keeps all teachers in use (0 for even load, k - 1 where one has it all), and
    strength is what does best out of fold for the teachers' mean.
    """
    features, _ = scaled(features)
    even = np.full(len(labels), 1 / len(labels))
    _, strength = out_of_fold(features, mixed(labels, even), prompt, seed)
    seen = gate_inputs(features, inputs)
    begin = np.concatenate([fit(features, mixed(labels, even), strength),
                            np.zeros(len(labels) * seen.shape[1])])
    found = minimize(gate_objective, begin, jac=True, method="L-BFGS-B", args=(
        labels, features, seen, 1 / (len(features) * strength), balance, decay))
    log_choice = log_softmax(seen @ _gate_of(found.x, features, seen).T, axis=1).T  # (k, n)
    choice = np.exp(log_choice)
    return Taught(mixed(labels, choice), notes={
        **by_teacher("load", choice.mean(axis=1)),
        "choice_entropy": float(-(choice * log_choice).sum(axis=0).mean())})


def mixed(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,): sum_k w_k y_k of labels (k, n) by weights (k,) or (k, n) that sum to 1; exactly the
    first where all are equal."""
    weights = weights if weights.ndim == 2 else weights[:, None]
    return np.clip(labels[0] + (weights * (labels - labels[0])).sum(axis=0), 0.0, 1.0)


def on_simplex(weights: np.ndarray) -> np.ndarray:
    """Clamped to at least LEAST_WEIGHT, and divided by their sum."""
    weights = np.maximum(weights, LEAST_WEIGHT)
    return weights / weights.sum()


def gate_inputs(features: np.ndarray, count: int) -> np.ndarray:
    """(n, 1 + m): 1, and the size of each pair's projections on the m first principal axes about 0,
    each divided by its root mean square."""
    _, axes = np.linalg.eigh(features.T @ features)
    projected, _ = scaled(features @ axes[:, ::-1][:, :count])
    return np.column_stack([np.ones(len(features)), np.abs(projected)])


def gate_objective(parameters: np.ndarray, labels: np.ndarray, features: np.ndarray,
                   seen: np.ndarray, penalty: float, balance: float,
                   decay: float) -> tuple[float, np.ndarray]:
    """What `gate` minimises, and its gradient by v (d,) and W (k, 1 + m), one after the other."""
    count, (experts, width) = len(features), (len(labels), features.shape[1])
    student, weights = parameters[:width], _gate_of(parameters, features, seen)
    choice = np.exp(log_softmax(seen @ weights.T, axis=1)).T  # (k, n)
    margins, label, load = features @ student, mixed(labels, choice), choice.mean(axis=1)
    value = (cross_entropy(margins, label) + penalty / 2 * student @ student
             + balance * (experts * load @ load - 1) + decay / 2 * np.square(weights).sum())
    by_student = (sigmoid(margins) - label) @ features / count + penalty * student
    by_choice = (2 * balance * experts * load[:, None] - margins * (labels - labels[0])) / count
    by_logit = choice * (by_choice - (choice * by_choice).sum(axis=0))
    return value, np.concatenate([by_student, (by_logit @ seen + decay * weights).ravel()])


def _gate_of(parameters: np.ndarray, features: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(k, 1 + m): W among the parameters."""
    return parameters[features.shape[1]:].reshape(-1, seen.shape[1])
