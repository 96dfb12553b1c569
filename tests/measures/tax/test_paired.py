"""Intervals of base, tuned and their difference, by closed form."""

import numpy as np
import pytest

from src.measures.tax.paired import compared, language_tax

RNG = np.random.default_rng(0)


def test_a_model_beside_itself_differs_by_nothing_with_no_interval():
    values = RNG.gamma(2, size=50)
    found = compared("text", "nats", values, values)
    assert found.difference.low == found.difference.high == found.difference.estimate == 0
    assert found.base == found.tuned


def test_intervals_are_those_of_normal_means_and_of_paired_differences():
    base = RNG.normal(3, 1, 400)
    tuned = base + RNG.normal(0.5, 0.2, 400)
    found = compared("text", "nats", base, tuned)
    for span, values in ((found.base, base), (found.difference, tuned - base)):
        half = 1.96 * values.std() / 20
        assert span.estimate == pytest.approx(values.mean())
        assert span.high - span.low == pytest.approx(2 * half, rel=0.06)


def test_bits_are_nats_over_log_2_and_bytes_not_a_mean_of_ratios():
    nats, tokens, size = np.array([10.0, 40.0]), np.array([5, 5]), np.array([10, 30])
    per_token, per_byte = language_tax("text", nats, 2 * nats, tokens, size)
    assert per_token.base.estimate == 5 and per_token.tuned.estimate == 10
    assert per_byte.base.estimate == pytest.approx(50 / np.log(2) / 40)
    assert per_byte.difference.estimate == pytest.approx(50 / np.log(2) / 40)
