"""Slopes against numpy's, and intervals that know what a cluster is."""

import numpy as np
import pytest

from src.measures.comparisons.regression import FEWEST_CLUSTERS, clustered_slope


def cloud(rng, clusters=8, each=6, slope=2.0):
    index = np.repeat(np.arange(clusters), each)
    x = rng.standard_normal(clusters)[index] + 0.5 * rng.standard_normal(len(index))
    y = slope * x + rng.standard_normal(clusters)[index] + 0.3 * rng.standard_normal(len(index))
    return x, y, np.array([f"e{place}" for place in index])


def test_one_predictor_gives_the_line_of_polyfit():
    x, y, clusters = cloud(np.random.default_rng(0))
    found = clustered_slope(y, [x], clusters, samples=500)
    assert found.span.estimate == pytest.approx(np.polyfit(x, y, 1)[0])
    assert found.points == 48 and found.clusters == 8
    assert found.span.low < found.span.estimate < found.span.high


def test_a_second_predictor_is_held_fixed():
    rng = np.random.default_rng(1)
    x, y, clusters = cloud(rng)
    z = 0.7 * x + rng.standard_normal(len(x))
    design = np.column_stack([x, z, np.ones(len(x))])
    expected = np.linalg.lstsq(design, y + 3 * z, rcond=None)[0][0]
    assert clustered_slope(y + 3 * z, [x, z], clusters, samples=100).span.estimate == pytest.approx(
        expected)


def test_within_clusters_is_a_regression_with_an_intercept_each():
    x, y, clusters = cloud(np.random.default_rng(2))
    design = np.column_stack([x, *(clusters == name for name in np.unique(clusters))])
    expected = np.linalg.lstsq(design.astype(float), y, rcond=None)[0][0]
    assert clustered_slope(y, [x], clusters, within=True, samples=100).span.estimate == (
        pytest.approx(expected))


def test_copies_inside_a_cluster_tell_nothing_new():
    x, y, clusters = cloud(np.random.default_rng(3))
    once = clustered_slope(y, [x], clusters, samples=500).span
    copied = clustered_slope(np.repeat(y, 5), [np.repeat(x, 5)], np.repeat(clusters, 5),
                             samples=500).span
    assert [copied.low, copied.high] == pytest.approx([once.low, once.high])


def test_its_interval_covers_the_slope_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    spans = [clustered_slope(y, [x], clusters, samples=300).span
             for x, y, clusters in (cloud(rng, clusters=30, each=3) for _ in range(200))]
    assert 0.87 <= np.mean([span.low <= 2.0 <= span.high for span in spans]) <= 0.99


def test_a_predictor_that_does_not_vary_has_no_slope():
    x, y, clusters = cloud(np.random.default_rng(5))
    found = clustered_slope(y, [np.ones(len(y))], clusters, samples=50).span
    assert np.isnan([found.estimate, found.low, found.high]).all()


@pytest.mark.parametrize("within", [False, True])
def test_few_clusters_have_a_line_and_no_interval(within):
    """Through three points a line of three coefficients goes whatever they are: each draw of them
    that has a slope has the same."""
    rng = np.random.default_rng(6)
    x, z, y = rng.standard_normal((3, 3))
    found = clustered_slope(y, [x, z], np.array(["a", "b", "c"]), within=within, samples=200).span
    assert np.isnan([found.low, found.high]).all() and np.isfinite(found.estimate) == (not within)
    x, y, clusters = cloud(rng, clusters=FEWEST_CLUSTERS)
    assert np.isfinite(clustered_slope(y, [x], clusters, within=within, samples=200).span.low)
    few = clusters != clusters[0]
    assert np.isnan(clustered_slope(y[few], [x[few]], clusters[few], within=within).span.low)
