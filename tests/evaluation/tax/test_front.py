"""Averages of a finished experiment in memory, from its runs to the page of what they cost."""

import numpy as np
import pandas as pd
import pytest

from src.common.errors import UserError
from src.runs.folders import read_run
from src.runs.freed import free_weights
from tests.evaluation.test_layer_change import asked


@pytest.fixture(scope="module")
def fronts(finished, tmp_path_factory):
    """A copy of the experiment with its front written, and the folder of the answers."""
    tiny, results = finished.copy("fronts"), tmp_path_factory.mktemp("results")
    asked(tiny, results, "front")
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
    assert len(areas) == 3 * 4 and uniform.dropna().eq(0).all()
    assert "nats a token" in (folder / "report.md").read_text()
    assert len(list((folder / "figures").glob("front-*.png"))) == front.groupby(
        ["student", "teacher"]).ngroups


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
    assert len(lost) == 8


def test_a_front_that_was_measured_needs_no_weights_again(fronts, tmp_path):
    tiny, folder = fronts
    before = pd.read_csv(folder / "front.csv")
    for run in tiny.finished("students"):
        free_weights(run, read_run(run).identity)
    asked(tiny, tmp_path, "front")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "front" / "tiny" / "front.csv"), before)
    for path in (tiny.runs_dir / "fronts").glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match="freed"):
        asked(tiny, tmp_path, "front")
