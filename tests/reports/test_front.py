"""What the page of a front says of curves beside uniform averaging."""

import pandas as pd

from src.reports.tax.front import READING, statements

STUDENT = {"student": "L8", "teacher": "L5", "method": "soft"}


def interval(name, value, low, high):
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def said_of(**curves):
    """The sentences about curves, where each has a difference to uniform and its ends."""
    front = pd.DataFrame([{**STUDENT, "family": family, "a": a,
                           **interval("accuracy", 0.8, 0.7, 0.9),
                           **interval("tax", tax, tax / 2, tax * 2)}
                          for family, a, tax in (("tuned", 0, 1), ("linear_probe", 1, 0))])
    areas = pd.DataFrame([{**STUDENT, "family": family, **interval("above_uniform", *ends)}
                          for family, ends in {"uniform": (0, 0, 0), **curves}.items()])
    return statements(front, areas)[1:]


def test_a_twin_of_uniform_averaging_is_not_told_from_it():
    (said,) = said_of(adaptive=(0.0, 0.0, 0.0))
    assert "adaptive: not told from uniform averaging by area" in said
    assert "at the same taxes" in said and "the taxes of the curve's own points" in READING


def test_a_curve_is_above_or_below_where_the_interval_excludes_none():
    above, below = said_of(part_wise_top=(0.01, 0.005, 0.015), adaptive=(-0.01, -0.02, -0.001))
    assert "more at the top: above uniform" in above and "adaptive: below uniform" in below


def test_an_average_that_costs_more_is_not_said_to_give_back():
    front = pd.DataFrame([{**STUDENT, "family": family, "a": a,
                           **interval("accuracy", 0.8, 0.7, 0.9),
                           **interval("tax", tax, tax / 2, tax * 2)}
                          for family, a, tax in (("tuned", 0, 1.0), ("uniform", 0.2, 1.25),
                                                 ("uniform", 0.6, 0.5), ("linear_probe", 1, 0))])
    areas = pd.DataFrame([{**STUDENT, "family": "uniform", **interval("above_uniform", 0, 0, 0)}])
    said = statements(front, areas)[0]
    assert "a = 0.2: 25% more lost, accuracy" in said and "a = 0.6: 50% of that back" in said
