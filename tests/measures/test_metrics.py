import time

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from src.common.errors import UserError
from src.measures import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def logistic(margins):
    return 1 / (1 + np.exp(-margins))


def test_correctness_counts_a_tie_as_half():
    np.testing.assert_array_equal(metrics.correctness(np.array([2.0, -1.0, 0.0])), [1, 0, 0.5])
    assert metrics.ties(np.array([2.0, 0.0, -0.0])) == 2


def test_a_margin_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match="1 of 2 margins"):
        metrics.correctness(np.array([1.0, np.nan]))


def test_accuracy_interval_equals_the_normal_approximation_without_clusters(rng):
    margins = rng.normal(0.5, 1, size=2000)
    found, = metrics.accuracies(margins[None], np.arange(2000))
    p = np.mean(margins > 0)
    half_width = 1.96 * np.sqrt(p * (1 - p) / 2000)
    assert found.estimate == p
    np.testing.assert_allclose([found.low, found.high], [p - half_width, p + half_width],
                               atol=0.05 * half_width)


def test_accuracy_interval_equals_the_cluster_robust_one(rng):
    sizes = rng.integers(1, 8, size=500)
    prompts = np.repeat(np.arange(500), sizes)
    margins = rng.normal(size=500)[prompts] + 0.5 * rng.normal(size=len(prompts)) + 0.4
    found, = metrics.accuracies(margins[None], prompts)
    right = (margins > 0).astype(float)
    residual_sums = np.bincount(prompts, right - right.mean())  # Liang and Zeger's sandwich
    half_width = 1.96 * np.sqrt(np.sum(residual_sums**2)) / len(prompts)
    np.testing.assert_allclose(found.high - found.low, 2 * half_width, rtol=0.05)
    naive, = metrics.accuracies(margins[None], np.arange(len(prompts)))
    assert found.high - found.low > 1.4 * (naive.high - naive.low)


def test_runs_are_resampled_together(rng):
    margins = rng.normal(size=(1, 300))
    first, second = metrics.accuracies(np.concatenate([margins, margins]), np.arange(300))
    assert first == second


def test_the_order_of_the_pairs_does_not_move_the_interval(rng):
    margins, prompts = rng.normal(size=(1, 300)), np.repeat(np.arange(100), 3)
    order = rng.permutation(300)
    assert (metrics.accuracies(margins, prompts)
            == metrics.accuracies(margins[:, order], prompts[order]))


def test_one_prompt_has_no_interval():
    found, = metrics.accuracies(np.array([[1.0, -1.0]]), np.array(["p", "p"]))
    assert found.estimate == 0.5 and np.isnan(found.low) and np.isnan(found.high)


def test_ten_thousand_samples_of_ten_thousand_prompts_take_seconds(rng):
    def seconds() -> float:
        start = time.process_time()
        metrics.accuracies(rng.normal(size=(3, 10_000)), np.arange(10_000))
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 5  # page faults of a first call are not the method's


@pytest.mark.parametrize("margins", [np.random.default_rng(1).normal(0.5, 2, size=400),
                                     np.random.default_rng(1).integers(-2, 4, size=400)])
def test_probabilistic_metrics_equal_scikit_learn(margins, rng):
    left = rng.random(400) < 0.5
    score = np.where(left, margins, -margins)
    assert metrics.auroc(margins, left) == pytest.approx(roc_auc_score(left, score), abs=1e-12)
    assert metrics.log_loss(margins) == pytest.approx(sklearn_log_loss(left, logistic(score)))
    assert metrics.brier(margins) == pytest.approx(brier_score_loss(left, logistic(score)))


def test_auroc_does_not_change_when_all_sides_are_swapped(rng):
    margins, left = rng.normal(0.3, 1, size=200), rng.random(200) < 0.5
    assert metrics.auroc(margins, left) == pytest.approx(metrics.auroc(margins, ~left), abs=1e-12)


def test_auroc_of_one_sided_pairs_is_missing():
    assert np.isnan(metrics.auroc(np.array([1.0, 2.0]), np.array([True, True])))


def test_log_loss_stays_finite_at_large_margins():
    assert metrics.log_loss(np.array([-2000.0, 2000.0])) == 1000.0
    assert metrics.brier(np.array([-2000.0, 2000.0])) == 0.5


def test_calibration_bins_hold_every_pair_once_and_leave_out_empty_bins():
    margins = np.array([0.0, 0.1, -0.1, 50.0, -50.0, 50.0, 50.0])
    first, last = metrics.calibration_bins(margins)
    assert (first.low, first.high, first.n) == (0.5, 0.55, 3)
    assert first.confidence == pytest.approx((0.5 + 2 * logistic(0.1)) / 3)
    assert first.accuracy == pytest.approx(0.5)
    assert (last.low, last.high, last.n, last.accuracy) == (0.95, 1.0, 4, 0.75)


def test_calibrated_margins_lie_on_the_diagonal(rng):
    size = rng.exponential(1.5, size=100_000)
    margins = np.where(rng.random(100_000) < logistic(size), size, -size)
    for found in metrics.calibration_bins(margins):
        assert found.accuracy == pytest.approx(found.confidence, abs=4 * 0.5 / np.sqrt(found.n))


def test_imitation_counts_a_small_table():
    teacher = np.array([1, 1, 1, -1, -1])
    student = np.array([1, 1, -1, -1, 1])
    found = metrics.imitation(student, teacher)
    assert found.agreement == pytest.approx(3 / 5)
    assert found.agreement_teacher_right == pytest.approx(2 / 3)
    assert found.agreement_teacher_wrong == pytest.approx(1 / 2)
    assert found.errors_inherited == pytest.approx(1 / 2)


def test_imitation_of_ties_is_what_fair_coins_give():
    found = metrics.imitation(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert found.agreement == 0.5
    assert found.agreement_teacher_right == pytest.approx((0.5 + 0.5) / 1.5)
    assert found.agreement_teacher_wrong == 0.0


def test_imitation_without_errors_has_missing_shares():
    found = metrics.imitation(np.array([1.0]), np.array([1.0]))
    assert np.isnan(found.agreement_teacher_wrong) and np.isnan(found.errors_inherited)


def test_calibration_error_weights_the_bins_by_their_pairs():
    bins = [(30, 0.6, 0.5), (10, 0.9, 1.0)]
    assert metrics.calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.1) / 40)
