"""Averages of a finished experiment in memory, from its runs to the page of what they cost."""

import datasets
import numpy as np
import pandas as pd
import pytest

from src.common.errors import UserError
from src.runs.folders import read_run
from src.runs.freed import free_weights
from tests.evaluation.tax.test_tax import write_questions
from tests.evaluation.test_layer_change import asked


@pytest.fixture(scope="module")
def fronts(finished, tmp_path_factory):
    """A copy of the experiment, of one student alone, with its front written; and the folder of the
    answers."""
    (teacher,), (student,) = (finished.settings()[name] for name in ("teachers", "students"))
    tiny = finished.copy("fronts", teachers=[{**teacher, "layers": [1]}],
                         students=[{**student, "layers": [4]}])
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", results / "cache")
        write_questions(tiny.processed.parent)
        asked(tiny, results, "front", "--tasks", "boolq", "--limit", "8")
    return tiny, results / "front" / "tiny"


def test_every_student_has_its_curves_with_both_ends_and_an_interval_over_seeds(fronts):
    _, folder = fronts
    front, areas = (pd.read_csv(folder / f"{name}.csv") for name in ("front", "areas"))
    for _, own in front.groupby(["student", "teacher"]):
        assert set(own.seeds) == {"0 1"} and {"tuned", "base", "uniform", "linear_probe",
                                              "one_block"} <= set(own.family)
        base, tuned = (own[own.family == name].iloc[0] for name in ("base", "tuned"))
        assert (base.tax, base.tax_low, base.tax_high, tuned.a, base.a) == (0, 0, 0, 0, 1)
        assert (own.accuracy_low <= own.accuracy).all() and (own.tax_low <= own.tax).all()
        np.testing.assert_allclose(own[own.family == "uniform"].above_uniform, 0, atol=1e-12)
    uniform = areas[areas.family == "uniform"].above_uniform
    assert len(areas) == 4 and uniform.dropna().eq(0).all()
    adaptive = front[front.family == "adaptive"]
    for row in adaptive.itertuples():
        assert np.mean([float(share) for share in row.alphas.split()]) == pytest.approx(
            row.a, abs=0.006)
    assert len(adaptive) == 3 and any(len(set(row.split())) > 1 for row in adaptive.alphas)
    assert "nats a token" in (folder / "report.md").read_text()
    assert len(list((folder / "figures").glob("front-*.png"))) == front.groupby(
        ["student", "teacher"]).ngroups


def test_base_average_and_tuned_model_answer_the_same_questions_beside_chance(fronts):
    _, folder = fronts
    tasks = pd.read_csv(folder / "tasks.csv")
    assert set(tasks.metric) == {"acc", "acc_norm"} and (tasks.n == 8).all()
    assert (tasks.chance == 0.5).all() and set(tasks.family) == {"base", "uniform", "tuned"}
    base = tasks[tasks.family == "base"]
    assert (base.lost == 0).all() and (base.score_low <= base.score).all()
    named = tasks.merge(base, on=["student", "teacher", "metric"])
    np.testing.assert_allclose(named.lost_x, named.score_y - named.score_x, atol=1e-12)
    assert len(list((folder / "figures").glob("tasks-*.png"))) == 1


def test_other_questions_are_asked_and_not_remembered(fronts, tmp_path, monkeypatch):
    tiny, folder = fronts
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tiny.processed.parent / "tax" / "boolq.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in [*lines[8:], *lines[:8]]))
    kept = len(list((tiny.runs_dir / "fronts").iterdir()))
    asked(tiny, tmp_path, "front", "--tasks", "boolq", "--limit", "4")
    assert len(list((tiny.runs_dir / "fronts").iterdir())) == kept + 5  # base once, others twice


def test_the_tuned_end_is_what_the_run_scores_and_its_tax_what_degradation_finds(fronts):
    tiny, folder = fronts
    front = pd.read_csv(folder / "front.csv")
    asked(tiny, folder, "degradation")
    lost = pd.read_csv(folder / "degradation" / "tiny" / "students.csv")
    for (student, teacher), own in lost.groupby(["student", "teacher"]):
        row = front[(front.student == student) & (front.teacher == teacher)
                    & (front.family == "tuned")].iloc[0]
        assert row.tax == pytest.approx(own.nats_lost.mean(), rel=1e-4)
        assert row.accuracy == pytest.approx(own.student_accuracy.mean())
    assert len(lost) == 2


def test_a_front_that_was_measured_needs_no_weights_again(fronts, tmp_path):
    tiny, folder = fronts
    before = pd.read_csv(folder / "front.csv")
    for run in tiny.finished("students"):
        free_weights(run, read_run(run).identity)
    asked(tiny, tmp_path, "front")  # without questions, which leave no table of an earlier call
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "front" / "tiny" / "front.csv"), before)
    for path in (tiny.runs_dir / "fronts").glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="freed"):
        asked(tiny, tmp_path, "front")
