"""Length bias against scipy, scikit-learn, closed forms and hand counts."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from src.measures.bootstrap import resampled_means, resampled_weights
from src.measures.length_bias import _ranks, length_bias

N = 400


def sample(seed=0, truth=1.0, length=0.0, longer=3.0):
    """Margins of a model that goes by truth and by length, on pairs whose chosen answer is longer
    by `longer` tokens on average; unique prompts."""
    draw = np.random.default_rng(seed)
    chosen = 30 + draw.integers(0, 20, N) + longer
    rejected = 30 + draw.integers(0, 20, N)
    margins = truth + length * (chosen - rejected) + draw.standard_normal(N)
    left = draw.random(N) < 0.5
    return margins, chosen, rejected, np.arange(N).astype(str), left


def measure(data, **options):
    return length_bias(*data, **{"samples": 200, **options})


def test_correlations_are_scipy_s():
    margins, chosen, rejected, _, left = data = sample(length=0.1)
    side = np.where(left, 1, -1)
    found, longer = measure(data), chosen - rejected
    for one, x, y in ((found.truth_order, margins, longer),
                      (found.by_hash, side * margins, side * longer)):
        assert one.pearson.estimate == pytest.approx(stats.pearsonr(x, y).statistic)
        assert one.spearman.estimate == pytest.approx(stats.spearmanr(x, y).statistic)
        assert one.pearson.low < one.pearson.estimate < one.pearson.high
        assert one.spearman.low < one.spearman.estimate < one.spearman.high


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_the_partial_correlation_is_that_of_residuals_on_the_label(kind):
    margins, chosen, rejected, _, left = data = sample(length=0.1)
    side = np.where(left, 1, -1)
    columns = np.stack([side * margins, side * (chosen - rejected)])
    if kind == "spearman":
        columns = stats.rankdata(columns, axis=1)
    label = side[:, None].astype(float)
    x, y = (column - LinearRegression().fit(label, column).predict(label) for column in columns)
    estimate = getattr(measure(data).given_label, kind).estimate
    assert estimate == pytest.approx(stats.pearsonr(x, y).statistic)


def test_with_every_pair_both_ways_round_the_partial_one_is_the_one_in_the_order_of_truth():
    margins, chosen, rejected, prompts, left = sample(length=0.1)
    doubled = [np.tile(part, 2) for part in (margins, chosen, rejected, prompts)]
    found = length_bias(*doubled, np.concatenate([left, ~left]), samples=200)
    longer = chosen - rejected
    assert found.given_label.pearson.estimate == pytest.approx(
        stats.pearsonr(margins, longer).statistic)
    assert found.by_hash.pearson.estimate == pytest.approx(
        margins @ longer / np.sqrt(margins @ margins * (longer @ longer)))


def test_a_model_that_knows_only_the_truth_is_biased_only_until_the_label_is_held_fixed():
    found = measure(sample(truth=3.0, length=0.0, longer=10.0))
    assert found.by_hash.pearson.low > 0.3
    assert found.given_label.pearson.low < 0 < found.given_label.pearson.high


def test_a_model_that_counts_tokens_correlates_whatever_is_held_fixed():
    margins, chosen, rejected, prompts, left = sample()
    found = length_bias(0.5 * (chosen - rejected), chosen, rejected, prompts, left, samples=200)
    for one in (found.truth_order, found.by_hash, found.given_label):
        assert (one.pearson.estimate, one.spearman.low) == pytest.approx((1, 1), abs=0.02)
    assert found.prefers_longer.estimate == pytest.approx(
        1 - 0.5 * np.mean(chosen == rejected))


def test_the_interval_of_a_correlation_is_near_fisher_s():
    """Normal data, one pair a prompt: tanh(atanh(r) +- 1.96 / sqrt(n - 3))."""
    draw = np.random.default_rng(4)
    x = draw.standard_normal(N)
    margins = 0.6 * x + 0.8 * draw.standard_normal(N)
    found = length_bias(margins, 100 + x, np.full(N, 100.0), np.arange(N).astype(str),
                        draw.random(N) < 0.5, samples=2000).truth_order.pearson
    fisher = np.tanh(np.arctanh(found.estimate) + np.array([-1.96, 1.96]) / np.sqrt(N - 3))
    assert (found.low, found.high) == pytest.approx(tuple(fisher), abs=0.015)


def test_pairs_that_share_a_prompt_count_as_one_draw():
    margins, chosen, rejected, _, left = sample(length=0.1)
    alone = measure(sample(length=0.1), samples=1000).truth_order.pearson
    copies = [np.repeat(part, 4) for part in (margins, chosen, rejected, np.arange(N), left)]
    fourfold = length_bias(*copies, samples=1000).truth_order.pearson
    assert fourfold.high - fourfold.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_accuracy_where_the_longer_the_equal_and_the_shorter_answer_is_chosen():
    margins = np.array([2.0, -1.0, 0.0, 3.0, 1.0, -2.0])
    chosen = np.array([9, 9, 9, 5, 5, 3])
    rejected = np.array([4, 4, 4, 5, 7, 7])
    found = length_bias(margins, chosen, rejected, np.array(list("aabbcd")), np.ones(6, bool),
                        samples=200)
    assert [(group.n, group.accuracy.estimate) for group in found.groups] == [
        (3, 0.5), (1, 1.0), (2, 0.5)]
    assert found.longer_wins.estimate == pytest.approx(3.5 / 6)  # three right, one half
    # Longer is preferred where the margin has the sign of the difference: yes, no, tie, equal,
    # no, yes.
    assert found.prefers_longer.estimate == pytest.approx((1 + 0 + 0.5 + 0.5 + 0 + 1) / 6)
    assert found.n == 6


def test_longer_wins_is_the_mirror_of_the_rule_that_the_shorter_wins():
    margins, chosen, rejected, prompts, left = sample()
    swapped = length_bias(-margins, rejected, chosen, prompts, left, samples=200)
    found = measure(sample())
    assert swapped.longer_wins.estimate == pytest.approx(1 - found.longer_wins.estimate)
    assert swapped.prefers_longer.estimate == pytest.approx(found.prefers_longer.estimate)


def test_what_does_not_vary_has_no_correlation():
    margins, _, _, prompts, left = sample()
    flat = length_bias(margins, np.full(N, 7), np.full(N, 5), prompts, left, samples=200)
    assert np.isnan(flat.truth_order.pearson.estimate) and np.isnan(
        flat.truth_order.spearman.high)
    assert np.isnan(flat.given_label.pearson.estimate)  # the length difference is the label
    assert flat.by_hash.pearson.estimate > 0  # but it varies once the sides are drawn


def test_one_prompt_leaves_nothing_to_resample():
    margins, chosen, rejected, _, left = sample(length=0.1)
    found = length_bias(margins, chosen, rejected, np.repeat("a", N), left, samples=200)
    assert found.truth_order.pearson.estimate == pytest.approx(
        stats.pearsonr(margins, chosen - rejected).statistic)
    assert np.isnan(found.truth_order.pearson.low) and np.isnan(found.longer_wins.low)


def test_weighted_ranks_are_those_of_repeated_values():
    values, weights = np.array([3.0, 1.0, 3.0, 2.0]), np.array([2, 1, 0, 3])
    places = np.unique(values, return_inverse=True)[1]
    found = np.repeat(_ranks(places, weights.astype(float)), weights)
    assert found + 0.5 == pytest.approx(stats.rankdata(np.repeat(values, weights)))


def test_resampled_weights_are_the_samples_of_resampled_means():
    values = np.random.default_rng(1).standard_normal(30)
    prompts = np.repeat(np.arange(10), 3)
    means = [weights @ values / weights.sum() for weights in
             resampled_weights(prompts, samples=50, seed=3)]
    assert means == pytest.approx(resampled_means(values[None], prompts, samples=50, seed=3)[:, 0])
