"""A method that stops early by itself: on weak val labels, or as an oracle on human ones."""

import shutil

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from src.batches.steps import epoch_steps
from src.batches.trees import trees_of
from src.runs.folders import find_finished, newest_checkpoint
from src.scoring.weak_labels import weak_labels_of
from src.training import train_run
from src.training.finish import finish
from src.training.trainer import build_trainer
from tests.tiny_experiment import in_process, launch, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.training.test_methods import ROUNDING, NoisyPlan, gap, student_of
from tests.whole.test_distributed import MODEL

METHODS = [{"name": "soft"}, {"name": "early_stop", "early_stopping_evals": 2},
           {"name": "oracle_stop", "early_stopping_evals": 2, "stop_on": "truth"}]
STEPS = 9
"""Of a student that is not stopped: 3 epochs of 3. There is an evaluation after each."""


def with_teacher(folder, **changes):
    """An experiment whose teacher is trained."""
    tiny = make_experiment(folder, rows=170, train_pairs=44, layers=([1], [4]), **changes)
    prepare_data(tiny)
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Few steps, over which rounding cannot grow, and long ones: val soon gets worse."""
    return with_teacher(tmp_path_factory.mktemp("stopping"), methods=METHODS, train={
        "epochs": 3, "learning_rate": 3e-3, "schedule": "constant"})


@pytest.fixture(scope="module")
def world(prepared):
    """Where students see the data as it is."""
    return student_of(prepared, sweep_of(prepared))


@pytest.fixture(scope="module")
def noise(prepared):
    """Where half of the human labels of train_2 and val are the opposite of what they were. The
    teacher is the same one, and labels again; students are trained anew."""
    tiny = prepared.copy("noise")
    for made in ("students", "teachers/*/weak_labels", "teachers/*/scores"):
        for folder in tiny.runs_dir.glob(f"tiny/{made}"):
            shutil.rmtree(folder)
    plan = sweep_of(tiny)
    plan.__class__ = NoisyPlan
    return student_of(tiny, plan)


def evaluations(student):
    return {entry["step"]: entry["eval_loss"] for entry in student.log if "eval_loss" in entry}


def val_loss(student, plan, runs_dir):
    """Cross-entropy of the finished student's probabilities against its teacher's, on val."""
    def preferred(run):
        return weak_labels_of(find_finished(runs_dir, run.stage, run.identity), run,
                              plan.split(run, "val"), "val", plan.experiment.runtime)

    teacher, = plan.needed(student.run)
    found, wanted = preferred(student.run), preferred(teacher)
    return -(wanted * np.log(found) + (1 - wanted) * np.log1p(-found)).mean()


def test_it_stops_where_weak_val_labels_are_met_best(prepared, world):
    found = world("early_stop")
    losses = evaluations(found)
    best = min(losses, key=losses.get)
    assert max(losses) == best + 2 < STEPS
    plan = sweep_of(prepared)
    assert val_loss(found, plan, prepared.runs_dir) == pytest.approx(losses[best], abs=1e-4)
    assert gap(found, world("soft")) > 1e-3
    assert not evaluations(world("soft")) and world("soft").log[-1]["step"] == STEPS


def test_its_manifest_has_the_tokens_of_the_steps_that_it_took(prepared, world):
    found, plan = world("early_stop"), sweep_of(prepared)
    assert found.manifest["steps"] == found.log[-1]["step"] < STEPS
    trees = trees_of(plan.split(found.run, "train_2"), True)
    steps = [step for epoch in range(3) for step in epoch_steps(trees, 16, 0, epoch, True)]
    tokens = sum(trees.tokens(step, np.zeros(len(step), int))
                 for step in steps[:found.manifest["steps"]])
    assert (found.manifest["tokens"], found.manifest["flops"]) == (
        tokens, 6.0 * tokens * plan.students[0].parameters)


def test_human_labels_that_are_noise_change_what_an_oracle_stops_on_alone(world, noise):
    assert gap(world("early_stop"), noise("early_stop")) < ROUNDING
    assert gap(world("soft"), noise("soft")) < ROUNDING
    assert gap(world("oracle_stop"), noise("oracle_stop")) > 1e-3
    assert evaluations(world("oracle_stop")) != evaluations(world("early_stop"))


class Killed(BaseException):
    """Raised where a signal would have ended the process."""


class Kill(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("method", ["early_stop", "oracle_stop"])
def test_a_run_killed_while_its_patience_lasts_ends_with_the_weights_of_a_whole_one(
        prepared, world, monkeypatch, method):
    whole = world(method)
    losses = evaluations(whole)
    waiting = min(losses, key=losses.get) + 1
    tiny = prepared.copy(f"killed_{method}")
    shutil.rmtree(tiny.runs_dir / "tiny" / "students")
    plan = sweep_of(tiny)

    def dying(*args):
        trainer = build_trainer(*args)
        trainer.add_callback(Kill(waiting))
        return trainer

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train_run, "build_trainer", dying)
        finish(whole.run, plan, tiny.runs_dir)
    folder = tiny.runs_dir / "tiny" / "students" / whole.run.folder_name
    assert newest_checkpoint(folder, 1).name == f"checkpoint-{waiting}"
    again = student_of(tiny, plan)(method)
    assert again.folder == folder and again.log == whole.log
    assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())


@pytest.mark.parametrize("train", [{"trainable_layers": 1}, {"lora": {"rank": 2}}], ids=str)
def test_it_stops_over_a_kept_trunk_as_without_one_and_with_adapters(prepared, train):
    students = []
    for gigabytes in (1, 0):
        tiny = prepared.copy(f"{next(iter(train))}_{gigabytes}", train=train,
                             runtime={"trunk_cache_gb": gigabytes})
        plan = sweep_of(tiny)
        finish(plan.stage("teachers")[0], plan, tiny.runs_dir)
        students.append(student_of(tiny, plan)("early_stop"))
    assert evaluations(students[0]) == pytest.approx(evaluations(students[1]), abs=1e-5)
    assert gap(*students) < ROUNDING


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose matrices ZeRO-3 parts, and 60 steps, with an evaluation after every sixth."""
    return with_teacher(tmp_path_factory.mktemp("wide"), methods=[METHODS[1]], model=MODEL,
                        train={"epochs": 20, "learning_rate": 3e-3})


@pytest.mark.launch
@pytest.mark.parametrize("hardware", ["multi_gpu", "zero2", "zero3"])
def test_two_processes_stop_by_all_of_val_and_keep_the_best_weights(wide, hardware):
    tiny = wide.copy(hardware)
    ended = launch("weak_to_strong.sh", tiny, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    plan = sweep_of(tiny)
    found = student_of(tiny, plan)("early_stop")
    losses = evaluations(found)
    best = min(losses, key=losses.get)
    assert max(losses) == min(best + 2 * 6, 60)
    assert val_loss(found, plan, tiny.runs_dir) == pytest.approx(losses[best], abs=1e-4)
