"""An experiment as a whole: its evaluation is counted, and told without its test split."""

import dataclasses

import pytest

from data.manifest import read_manifest
from src.batches.trees import trees_of
from src.evaluation.overview import EVALUATION_SECONDS, SINCE, STEP, Whole, progress, table
from src.runs.plan import Plan
from src.training.estimate import RUN_SECONDS
from src.training.speed import Speed
from tests.tiny_experiment import TinyExperiment, in_process, make_experiment
from tests.tiny_experiment_parts import nested_plan, prepare_data, sweep_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    tiny = make_experiment(tmp_path_factory.mktemp("overview"), rows=120, train_pairs=32)
    prepare_data(tiny)
    return tiny


def test_every_run_is_scored_once_on_as_many_tokens_as_train_2_lets_expect(tiny, monkeypatch):
    plan = nested_plan(tiny, [2], [3, 4], {"last_layer_shortcut": False}, trainable_layers=1)
    split, pairs = plan.split, read_manifest(tiny.processed)["splits"]
    monkeypatch.setattr(plan, "split", lambda run, name: split(run, name) if (
        name != "test") else pytest.fail("opened before evaluation"))
    whole = Whole(plan, tiny.runs_dir, 2)
    tokens = trees_of(split(plan.runs[0], "train_2"), True).total_tokens
    expected = 2.0 * tokens * pairs["test"]["pairs"] / pairs["train_2"]["pairs"]
    parameters = plan.teachers[0].base.parameters
    assert [piece.own for piece in whole.scores] == pytest.approx([expected * parameters((0,))] * 5)
    assert sum(piece.beside for piece in whole.scores) == pytest.approx(
        expected * parameters((0, 1, 2)))  # one trunk, of the deepest cut
    monkeypatch.setattr(whole.training, "speed", Speed(1e6, "said"))
    seconds = sum((piece.own + piece.beside) / 1e6 + RUN_SECONDS for piece in whole.scores)
    assert whole.evaluation_seconds() == pytest.approx(seconds / 2 + EVALUATION_SECONDS)


def test_runs_that_are_scored_are_not_scored_again(finished):
    plan = sweep_of(finished)
    before = Whole(plan, finished.runs_dir, 1)
    scored = [(folder / "scores" / "test.parquet").is_file()
              for folder in map(before.training.folders.get, (run.identity for run in plan.runs))]
    assert [piece.is_done for piece in before.scores] == scored


def test_the_overview_tells_every_stage_and_the_whole(tiny, capsys):
    assert in_process("src.evaluation.overview", "--experiment", str(tiny.config),
                      *tiny.folders) == 0
    *_, teachers, ceilings, students, scores, disk, whole = capsys.readouterr().out.splitlines()
    for line, count in ((teachers, 2), (ceilings, 2), (students, 4), (scores, 8)):
        assert line.split()[-4:-2] == [str(count), "0"]
    assert disk.startswith("weights of the 8 runs to do: about ")
    assert whole.startswith("tiny: about ") and "finished runs correct it" in whole


def test_progress_tells_the_step_the_runs_and_the_time(finished, monkeypatch):
    monkeypatch.setenv(STEP, "5/7")
    monkeypatch.setenv(SINCE, "1000")
    monkeypatch.setattr("time.time", lambda: 1720.0)
    plan = sweep_of(finished)
    whole = Whole(plan, finished.runs_dir, 1)
    left = table(whole).splitlines()[-1].removeprefix("tiny: about ").split(" on this")[0]
    assert progress(whole) == (f"tiny, step 5/7: 16 of 16 runs done, 12 min so far, about {left} "
                               "left")
    other = dataclasses.replace(plan.experiment, seeds=(0, 1, 2))
    more = Whole(Plan(other, finished.processed.parent), finished.runs_dir, 1)
    assert "16 of 24 runs done" in progress(more)
