"""Label treatments: closed forms, and a student of several teachers from its labels to its PGR."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from configs.schema import MethodConfig
from src.common.errors import UserError
from src.evaluation.one_model import evaluate_one
from src.methods.label_treatments import TREATMENTS, check_treatments, log_odds, mean_margin
from src.training.finish import labels_for
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all

LABELS = np.random.default_rng(0).uniform(size=(3, 50))


def test_the_mean_margin_is_the_sigmoid_of_the_mean_log_odds():
    np.testing.assert_allclose(mean_margin(LABELS), expit(logit(LABELS).mean(axis=0)), atol=1e-12)


@pytest.mark.parametrize("name", TREATMENTS)
def test_a_treatment_of_swapped_sides_is_the_swapped_label_and_stays_a_probability(name):
    treat = TREATMENTS[name].treat
    np.testing.assert_allclose(treat(1 - LABELS), 1 - treat(LABELS), atol=1e-12)
    extremes = treat(np.array([[0.0, 1.0, 0.5]] * 2))
    assert np.isfinite(log_odds(extremes)).all() and ((extremes >= 0) & (extremes <= 1)).all()


@pytest.mark.parametrize("name", TREATMENTS)
def test_equal_teachers_are_as_good_as_one(name):
    np.testing.assert_allclose(TREATMENTS[name].treat(np.stack([LABELS[0]] * 2)), LABELS[0],
                               atol=1e-12)


def test_a_treatment_without_code_or_without_its_teachers_is_refused():
    with pytest.raises(UserError, match="e: method a: treatment 'vote' is none of as_is, mean"):
        check_treatments([MethodConfig("a", treatment="vote")], 2, "e")
    with pytest.raises(UserError, match="is of several teachers, and there is one"):
        check_treatments([MethodConfig("a", treatment="mean_margin")], 1, "e")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two teachers; students of each, and of both together."""
    tiny = make_experiment(tmp_path_factory.mktemp("several"), rows=180, train_pairs=48)
    values = {"methods": [{"name": "soft"}, {"name": "both", "treatment": "mean_margin"}]}
    tiny.write_config(tiny.settings(), **values)
    prepare_data(tiny)
    train_all(tiny)
    return tiny


def test_a_student_of_all_teachers_gets_what_they_say_together(trained):
    plan = sweep_of(trained)
    student = next(run for run in plan.stage("students") if run.method.name == "both")
    assert [run.kind for run in plan.needed(student)] == ["teacher", "teacher"]
    alone = [labels_for(dataclasses.replace(student, labels=identity, method=MethodConfig("soft")),
                        plan, trained.runs_dir)[0] for identity in student.needs]
    together, _ = labels_for(student, plan, trained.runs_dir)
    np.testing.assert_allclose(together, expit(logit(np.stack(alone)).mean(axis=0)), atol=1e-9)


def test_pgr_of_a_student_of_all_teachers_starts_at_what_they_know_together(trained):
    assert in_process("eval", *trained.evaluate()) == 0
    pgr = pd.read_csv(trained.results / "pgr.csv", keep_default_na=False)
    row = pgr[pgr.method == "both"].iloc[0]
    assert row.teacher == "mean_margin-of-llama-L1+llama-L2"
    margins = []
    for folder in trained.finished("teachers"):
        table = pd.read_parquet(folder / "scores" / "test.parquet").set_index("pair_id")
        margins.append((table.reward_chosen - table.reward_rejected).sort_index())
    mean = sum(margins) / len(margins)
    assert row.weak == pytest.approx(((mean > 0) + 0.5 * (mean == 0)).mean())
    report = (trained.results / "report.md").read_text()
    assert "mean_margin" in report


def test_one_student_of_all_teachers_is_told_where_its_pgr_stands(trained):
    folder = next(path for path in trained.finished("students") if "-both-" in path.name)
    text = evaluate_one(folder, None, "test", trained.runs_dir, trained.processed.parent)
    assert "PGR of a student of 2 teachers is in its experiment's table" in text
    assert "not both are finished" not in text
