"""Figures of judged policies, each against an independent way to the same number."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs.schema import EvalConfig
from src.measures.policies.best_of import expected_best, picked
from src.measures.policies.length_control import fit, length_controlled, scaled
from src.measures.policies.paired import Answers, Reference, fitted_tau, paired
from src.measures.policies.tables import (
    Judged,
    best_of_table,
    comparison_table,
    policy_table,
    with_best_of,
)
from src.methods.log_odds import sigmoid

RNG = np.random.default_rng(3)
PROMPTS = np.arange(200)
OPTIONS = {"samples": 400, "level": 0.95}


def test_the_length_controlled_fit_is_the_logistic_regression_of_soft_labels():
    longer = RNG.normal(3, 8, 300)
    q = sigmoid(0.4 + 0.9 * np.tanh(longer / 8) + RNG.normal(0, 1, 300))
    x = scaled(longer)
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(x, 2)[:, None], np.repeat([1, 0], 300), np.concatenate([q, 1 - q]))
    theta, phi = fit(q, x, np.ones((1, 300)))[0]
    assert np.allclose([theta, phi], [peer.intercept_[0], peer.coef_[0, 0]], atol=1e-5)
    rate, slope = length_controlled(q, longer, np.arange(300), **OPTIONS)
    assert rate.estimate == pytest.approx(sigmoid(theta)) and slope == pytest.approx(phi)
    assert rate.low < rate.estimate < rate.high


def test_wins_that_are_length_alone_are_half_at_equal_length():
    longer = RNG.normal(10, 8, 4000)
    q = sigmoid(2 * np.tanh(longer / longer.std()))
    rate, phi = length_controlled(q, longer, np.arange(4000), **OPTIONS)
    assert q.mean() > 0.7 and rate.estimate == pytest.approx(0.5, abs=1e-6)
    assert phi == pytest.approx(2)


def test_answers_of_one_length_keep_their_win_rate():
    q = RNG.random(100)
    rate, _ = length_controlled(q, np.full(100, 7.0), np.arange(100), **OPTIONS)
    assert rate.estimate == pytest.approx(q.mean(), abs=1e-6)


@pytest.mark.parametrize("q", [0.0, 1.0])
def test_a_policy_that_always_wins_or_loses_has_a_finite_fit(q):
    rate, _ = length_controlled(np.full(50, q), np.zeros(50), np.arange(50), **OPTIONS)
    assert rate.estimate == pytest.approx(q, abs=1e-6)


def test_the_expected_best_is_the_mean_over_all_subsets():
    picking, values = RNG.normal(size=(2, 3, 6))
    for size, found in zip((1, 2, 4, 6), expected_best(picking, values, (1, 2, 4, 6)), strict=True):
        subsets = [list(subset) for subset in itertools.combinations(range(6), size)]
        for row in range(3):
            each = [values[row, max(subset, key=lambda i: picking[row, i])] for subset in subsets]
            assert found[row] == pytest.approx(np.mean(each))
    assert np.array_equal(picked(picking), picking.argmax(axis=1))


def test_a_tau_that_was_planted_is_found():
    margins = RNG.normal(0, 4, 40_000)
    truth = np.where(RNG.random(40_000) < sigmoid(margins / 2.5), 1, -1)
    assert fitted_tau(truth * margins) == pytest.approx(2.5, rel=0.05)


def test_before_and_after_swapped_mirror_every_figure():
    before, after = RNG.normal(0, 2, (3, 200)), RNG.normal(0.3, 2, (3, 200))
    after[:, :20] = before[:, :20]
    reference, tau = Reference.of(before), np.ones(3)
    one = paired(before, after, reference, tau, PROMPTS, **OPTIONS)
    other = paired(after, before, reference, tau, PROMPTS, **OPTIONS)
    assert (one.better, one.worse, one.ties) == (other.worse, other.better, other.ties)
    assert one.better + one.worse + one.ties == 600 and one.ties >= 60
    assert one.difference.estimate == pytest.approx(-other.difference.estimate)
    assert one.win_rate.estimate == pytest.approx(1 - other.win_rate.estimate)
    assert one.soft_win_rate.estimate == pytest.approx(1 - other.soft_win_rate.estimate)
    assert one.sign_p == other.sign_p and one.wilcoxon_p == pytest.approx(other.wilcoxon_p)
    z = (after - before) / before.std(axis=1, keepdims=True)
    assert one.difference.estimate == pytest.approx(z.mean())


def test_a_policy_against_itself_is_all_ties():
    rewards = RNG.normal(size=(2, 200))
    found = paired(rewards, rewards, Reference.of(rewards), np.ones(2), PROMPTS, **OPTIONS)
    assert (found.ties, found.win_rate.estimate, found.difference.low) == (400, 0.5, 0.0)
    assert np.isnan(found.wilcoxon_p)


def judged(student_gain: float) -> Judged:
    """Three seeds, 200 prompts; judges whose rewards have different zeros and scales."""
    rng = np.random.default_rng(1)
    scale, zero = np.array([1.0, 3.0, 0.5])[:, None], np.array([0.0, 7.0, -2.0])[:, None]

    def answers(gain: float, proxy: bool) -> Answers:
        rewards = zero + scale * rng.normal(gain, 1, (3, 200))
        ones = np.ones((3, 200))
        return Answers(rewards, 5 * ones, 20 * ones, ones > 0, 0.3 * ones,
                       rewards if proxy else None)

    drawn = zero[..., None] + scale[..., None] * rng.normal(0, 1, (3, 200, 4))
    counts = np.ones((3, 200, 4))
    return Judged("made", "ceiling", (0, 1, 2), PROMPTS, {
        ("sft", "gt"): answers(0, False), ("dpo", "teacher"): answers(0.5, True),
        ("dpo", "student"): answers(0.5 + student_gain, True)},
        {"teacher": drawn[..., 0], "student": drawn[..., 0]}, {
        "judge": drawn, "teacher": drawn + rng.normal(0, 1, drawn.shape), "student": drawn},
        counts, counts, counts > 0, np.ones(3))


@pytest.mark.parametrize(("gain", "said"), [(0.8, "yes"), (-0.8, "no"), (0.0, "not told")])
def test_the_comparison_says_what_was_planted(gain, said):
    table = comparison_table(judged(gain), EvalConfig(bootstrap_samples=400))
    row = table.iloc[0]
    assert (row.policy, row.student_better, row.seeds, row.n) == ("dpo", said, "0 1 2", 200)
    assert row.difference == pytest.approx(gain, abs=0.2)


def test_rewards_are_told_in_the_judges_own_standard_deviations():
    table = policy_table(judged(0.8), EvalConfig(bootstrap_samples=400)).set_index(
        ["policy", "labels"])
    assert table.reward["sft", "gt"] == pytest.approx(0, abs=1e-9)
    assert table.reward_sd["sft", "gt"] == pytest.approx(1)
    assert table.difference["dpo", "teacher"] == pytest.approx(0.5, abs=0.15)
    assert (table.length_controlled_rate - table.soft_win_rate).abs().max() < 1e-6  # one length


def test_the_best_of_more_answers_is_better_by_the_model_that_picks():
    found = judged(0.0)
    table = best_of_table(found, (1, 2, 4), EvalConfig(bootstrap_samples=400))
    for _, own in table.groupby("labels"):
        assert (np.diff(own.proxy_reward) > 0).all() and (np.diff(own.reward) > 0).all()
    row = with_best_of(found, 4).policies["best_of_4", "student"]
    assert np.array_equal(row.rewards, found.drawn["judge"].max(axis=-1))
    assert np.allclose(row.log_ratio, np.log(4) - 0.75)
