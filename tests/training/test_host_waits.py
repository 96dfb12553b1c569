"""Between two logs the host asks the device for nothing, so that a GPU always has work ahead.

On a CPU every tensor is the host's. What would wait for a GPU is seen all the same: by the name of
the method that brings numbers to the host, and by the operations that need one to go on.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from configs.schema import MethodConfig
from tests.training.test_compiled_layers import make  # noqa: F401 - a fixture
from tests.training.test_trainer import RUN

METHODS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__",
           "__index__")
OPERATIONS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2",
              "aten::equal", "aten::is_nonzero"}
ON_THE_HOST = {("collate.py", "__call__"): "batches are made there",
               ("whole_steps.py", "_rows_of"): "they never leave it",
               ("resumable.py", "on_step_end"): "a signal: processes agree without the device"}


class Waits(TorchDispatchMode):
    """Counts, while it is on, what brings a number to the host, by the places in the code."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.on, self.places = False, Counter()
        for name in METHODS:
            monkeypatch.setattr(torch.Tensor, name, self._counting(name, getattr(torch.Tensor,
                                                                                 name)))

    def _counting(self, name, method):
        def ask(tensor, *args, **kwargs):
            self._note(name)
            return method(tensor, *args, **kwargs)
        return ask

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition(".")[0]
        by_truth = name == "aten::index" and any(
            each is not None and each.dtype == torch.bool for each in args[1])
        if name in OPERATIONS or by_truth:
            self._note(name)
        return function(*args, **(kwargs or {}))

    def _note(self, name):
        frame, places = sys._getframe(2), []
        while frame is not None:
            places.append((Path(frame.f_code.co_filename).name, frame.f_code.co_name))
            frame = frame.f_back
        if self.on and ON_THE_HOST.keys().isdisjoint(places):
            own = next(place for place in places if place[0] != Path(__file__).name)
            self.places[(name, *own)] += 1


class Between(TrainerCallback):
    """Turns the counting on at the end of one step and off at the end of a later one."""

    def __init__(self, waits, first, last):
        self.waits, self.steps = waits, {first: True, last: False}

    def on_step_end(self, args, state, control, **kwargs):
        self.waits.on = self.steps.get(state.global_step, self.waits.on)


RUN = dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, epochs=1, batch_pairs=6))
STEPS = dataclasses.replace(RUN, method=MethodConfig("steps", "contrastive"))


@pytest.mark.parametrize("run", [RUN, STEPS], ids=["pairs", "whole steps"])
@pytest.mark.parametrize("pack", [True, False])
def test_no_step_between_two_logs_waits_for_the_device(make, run, pack, monkeypatch):  # noqa: F811
    trainer = make(False, run=run, pack=pack, logging_steps=6)
    waits = Waits(monkeypatch)
    trainer.add_callback(Between(waits, 1, 5))
    with waits:
        trainer.train()
    assert trainer.state.global_step == 7
    assert not waits.places, waits.places


def test_the_counting_sees_a_step_that_waits(make, monkeypatch):  # noqa: F811
    trainer = make(False, run=RUN, logging_steps=6)
    waits, step = Waits(monkeypatch), trainer.training_step
    monkeypatch.setattr(trainer, "training_step", lambda *args: step(*args) * 1 if float(
        trainer.model.score.weight.detach().sum()) else None)
    trainer.add_callback(Between(waits, 1, 5))
    with waits:
        trainer.train()
    assert waits.places.total() >= 3
