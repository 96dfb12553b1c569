"""CKA, cosine, weight change and slopes against closed forms and other libraries."""

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from src.measures.change.layers import (
    depth_order,
    depth_slope,
    linear_cka,
    mean_cosine,
    over_seeds,
    relative_change,
    side_by_side,
)

RNG = np.random.default_rng(0)
STATES = RNG.standard_normal((500, 8)) * np.arange(1, 9)
TURN, _ = np.linalg.qr(RNG.standard_normal((8, 8)))


def test_cka_is_one_for_a_rotation_a_scale_and_a_shift():
    assert linear_cka(STATES, 3 * STATES @ TURN + 5) == pytest.approx(1)


def test_cka_is_that_of_centred_kernels():
    """The kernel form of HSIC, computed over pairs of tokens."""
    other = STATES @ RNG.standard_normal((8, 5)) + RNG.standard_normal((500, 5))
    centre = np.eye(500) - 1 / 500
    kernels = [centre @ states @ states.T @ centre for states in (STATES, other)]
    hsic = [[np.sum(one * two) for two in kernels] for one in kernels]
    assert linear_cka(STATES, other) == pytest.approx(hsic[0][1] / np.sqrt(hsic[0][0] * hsic[1][1]))


def test_cka_of_independent_noise_is_small_and_falls_with_tokens():
    one, two = RNG.standard_normal((2, 5000, 10))
    few, many = linear_cka(one[:50], two[:50]), linear_cka(one, two)
    assert many < 0.01 < few < 0.4


def test_cka_of_what_does_not_vary_is_missing():
    assert np.isnan(linear_cka(STATES, np.ones((500, 3))))


def test_cosine_is_one_for_a_scale_and_its_angle_for_a_turn():
    assert mean_cosine(STATES, 2 * STATES) == pytest.approx(1)
    plane = RNG.standard_normal((100, 2))
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert mean_cosine(plane, plane @ turn) == pytest.approx(np.cos(angle))


def test_weights_change_by_the_norm_of_all_tensors_together():
    before = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    after = {"a": np.array([3.0, 1.0]), "b": np.array([[4.0]])}
    assert relative_change(before, after) == pytest.approx(1 / 5)


def test_slopes_and_order_over_depth():
    assert depth_slope([1, 2, 3]) == pytest.approx(2) and depth_order([1, 2, 9]) == 1
    assert depth_order([9, 2, 1]) == -1
    assert np.isnan(depth_slope([1])) and np.isnan(depth_order([1, 2]))
    assert np.isnan(depth_order([1, 1, 1]))


def test_the_interval_over_seeds_is_student_s():
    values = [0.1, 0.3, 0.2, 0.5, 0.15]
    span = over_seeds(values, 0.95)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (span.low, span.high) == pytest.approx(tuple(expected))
    resampled = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    assert span.low < resampled.low and resampled.high < span.high  # which few seeds flatter
    alone = over_seeds([0.1], 0.95)
    assert alone.estimate == 0.1 and np.isnan(alone.low) and np.isnan(alone.high)


def test_a_picture_is_the_same_each_time_and_keeps_far_clouds_apart():
    before, after = RNG.standard_normal((2, 40, 5))
    points = side_by_side(before, after + 50, seed=0)
    assert np.array_equal(points, side_by_side(before, after + 50, seed=0))
    centres = points[:40].mean(axis=0), points[40:].mean(axis=0)
    spread = np.linalg.norm(points[:40] - centres[0], axis=1).mean()
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread
