"""Stopped at any moment and resumed: the weights and the log of never having been stopped."""

import dataclasses
import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from configs.run import RunConfig
from configs.schema import LoraConfig, MethodConfig, RuntimeConfig, TrainConfig
from model.base.adapters import add_adapters
from model.base.trunk import freeze_embeddings
from model.reward_model import build_reward_model
from src.batches.collate import PairDataset
from src.batches.steps import ALL_PAIRS, Course
from src.common.memory import set_libraries_aside
from src.methods.distilled_layers import distils
from src.methods.label_treatments import Hints
from src.runs.folders import newest_checkpoint
from src.training import resumable
from src.training.arguments import training_arguments
from src.training.resumable import PROGRESS
from src.training.train_run import log_lines
from src.training.trainer import build_trainer
from tests.families import PAD
from tests.tiny_pairs import random_pairs

PAIRS = 37  # three steps in an epoch
NUMBERS = np.arange(PAIRS)
COURSE = Course(NUMBERS % 7 > 0, NUMBERS % 3 == 1, first_steps=4, later_rate=0.5)
"""31 pairs, two steps in an epoch; first those of 13, which are one."""
PLAIN = RunConfig(
    experiment="e", kind="student", name="m-L3", model="m", base="0" * 16, kept=(1, 3), data="d",
    data_hash="1" * 16, tokenizer="2" * 12, split="train_2", labels="3" * 16, teacher="m-L2",
    method=MethodConfig("soft"), seed=0,
    train=TrainConfig(epochs=2.5, batch_pairs=16, learning_rate=1e-3, lr_warmup_frac=0.0))
"""Eight steps: two epochs and a part of the third."""
STOPPING = dataclasses.replace(PLAIN, train=dataclasses.replace(
    PLAIN.train, epochs=12, learning_rate=4e-3, early_stopping_evals=3, eval_frac=0.06))
"""Up to 36 steps, evaluated after every second."""
ADAPTERS = dataclasses.replace(STOPPING, train=dataclasses.replace(
    STOPPING.train, learning_rate=4e-2, lora=LoraConfig(rank=2)))


FROZEN = dataclasses.replace(PLAIN, train=dataclasses.replace(
    PLAIN.train, freeze_embeddings=True))


DISTILLED = dataclasses.replace(PLAIN, method=MethodConfig("d", "distil"))
HINTS = Hints((0, 1), tuple(np.random.default_rng(width).normal(size=(PAIRS, 2, width)).astype(
    np.float32) for width in (8, 12)))
"""Teachers' states for both layers of the student, whose connectors are resumed as it is."""


class Killed(BaseException):
    """Raised where a signal would have ended the process."""


class Kill(TrainerCallback):
    """Records the moments of a training, and ends it at one of them."""

    def __init__(self, *moment):
        self.moment, self.seen = moment, []

    def at(self, moment, state):
        self.seen.append((moment, state.global_step))
        if self.seen[-1] == self.moment:
            raise Killed

    def on_step_end(self, args, state, control, **kwargs):
        self.at("step", state)

    def on_log(self, args, state, control, **kwargs):
        self.at("log", state)

    def on_evaluate(self, args, state, control, **kwargs):
        self.at("evaluated", state)

    def on_save(self, args, state, control, **kwargs):
        self.at("saved", state)

    def on_train_end(self, args, state, control, **kwargs):
        self.at("ended", state)


class Terminate(Kill):
    """Sends SIGTERM within a step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if ("begun", state.global_step) == self.moment:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def train(base):
    """(run, folder, kill) -> what a training that goes on in `folder` ends with, or None where it
    was killed: its last step, weights and log."""
    split, val = random_pairs(PAIRS), PairDataset(random_pairs(20, seed=9), np.full(20, 0.3))
    labels = np.random.default_rng(5).random(PAIRS)
    set_libraries_aside()

    def build(run):
        model = build_reward_model(base("llama"), run.kept, run.seed, pad_token_id=PAD)
        if run.train.freeze_embeddings:
            freeze_embeddings(model)
        return add_adapters(model, run.train.lora, 0, run.seed) if run.train.lora else model

    def one(run, folder, kill=None, course=ALL_PAIRS, **runtime):
        runtime = dataclasses.replace(RuntimeConfig(
            micro_batch_tokens=4096, logging_steps=3, save_steps=2, report_to="none"), **runtime)
        hints = HINTS if distils(run.method) else None
        trainer = build_trainer(
            run, runtime, lambda: build(run),
            training_arguments(run, runtime, folder, PAIRS),
            PairDataset(split, labels, course=course,
                        weights=None if course is ALL_PAIRS else 2 * labels,
                        hints=hints.states if hints else ()),
            val if run.train.early_stopping_evals else None, PAD, hints)
        if kill:
            kill.trainer = trainer
            trainer.add_callback(kill)
            save = trainer._save_optimizer_and_scheduler
            trainer._save_optimizer_and_scheduler = lambda output: (
                kill.at("saving", trainer.state), save(output))
        found = newest_checkpoint(folder, 1)
        try:
            trainer.train(resume_from_checkpoint=str(found) if found else None)
        except Killed:
            return None
        state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        return trainer.state.global_step, state, log_lines(trainer)

    return one


def same(found, expected):
    (step, weights, log), (wanted_step, wanted_weights, wanted_log) = found, expected
    return (step == wanted_step and log == wanted_log
            and all(torch.equal(weights[name], wanted) for name, wanted in wanted_weights.items()))


@pytest.mark.parametrize("run", [PLAIN, STOPPING, ADAPTERS, FROZEN, DISTILLED],
                         ids=["plain", "stopping", "adapters", "frozen", "distilled"])
def test_kills_at_every_moment_one_after_another_change_neither_weights_nor_log(train, tmp_path,
                                                                                run):
    expected = train(run, tmp_path / "whole", moments := Kill())
    early = bool(run.train.early_stopping_evals)
    assert 8 <= expected[0] < 30 if early else expected[0] == 8
    assert len(moments.seen) > 2 * expected[0]
    for moment in moments.seen:
        assert train(run, tmp_path / "killed", Kill(*moment)) is None, moment
    assert same(train(run, tmp_path / "killed"), expected)


def test_kills_at_every_moment_of_a_course_change_neither_weights_nor_log(train, tmp_path):
    run = dataclasses.replace(PLAIN, train=dataclasses.replace(PLAIN.train, epochs=5))
    expected = train(run, tmp_path / "whole", moments := Kill(), COURSE)
    assert expected[0] == 10
    for moment in moments.seen:
        assert train(run, tmp_path / "killed", Kill(*moment), COURSE) is None, moment
    assert same(train(run, tmp_path / "killed", course=COURSE), expected)
    assert not same(train(run, tmp_path / "plain", course=Course(COURSE.kept)), expected)


def test_a_kill_at_any_early_stopping_moment_changes_neither_weights_nor_log(train, tmp_path):
    expected = train(STOPPING, tmp_path / "whole")
    for step in range(2, expected[0] + 1, 2):
        folder = tmp_path / str(step)
        assert train(STOPPING, folder, Kill("saved", step)) is None
        assert same(train(STOPPING, folder), expected), step


def test_a_run_that_was_moved_still_ends_with_its_best_weights(train, tmp_path):
    expected = train(STOPPING, tmp_path / "whole")
    assert train(STOPPING, tmp_path / "killed", Kill("ended", expected[0])) is None
    (tmp_path / "killed").rename(tmp_path / "moved")
    assert same(train(STOPPING, tmp_path / "moved"), expected)


def test_a_checkpoint_without_the_best_one_is_passed_over(train, tmp_path):
    expected = train(STOPPING, tmp_path / "whole")
    assert train(STOPPING, tmp_path / "killed", Kill("ended", expected[0])) is None
    newest = newest_checkpoint(tmp_path / "killed", 1)
    best = json.loads((newest / "trainer_state.json").read_text())["best_global_step"]
    (newest.with_name(f"checkpoint-{best}") / "optimizer.pt").unlink()
    assert newest_checkpoint(tmp_path / "killed", 1) is None
    assert same(train(STOPPING, tmp_path / "killed"), expected)


def test_seconds_are_those_of_every_try(train, tmp_path):
    assert train(PLAIN, tmp_path, Kill("saved", 6)) is None
    path = newest_checkpoint(tmp_path, 1) / "trainer_state.json"
    state = json.loads(path.read_text())
    assert 0 < state["stateful_callbacks"][PROGRESS]["seconds"] < 60
    state["stateful_callbacks"][PROGRESS]["seconds"] = 1000
    path.write_text(json.dumps(state))
    train(PLAIN, tmp_path, last := Kill())
    assert 1000 < last.trainer.seconds < 1060


@pytest.mark.parametrize("run", [PLAIN, STOPPING], ids=["plain", "stopping"])
def test_sigterm_saves_the_step_that_it_meets_and_changes_neither_weights_nor_log(
        train, tmp_path, monkeypatch, run):
    expected = train(run, tmp_path / "whole")
    for step in range(expected[0]):
        monkeypatch.setattr(resumable, "_asked", threading.Event())
        with pytest.raises(SystemExit) as ended, resumable.saving_on_sigterm():
            train(run, tmp_path / "stopped", Terminate("begun", step))
        assert ended.value.code == 143
        assert newest_checkpoint(tmp_path / "stopped", 1).name == f"checkpoint-{step + 1}"
    monkeypatch.setattr(resumable, "_asked", threading.Event())
    assert same(train(run, tmp_path / "stopped"), expected)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_whoever_asks_while_another_notes_a_sigterm_is_told_of_it(monkeypatch):
    """The thread that watches the script, beside the one that trains."""
    read, told = os.read, []
    other = threading.Thread(target=lambda: told.append(resumable.is_asked()))

    def read_and_let_another_ask(*words):
        monkeypatch.setattr(os, "read", read)
        found = read(*words)
        other.start()
        other.join(0.2)
        return found

    monkeypatch.setattr(resumable, "_asked", threading.Event())
    os.write(resumable._pipe[1], bytes([signal.SIGTERM]))
    monkeypatch.setattr(os, "read", read_and_let_another_ask)
    assert resumable.is_asked()
    other.join()
    assert told == [True]


def test_a_sigterm_at_the_moment_that_saving_begins_or_ends_is_never_lost(monkeypatch):
    """It ends the process, by the handler outside, or is asked for inside."""
    seen = []
    outside = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    install = signal.signal

    def install_and_meet_one(number, handler):
        previous = install(number, handler)
        signal.raise_signal(number)
        return previous

    monkeypatch.setattr(resumable, "_asked", threading.Event())
    monkeypatch.setattr(signal, "signal", install_and_meet_one)
    try:
        with pytest.raises(SystemExit), resumable.saving_on_sigterm():
            assert resumable.is_asked() and not seen
    finally:
        install(signal.SIGTERM, outside)
    assert seen == [signal.SIGTERM]
