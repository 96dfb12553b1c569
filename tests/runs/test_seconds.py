"""A run costs what it took, and what the students before it took."""

import dataclasses
import json

import pytest

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import MethodConfig, TrainConfig
from src.runs.seconds import training_seconds


def run_of(kind: str, method: MethodConfig = GROUND_TRUTH_METHOD, labels: str = GROUND_TRUTH,
           earlier: str = "") -> RunConfig:
    return RunConfig("demo", kind, "demo-L2", "demo", "b", (0, 1), "people", "d", "t",
                     "train_1" if kind == "teacher" else "train_2", labels, "", method,
                     TrainConfig(learning_rate=1e-3), 0, earlier)


@pytest.fixture
def found(tmp_path):
    """A teacher of 9 seconds, soft of 4, a second round of 3 after it, a third of 2 after that."""
    teacher = run_of("teacher")
    runs = [teacher, run_of("student", MethodConfig("soft"), teacher.identity)]
    for name in ("second", "third"):
        runs.append(run_of("student", MethodConfig(name, treatment="strong_to_strong"),
                           teacher.identity, runs[-1].identity))
    for run, seconds in zip(runs, (9.0, 4.0, 3.0, 2.0), strict=True):
        folder = tmp_path / run.identity
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"seconds": seconds}))
    return [(run, tmp_path / run.identity) for run in runs]


def test_students_that_come_before_count_and_the_shared_teacher_does_not(found):
    assert list(training_seconds(found).values()) == [9.0, 4.0, 7.0, 9.0]


def test_a_manifest_without_seconds_and_a_missing_run_leave_the_cost_open(found):
    (found[1][1] / "manifest.json").write_text("{}")
    assert list(training_seconds(found).values()) == [9.0, None, None, None]
    assert list(training_seconds(found[2:]).values()) == [None, None]


def test_a_student_that_two_others_learn_from_counts_once(found):
    (run, folder) = found[3]
    both = dataclasses.replace(run, labels="+".join((run.labels, found[1][0].identity)))
    totals = training_seconds([*found[:3], (both, folder)])
    assert totals[both.identity] == 2.0 + 3.0 + 4.0
