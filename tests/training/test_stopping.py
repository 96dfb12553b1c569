"""A method that stops early by itself: on weak val labels, or as an oracle on human ones."""

import shutil

import pytest
import torch
from transformers import TrainerCallback

from src.runs.folders import newest_checkpoint
from src.training import train_run
from src.training.finish import finish
from src.training.trainer import build_trainer
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.training.test_methods import ROUNDING, NoisyPlan, gap, student_of

METHODS = [{"name": "soft"}, {"name": "early_stop", "early_stopping_evals": 2},
           {"name": "oracle_stop", "early_stopping_evals": 2, "stop_on": "truth"}]
STEPS, EVERY = 60, 6
"""Of a student that is not stopped, 20 epochs of 3, and from one evaluation to the next."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Data and a teacher; few pairs, many epochs: students learn its labels by heart."""
    tiny = make_experiment(tmp_path_factory.mktemp("stopping"), rows=170, train_pairs=44,
                           layers=([1], [4]), methods=METHODS,
                           train={"epochs": 20, "learning_rate": 3e-3})
    prepare_data(tiny)
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return tiny


@pytest.fixture(scope="module")
def world(prepared):
    """Where students see the data as it is."""
    return student_of(prepared, sweep_of(prepared))


@pytest.fixture(scope="module")
def noise(prepared):
    """Where half of the human labels of train_2 and val are the opposite of what they were."""
    tiny = prepared.copy("noise")
    plan = sweep_of(tiny)
    plan.__class__ = NoisyPlan
    return student_of(tiny, plan)


def evaluations(student):
    return {entry["step"]: entry["eval_loss"] for entry in student.log if "eval_loss" in entry}


def test_it_stops_where_weak_val_labels_are_met_best(world):
    found = world("early_stop")
    losses = evaluations(found)
    best = min(losses, key=losses.get)
    assert max(losses) == best + 2 * EVERY < STEPS
    assert gap(found, world("soft")) > 1e-3
    assert not evaluations(world("soft")) and world("soft").log[-1]["step"] == STEPS


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
    waiting = min(losses, key=losses.get) + EVERY
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
