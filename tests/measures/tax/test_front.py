"""Curves of accuracy against tax: areas and interpolation by hand, and what is better by plan."""

import numpy as np
import pytest

from configs.schema import EvalConfig
from src.measures.tax.front import (
    BASE,
    PROBE,
    TUNED,
    UNIFORM,
    Peers,
    Point,
    area,
    areas_table,
    at_tax,
    families,
    front_table,
)

CONFIG = EvalConfig(bootstrap_samples=400)
TOKENS, SIZES = np.full(20, 9), np.full(20, 30)
PROMPTS = np.arange(1000)


def test_area_is_the_mean_accuracy_over_taxes_from_nothing_to_the_tuned_model_s():
    taxes, accuracies = np.array([2.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.8])
    assert area(taxes, accuracies, 2.0) == pytest.approx((0.65 + 0.85) / 2)
    assert area(taxes, accuracies, 1.0) == pytest.approx(0.65)
    assert np.isnan(area(taxes, accuracies, 0.0)) and np.isnan(area(taxes, accuracies, -1.0))


def test_a_curve_is_read_between_its_points_and_not_beyond_them():
    taxes, accuracies = np.array([2.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.8])
    assert at_tax(taxes, accuracies, 0.25) == pytest.approx(0.575)
    assert np.isnan(at_tax(taxes, accuracies, 2.1)) and np.isnan(at_tax(taxes, accuracies, -0.1))


def point(family, a, accuracy, tax, seeds=3):
    """A share `accuracy` of the pairs right, the lowest first; each token `tax` nats, in each seed
    a hundredth more."""
    right = np.tile(np.arange(1000) < 1000 * accuracy, (seeds, 1)).astype(float)
    nats = tax * 9 * np.ones((seeds, 20)) * (1 + np.arange(seeds)[:, None] / 100)
    return Point(family, a, "", "", right, nats)


def curve(*more):
    return [point(TUNED, 0, 0.8, 1.0), point(BASE, 1, 0.5, 0.0), point(UNIFORM, 0.5, 0.7, 0.5),
            *more, point(PROBE, 1, 0.6, 0.0)]


def test_an_average_that_knows_more_at_equal_tax_is_above_uniform_by_as_much():
    points = curve(point("adaptive", 0.5, 0.78, 0.5))
    table = front_table(points, TOKENS, SIZES, PROMPTS, None, CONFIG).set_index("family")
    assert table.above_uniform["adaptive"] == pytest.approx(0.08)
    assert table.above_uniform[PROBE] == pytest.approx(0.1)
    assert table.above_uniform[[UNIFORM, TUNED, BASE]].abs().max() < 1e-12
    areas = areas_table(points, TOKENS, CONFIG).set_index("family")
    assert areas.above_uniform["adaptive"] == pytest.approx(0.04)
    assert families(points) == [UNIFORM, "adaptive"]


def four_shares(family, above, shares=(0.2, 0.4, 0.6), first=0.7):
    """A curve that is steep near the base, where three shares of four end; `above` that of
    uniform averaging at each."""
    known = dict(zip((0.2, 0.4, 0.6, 0.8), ((0.78, 0.8), (0.76, 0.6), (0.74, 0.4), (first, 0.1)),
                     strict=True))
    return [point(family, a, known[a][0] + above, known[a][1]) for a in shares]


def areas_of(*more):
    points = [point(TUNED, 0, 0.8, 1.0), point(BASE, 1, 0.5, 0.0),
              *four_shares(UNIFORM, 0, (0.2, 0.4, 0.6, 0.8)), *more]
    return areas_table(points, TOKENS, CONFIG).set_index("family")


def test_a_family_that_is_uniform_at_its_own_shares_is_not_below_for_want_of_another():
    """Uniform averaging has a share more, near the base: the twin's area is smaller by it."""
    found = areas_of(*four_shares("adaptive", 0))
    assert found.area["adaptive"] < found.area[UNIFORM] - 0.01
    twin = found.loc["adaptive"]
    assert (twin.above_uniform, twin.above_uniform_low, twin.above_uniform_high) == (0, 0, 0)
    assert (found.loc[UNIFORM, ["above_uniform", "above_uniform_low"]] == 0).all()


def test_a_family_that_knows_more_at_each_of_its_shares_is_above_uniform():
    found = areas_of(*four_shares("part_wise_top", 0.01), *four_shares("adaptive", -0.01))
    better, worse = found.loc["part_wise_top"], found.loc["adaptive"]
    assert better.above_uniform_low > 0 and worse.above_uniform_high < 0
    assert better.above_uniform == pytest.approx(-worse.above_uniform)
    assert better.area < found.area[UNIFORM]  # by areas of all points it would be below


def test_a_curve_along_uniform_averaging_s_own_is_neither_above_nor_below_for_where_it_ends():
    """Nearer the base than uniform averaging of the same shares, or further: both lie on its line,
    through points that it has at other shares."""
    for last in (0.15, 0.3):
        on_line = [0.78, 0.76, float(np.interp(last, [0.1, 0.4], [0.7, 0.74]))]
        more = [point("adaptive", a, accuracy, tax) for a, accuracy, tax in
                zip((0.2, 0.4, 0.6), on_line, (0.8, 0.6, last), strict=True)]
        assert areas_of(*more).above_uniform["adaptive"] == pytest.approx(0, abs=1e-3)


def test_a_point_beyond_what_uniform_averaging_pays_is_of_neither_area():
    found = areas_of(*four_shares("adaptive", 0), point("adaptive", 0.1, 0.6, 1.2))
    assert found.above_uniform["adaptive"] == 0


def test_a_mean_share_of_the_base_is_not_what_is_compared():
    """The same accuracy at the same a, for more nats, is worse."""
    table = front_table(curve(point("part_wise", 0.5, 0.7, 0.75)), TOKENS, SIZES, PROMPTS, None,
                        CONFIG).set_index("family")
    assert table.above_uniform["part_wise"] == pytest.approx(-0.05)


def test_tax_in_nats_and_bits_and_its_interval_over_seeds():
    row = front_table(curve(), TOKENS, SIZES, PROMPTS, None, CONFIG).set_index("family").loc[TUNED]
    assert row.tax == pytest.approx(1.01)
    assert row.tax_bits == pytest.approx(1.01 * 9 / 30 / np.log(2))
    assert row.tax_low < 1.0 and row.tax_high > 1.02 and row.accuracy_low < 0.8 < row.accuracy_high


def test_pgr_stands_where_a_ceiling_does():
    weak, ceiling = point("", 0, 0.6, 0).right, point("", 0, 0.9, 0).right
    with_peers = front_table(curve(), TOKENS, SIZES, PROMPTS, Peers(weak, ceiling), CONFIG)
    assert with_peers.set_index("family").pgr[TUNED] == pytest.approx(2 / 3)
    alone = front_table(curve(), TOKENS, SIZES, PROMPTS, None, CONFIG)
    assert alone.pgr.isna().all() and set(alone.status) == {"no ceiling"}
