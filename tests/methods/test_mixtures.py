"""Learned mixtures of teachers against plain forms, and what they find where it is known."""

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from scipy.special import expit, softmax

from configs.schema import MethodConfig
from src.methods.labelling import treat
from src.methods.linear_probe import scaled
from src.methods.mixtures import gate_inputs, gate_objective, mixed, on_simplex

DRAW = np.random.default_rng(0)
N = 400
FEATURES = DRAW.standard_normal((N, 6)) * np.array([1.0, 2, 0.5, 1, 1, 3])
TRUTH = expit(FEATURES @ np.array([1.5, -0.5, 1.0, 0.0, 0.5, 0.0]))
FAR = np.abs(FEATURES[:, 5]) > np.median(np.abs(FEATURES[:, 5]))
"""Pairs that lie far out on the axis of the most variance."""


def treated(name, labels, features=FEATURES, **options):
    given = {"labels": labels, "features": features, "seed": 0,
             "prompt": np.arange(len(features))}
    return treat(MethodConfig("m", treatment=name, treatment_options=options), given)


def noise(seed):
    return np.random.default_rng(seed).uniform(0.05, 0.95, N)


def error(labels):
    return np.abs(labels - TRUTH).mean()


def test_a_mixture_is_the_weighted_mean_and_exactly_the_label_where_all_are_equal():
    labels, weights = DRAW.uniform(size=(3, 20)), np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(mixed(labels, weights), weights @ labels)
    each = softmax(DRAW.standard_normal((3, 20)), axis=0)
    np.testing.assert_allclose(mixed(labels, each), (each * labels).sum(axis=0))
    assert np.array_equal(mixed(labels[[1, 1, 1]], each), labels[1])


def test_weights_on_the_simplex_are_clamped_and_sum_to_1():
    found = on_simplex(np.array([-2.0, 0.5, 1.5]))
    np.testing.assert_allclose(found, [0.5e-6, 0.25, 0.75], rtol=1e-5)
    assert found.sum() == pytest.approx(1)


def test_raven_gives_the_weight_to_the_teacher_that_features_bear_out():
    labels = np.stack([noise(1), TRUTH, noise(2)])
    found = treated("raven", labels)
    assert list(found.notes) == ["teacher_1_weight", "teacher_2_weight", "teacher_3_weight"]
    weights = list(found.notes.values())
    assert sum(weights) == pytest.approx(1) and weights[1] > 0.9
    np.testing.assert_allclose(found.labels, weights @ labels)
    assert error(found.labels) < 0.25 * error(labels.mean(axis=0))


def test_raven_s_first_step_is_down_the_slope_of_the_cross_entropy_by_the_weights():
    """The slope from scipy, at a student that a general minimiser fits to agreeing pairs."""
    labels = np.stack([TRUTH, np.clip(TRUTH + DRAW.normal(0, 0.2, N), 0.01, 0.99)])
    found = treated("raven", labels, rounds=1, rate=0.3)
    first = (labels[0] > 0.5) == (labels[1] > 0.5)
    features, _ = scaled(FEATURES)

    def entropy(student, label, rows):
        margins = features[rows] @ student
        return np.logaddexp(0, margins) - label[rows] * margins

    strength = 10.0  # what does best out of fold here, checked by the equality below
    student = minimize(lambda v: v @ v / 2 + strength * entropy(
        v, labels.mean(axis=0), first).sum(), np.zeros(6), method="BFGS").x
    slope = np.array([entropy(student, label, slice(None)).mean() for label in labels])
    stepped = 0.5 - 0.3 * slope
    np.testing.assert_allclose(list(found.notes.values()), stepped / stepped.sum(), atol=2e-4)


def test_teachers_that_never_agree_are_mixed_from_all_pairs():
    labels = np.stack([TRUTH, 1 - TRUTH])
    assert treated("raven", labels).notes["teacher_1_weight"] == pytest.approx(0.5, abs=1e-6)


def test_the_gate_sends_pairs_to_the_teacher_that_is_right_there():
    labels = np.stack([np.where(FAR, TRUTH, noise(1)), np.where(FAR, noise(2), TRUTH)])
    found = treated("gate", labels, decay=1e-4)
    assert error(found.labels) < 0.75 * error(labels.mean(axis=0))
    first = (found.labels - labels[1]) / (labels[0] - labels[1])  # the weight of the first
    assert first[FAR].mean() > first[~FAR].mean() + 0.3
    loads = [found.notes["teacher_1_load"], found.notes["teacher_2_load"]]
    assert sum(loads) == pytest.approx(1) and min(loads) > 0.3
    assert 0 < found.notes["choice_entropy"] < np.log(2)


def test_balance_keeps_a_teacher_in_use_that_the_gate_would_leave():
    labels = np.stack([noise(1), TRUTH])
    loads = [treated("gate", labels, balance=balance, decay=1e-4).notes["teacher_1_load"]
             for balance in (0.0, 1.0, 100.0)]
    assert loads[0] < 0.05 < loads[1] < loads[2] and loads[2] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_gate_s_gradient_is_that_of_its_objective(scale):
    labels, features = DRAW.uniform(size=(3, 30)), FEATURES[:30]
    seen = gate_inputs(features, 2)
    point = scale * DRAW.standard_normal(6 + 3 * 3)
    given = (labels, features, seen, 0.1, 0.7, 0.03)
    assert check_grad(lambda at: gate_objective(at, *given)[0],
                      lambda at: gate_objective(at, *given)[1], point) < 1e-5


def test_gate_inputs_are_blind_to_the_sides_of_pairs():
    turned = FEATURES * np.where(DRAW.random(N) < 0.5, 1, -1)[:, None]
    seen = gate_inputs(FEATURES, 4)
    assert seen.shape == (N, 5)
    np.testing.assert_allclose(gate_inputs(turned, 4), seen)
    np.testing.assert_allclose(np.square(seen).mean(axis=0), 1)
