"""Inherited errors by hand, PGR seed by seed, and slopes where the truth is known."""

import numpy as np
import pandas as pd
import pytest

from configs.schema import EvalConfig
from src.measures import metrics
from src.measures.change.degradation import MODELS, inherited, slopes_table, students_table
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.tables import pgr_table

CONFIG = EvalConfig(bootstrap_samples=300)


def test_inherited_errors_are_counted_where_the_teacher_is_wrong():
    teacher = np.array([2.0, -0.1, -0.2, -3.0, -4.0])
    student = np.array([-1.0, -1.0, 1.0, -1.0, -1.0])  # the first error is its own
    length = np.array([9, 1, 2, 1, 2])
    found = inherited(student, teacher, length)
    assert (found.inherited, found.inherited_unsure, found.inherited_sure) == (0.75, 0.5, 1.0)
    assert (found.inherited_short, found.inherited_long) == (1.0, 0.5)
    assert found.inherited == metrics.imitation(student, teacher).agreement_teacher_wrong
    assert np.isnan(inherited(student, np.ones(5), length).inherited)


def test_gain_is_what_the_arithmetic_of_inherited_errors_says():
    teacher, student = np.random.default_rng(0).standard_normal((2, 500)) + 0.3
    right = teacher > 0
    weak, follows = right.mean(), (student[right] > 0).mean()
    found = inherited(student, teacher, np.ones(500)).inherited
    gain = (student > 0).mean() - weak
    assert gain == pytest.approx((1 - weak) * (1 - found) - weak * (1 - follows))


def scored(levels, seeds=(0, 1, 2), n=3000):
    """Runs of one teacher; `levels`: (role, name, mean margin)."""
    rng = np.random.default_rng(1)
    ids = np.array([f"{i:016x}" for i in range(n)])
    pairs = EvalPairs("demo", "people", "test", ids, np.arange(n), np.ones(n), np.ones(n))
    runs = [RunScores(role, name, int(name[-1]), "m-L2" if role == "student" else "",
                      "soft" if role == "student" else "", seed, ids,
                      level + rng.standard_normal(n))
            for seed in seeds for role, name, level in levels]
    return runs, pairs


LEVELS = [("teacher", "m-L2", 0.2), ("ceiling", "m-L4", 1.0), ("student", "m-L4", 0.6),
          ("ceiling", "m-L3", 0.2), ("student", "m-L3", 0.3)]


def test_pgr_of_seeds_averages_to_that_of_the_cell_and_is_missing_where_that_is_undefined():
    runs, pairs = scored(LEVELS)
    students, cells = students_table(runs, pairs, CONFIG), pgr_table(runs, pairs, CONFIG)
    mean = students.groupby("student").pgr.mean()
    assert mean["m-L4"] == pytest.approx(cells.set_index("student").pgr["m-L4"])
    assert np.isnan(mean["m-L3"]) and (students.pgr.isna() == (students.student == "m-L3")).all()
    assert (students.gain == students.student_accuracy - students.weak).all()


def test_a_student_without_its_teacher_s_seed_is_left_out():
    runs, pairs = scored(LEVELS)
    runs = [run for run in runs if (run.role, run.seed) != ("teacher", 1)]
    assert set(students_table(runs, pairs, CONFIG).seed) == {0, 2}


def known(inherit, forget, seeds=8):
    """Students whose PGR is a sum of both predictors, and of what their teacher's run is."""
    rng = np.random.default_rng(2)
    rows = [{"teacher": "t", "seed": seed, "inherited": rng.normal() + own, "nats_lost":
             rng.normal(), "own": own} for seed in range(seeds) for own in [3 * rng.normal()]
            for _ in range(6)]
    table = pd.DataFrame(rows)
    table["pgr"] = inherit * table.inherited + forget * table.nats_lost + 5 * table.own
    return table


def test_slopes_are_least_squares_per_standard_deviation():
    table = known(-0.5, 0.0)
    slopes = slopes_table(table, CONFIG).set_index(["predictor", "model"])
    assert len(slopes) == 2 * len(MODELS) and set(slopes.teachers) == {8}
    within = slopes.loc["inherited", "both, same teacher and seed"]
    assert within.slope == pytest.approx(-0.5 * table.inherited.std())
    assert slopes.loc["nats_lost", "both, same teacher and seed"].slope == pytest.approx(0)
    columns = np.column_stack([np.ones(len(table)), table.inherited, table.nats_lost])
    plain = np.linalg.lstsq(columns, table.pgr, rcond=None)[0]
    found = slopes.loc["inherited", "both, all students"]
    assert found.slope == pytest.approx(plain[1] * table.inherited.std()) and found.slope > 0


def test_without_weights_only_inherited_errors_are_asked_about():
    table = known(-0.5, 0.0).assign(nats_lost=np.nan)
    assert set(slopes_table(table, CONFIG).predictor) == {"inherited"}
    without = slopes_table(table.assign(pgr=np.nan), CONFIG)
    assert len(without) == 0 and list(without) == list(slopes_table(table, CONFIG))
