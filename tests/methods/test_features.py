"""Treatments that learn from the features of pairs, against scikit-learn, closed forms and data
that is drawn from their own model."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from src.methods.em_posterior import channel, em_posterior
from src.methods.linear_probe import STRENGTHS, cross_entropy, fit, out_of_fold, scaled
from src.methods.overlap import density, overlap

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 3)) * [1.0, 10.0, 0.1]
Q = DRAW.uniform(size=40)
PROMPT = np.arange(40) // 2


def test_a_probe_minimises_its_loss():
    weights = DRAW.uniform(size=40)

    def loss(w):
        margins = X @ w
        return w @ w / 2 + 0.3 * (weights * (np.logaddexp(0, margins) - Q * margins)).sum()

    expected = minimize(loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(fit(X, Q, 0.3, weights), expected, atol=1e-5)


def test_a_probe_of_hard_labels_is_scikit_learn_s():
    hard = (Q > 0.5) * 1.0
    plain = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(X, hard)
    np.testing.assert_allclose(fit(X, hard, 2.0), plain.coef_[0], atol=1e-4)


def test_features_are_scaled_and_not_shifted():
    found, size = scaled(np.array([[3.0, 0.0], [4.0, 0.0]]))
    assert size.tolist() == [np.sqrt(12.5), 1.0]
    np.testing.assert_allclose(found, [[3 / size[0], 0], [4 / size[0], 0]])


def test_the_margin_of_a_pair_is_that_of_a_probe_that_did_not_see_its_prompt_s_labels():
    """They change nothing of it, at a strength that fits both."""
    labels = expit(2 * X[:, 0])
    changed = np.where(PROMPT == 7, 1 - labels, labels)
    (margins, strength), (again, other) = (out_of_fold(X, each, PROMPT, 1)
                                           for each in (labels, changed))
    assert strength == other and strength in STRENGTHS
    assert (again == margins)[PROMPT == 7].all() and (again != margins).any()
    assert cross_entropy(margins, labels) == pytest.approx(log_loss(
        np.tile([1, 0], 40), np.repeat(expit(margins), 2),
        sample_weight=np.stack([labels, 1 - labels], 1).ravel()))
    assert not out_of_fold(X, labels, np.zeros(40), 1)[0].any()


def test_a_direction_that_decides_labels_is_found_with_a_strength_that_fits_their_number():
    x = DRAW.normal(size=(600, 5))
    labels = expit(3 * x[:, 0])
    margins, strength = out_of_fold(x, labels, np.arange(600), seed=0)
    assert ((margins > 0) == (labels > 0.5)).mean() > 0.97
    noise, weak = out_of_fold(x, DRAW.permutation(labels), np.arange(600), seed=0)
    assert weak < strength and np.abs(noise).mean() < 0.2


def test_overlap_density_of_four_pairs_by_hand():
    """Two pairs along one axis agree with their neighbour, two along the other do not."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    label, prompt = np.array([0.9, 0.1, 0.9, 0.9]), np.arange(4)
    # The second pair is the first with its sides swapped; the fourth contradicts the third. To the
    # nearest one all cosines are 1.
    agreement = np.array([0.64, 0.64, -0.64, -0.64])
    margins, _ = out_of_fold(x, label, prompt, 0)
    p = expit(margins)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    parts = [np.abs(2 * p - 1), agreement, -np.abs(entropy - np.median(entropy))]
    expected = sum((part - part.mean()) / part.std() for part in parts if part.std() > 1e-12)
    np.testing.assert_allclose(density(label, x, prompt, 0, 1), expected, atol=1e-9)
    kept = overlap(label, x, prompt, 0, keep_share=0.5, neighbours=1).kept
    assert kept.tolist() == [True, True, False, False]


def test_where_labels_follow_features_those_that_do_not_are_dropped():
    x = np.random.default_rng(2).normal(size=(400, 4))
    clear = np.arange(400) < 200
    label = np.where(clear, expit(3 * x[:, 0]), np.random.default_rng(3).uniform(size=400))
    kept = overlap(label, x, np.arange(400), 0).kept
    assert kept.sum() == 200 and kept[clear].mean() > kept[~clear].mean() + 0.15


def drawn(pairs, seed=0):
    """Truth, weak labels and features as the model of em_posterior has them, and a . s."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(pairs, 6))
    truth = draw.random(pairs) < expit(1.5 * x[:, 2] - x[:, 3])
    sure = draw.uniform(0.2, 2.5, size=pairs)
    right = sure - 0.3
    left = truth == (draw.random(pairs) < expit(right))
    return truth * 1.0, expit(np.where(left, sure, -sure)), x, right


@pytest.mark.parametrize("seed", [0, 1])
def test_on_data_from_its_own_model_the_posterior_beats_the_weak_labels(seed):
    truth, label, x, _ = drawn(2000, seed)
    found = em_posterior(label, x, np.arange(2000), seed=0)
    assert log_loss(truth, found) < log_loss(truth, label) - 0.03
    assert ((found > 0.5) == truth).mean() > ((label > 0.5) == truth).mean() + 0.02


def test_a_channel_whose_truth_is_known_is_found():
    truth, label, _, right = drawn(20_000)
    same = np.column_stack([np.ones(len(truth)), np.abs(logit(label))])
    found = channel(np.sign(label - 0.5), same, truth)
    np.testing.assert_allclose(found, [-0.3, 1.0], atol=0.1)
    np.testing.assert_allclose(same @ found, right, atol=0.1)


def test_a_teacher_that_decides_nothing_is_right_half_of_the_time():
    found = channel(np.zeros(30), np.ones((30, 1)), Q[:30])
    np.testing.assert_allclose(found, 0, atol=1e-9)
