"""States of a finished run against the library's own, computed once."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from src.runs.folders import find_finished
from src.scoring import teacher_states as module
from src.scoring.teacher_states import teacher_states
from tests.scoring.test_scoring import RUN
from tests.tiny_experiment_parts import sweep_of
from tests.tiny_pairs import MemorySplit, random_pairs


@pytest.fixture
def asked(finished):
    """A teacher of two layers: its plan, run, folder, and where states are written."""
    tiny = finished.copy("teacher_states")
    plan = sweep_of(tiny)
    run = next(run for run in plan.stage("teachers") if len(run.kept) == 2)
    return plan, run, find_finished(tiny.runs_dir, "teachers", run.identity), tiny.runs_dir


@pytest.fixture
def known(monkeypatch):
    """The layers that are computed, each time; the states of a layer are its number."""
    computed = []
    monkeypatch.setattr(module, "run_fingerprint", lambda folder: "weights")
    monkeypatch.setattr(module, "_computed", lambda folder, run, plan, split, layers: (
        computed.append(layers),
        [np.full((len(plan.split(run, split)), 2, 4), layer, np.float32) for layer in layers])[1])
    return computed


def states(pairs, layers, runs_dir):
    plan = SimpleNamespace(split=lambda run, split: pairs)
    return teacher_states(runs_dir / "run", RUN, plan, "val", layers, runs_dir)


def test_states_are_the_library_s_and_read_from_disk_the_next_time(asked, monkeypatch):
    plan, run, folder, runs_dir = asked
    found = teacher_states(folder, run, plan, "val", [0, 1], runs_dir)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    split = plan.split(run, "val")
    for row in range(3):
        pair = split[row]
        for side, name in enumerate(("chosen_ids", "rejected_ids")):
            ids = torch.tensor([[*pair["prompt_ids"], *pair[name]]])
            with torch.no_grad():
                hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
            for layer, states in enumerate(found):  # the last one behind the final norm
                np.testing.assert_allclose(states[row, side], hidden[layer + 1][0, -1], atol=2e-5)
    monkeypatch.setattr(module, "load_scorer", lambda *_: pytest.fail("computed again"))
    again = teacher_states(folder, run, plan, "val", [1], runs_dir)
    np.testing.assert_array_equal(again[0], found[1])


def test_pairs_in_another_order_get_their_own_states(known, tmp_path):
    pairs = random_pairs(5)
    turned = MemorySplit(pairs.rows(range(4, -1, -1)))
    for each in (pairs, turned, pairs, turned):
        states(each, [1], tmp_path)
    assert known == [[1], [1]]


def test_who_asks_for_another_first_layer_waits_for_who_is_writing_it(known, tmp_path, monkeypatch):
    """Else it would take the half-written file for that of a killed launch, and remove it."""
    pairs, begun, save = random_pairs(5), [], np.save
    found = []
    second = threading.Thread(target=lambda: found.append(states(pairs, [5], tmp_path)))

    def slow(file, array):
        save(file, array)
        if not begun and array.flat[0] == 5:
            begun.append(True)
            second.start()
            second.join(0.3)

    monkeypatch.setattr(module.np, "save", slow)
    assert [each.flat[0] for each in states(pairs, [3, 5], tmp_path)] == [3, 5]
    second.join()
    assert found[0][0].flat[0] == 5 and known == [[3, 5]]


def test_what_a_killed_launch_had_half_written_is_removed_and_no_lock_is_left(known, tmp_path):
    states(random_pairs(5), [3, 5], tmp_path)
    files = sorted((tmp_path / "hidden_states").glob("*.npy"))
    for path in files:
        path.rename(path.with_name(f".{path.name}.12-abcdef01.partial"))
    states(random_pairs(5), [5, 3], tmp_path)
    assert sorted((tmp_path / "hidden_states").iterdir()) == files
