"""Frozen layers run once for all the runs above them, and no result tells that they did."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from configs.schema import RuntimeConfig
from src.common.files import write_json
from src.common.lock import lock, quiet
from src.scoring import trunk_cache
from src.scoring.pairs import score
from src.scoring.trunk_cache import trunk_of
from src.scoring.trunk_choice import is_read
from src.train import train_stage
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process, make_experiment, preference_rows
from tests.tiny_experiment_parts import prepare_data, sweep_of

TRAIN = {"epochs": 2, "trainable_layers": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = make_experiment(tmp_path_factory.mktemp("trunks"), rows=120, train_pairs=32,
                           layers=([2], [2, 4]), seeds=[0, 1], train=TRAIN)
    prepare_data(made)
    return made


@pytest.fixture
def filled(monkeypatch):
    """(layers skipped, layers in all) of every cache that is computed."""
    found = []
    real = trunk_cache._fill

    def fill(model, trees, folder, facts, runtime, start):
        found.append((start[1]["below"] if start else 0, facts["below"]))
        real(model, trees, folder, facts, runtime, start)

    monkeypatch.setattr(trunk_cache, "_fill", fill)
    return found


def train(tiny, *stages):
    for stage in stages:
        assert not train_stage(sweep_of(tiny), stage, tiny.runs_dir, 0, 1)


def cache_of(tiny, stage="ceilings", number=-1, split="train_2", **runtime):
    sweep = sweep_of(tiny)
    sweep.experiment = dataclasses.replace(sweep.experiment, runtime=dataclasses.replace(
        sweep.experiment.runtime, **runtime))
    return sweep, trunk_of(sweep.stage(stage)[number], sweep, split, tiny.runs_dir)


def weights(tiny, stage):
    return {folder.name: load_file(folder / "model.safetensors") for folder in
            tiny.finished(stage)}


def test_runs_seeds_teachers_and_epochs_share_a_trunk_and_weights_stay_the_same(tiny, filled):
    cached = tiny.copy("cached")
    plain = tiny.copy("plain", runtime={"trunk_cache_gb": 0})
    for each in (cached, plain):
        train(each, "teachers", "ceilings", "students")
    assert sorted(filled) == [(0, 1), (0, 1), (0, 3)]  # L2 on both halves, L4 on the second
    base = load_file(tiny.model / "model.safetensors")
    for stage in ("teachers", "ceilings", "students"):
        ours, reference = weights(cached, stage), weights(plain, stage)
        assert ours.keys() == reference.keys() and ours
        for name, state in reference.items():
            for key, tensor in state.items():
                # How far rounding takes one weight depends on the CPU: 1.006e-6 on one with AMX.
                torch.testing.assert_close(ours[name][key], tensor, rtol=0, atol=5e-6)
                if key in base and not torch.equal(tensor, base[key]):
                    assert (ours[name][key] - tensor).norm() < 1e-4 * (tensor - base[key]).norm()


@pytest.mark.parametrize(("layers", "weights", "width", "read"), [
    (14, 60.8e6, 2048, True), (28, 3.54e6, 576, False), (30, 218e6, 4096, True)])
def test_on_cuda_a_trunk_is_read_where_its_layers_take_longer(layers, weights, width, read):
    assert is_read("cuda", layers * weights, 4 * width) is read
    assert is_read("cpu", layers * weights, 4 * width)


def test_a_trunk_that_is_computed_sooner_is_neither_made_nor_read(tiny, filled, monkeypatch):
    monkeypatch.setattr(trunk_cache, "is_read", lambda device, weights, token_bytes: is_read(
        "cuda", weights, token_bytes))
    own = tiny.copy("sooner")
    sweep, cache = cache_of(own)
    assert cache is None and filled == []
    assert trunk_cache.planned_trunk(sweep.stage("ceilings")[-1], sweep, "train_2") is None


def test_layers_that_do_not_train_are_saved_as_they_were(tiny):
    trained = tiny.copy("saved")
    train(trained, "ceilings")
    base = load_file(tiny.model / "model.safetensors")
    folder = next(f for f in trained.finished("ceilings") if "L4" in f.name)
    state = load_file(folder / "model.safetensors")
    same = {key for key, tensor in state.items() if key in base and torch.equal(tensor, base[key])}
    assert {"model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight"} <= same
    assert not any("layers.3" in key or key == "model.norm.weight" for key in same)


def test_scores_from_a_cache_are_those_of_the_whole_model(tiny):
    sweep, cache = cache_of(tiny.copy("scores"), split="val")
    run = sweep.stage("ceilings")[-1]
    split = sweep.split(run, "val")
    from src.training.train_run import _build
    whole = score(_build(run, sweep), split, sweep.experiment.runtime, "")
    above = score(_build(run, sweep), split, sweep.experiment.runtime, "", cache)
    np.testing.assert_allclose(above, whole, rtol=0, atol=1e-5)
    assert cache.below == 3


def test_a_set_of_other_pairs_is_read_once_through_the_frozen_layers_of_all_runs(
        tiny, filled, tmp_path):
    data = str(write_jsonl(tmp_path / "elsewhere.jsonl", preference_rows(154, seed=9)[130:]))
    cached = tiny.copy("elsewhere")
    train(cached, "teachers", "ceilings")
    plain = cached.copy("elsewhere_plain", runtime={"trunk_cache_gb": 0})
    assert in_process("eval", *cached.evaluate(), "--transfer", data) == 0
    name, = {path.stem for path in cached.runs_dir.rglob("scores/elsewhere-*.parquet")}
    assert sorted(path.name[:len(name) + 2] for path in (cached.runs_dir / "trunks").glob(
        "elsewhere-*")) == [f"{name}-1", f"{name}-3"]
    assert filled[-2:] == [(0, 1), (0, 3)]  # L2 and L4, whatever their seeds
    assert in_process("eval", *plain.evaluate(), "--transfer", data) == 0
    ours, reference = (scored(each, name) for each in (cached, plain))
    assert ours.keys() == reference.keys() and len(ours) == 6
    for run, table in reference.items():
        pd.testing.assert_frame_equal(ours[run], table, check_exact=False, rtol=0, atol=1e-5)


def scored(tiny, name):
    """Run -> its rewards on a set."""
    return {path.parts[-3]: pd.read_parquet(path)
            for path in tiny.runs_dir.rglob(f"scores/{name}.parquet")}


def test_a_deeper_prefix_begins_where_a_shallower_one_ends(tiny, filled):
    first = tiny.copy("first", students=[{"model": str(tiny.root / "llama.yaml"), "keep": "first",
                                          "layers": [2, 3, 4]}])
    alone = tiny.copy("alone", students=first.settings()["students"])
    for number in (0, 1, 2):
        _, cache = cache_of(first, number=number)
    assert filled == [(0, 1), (1, 2), (2, 3)]
    _, reference = cache_of(alone, number=2)
    np.testing.assert_allclose(cache.rows, reference.rows, rtol=0, atol=1e-5)


def test_a_shallower_one_that_another_launch_removes_is_done_without(tiny, monkeypatch):
    students = [{"model": str(tiny.root / "llama.yaml"), "keep": "first", "layers": [2, 3]}]
    beside, alone = (tiny.copy(name, students=students) for name in ("beside", "without"))
    cache_of(beside, number=0)
    found = trunk_cache._deepest_found

    def found_and_removed(*words):
        start = found(*words)
        (start[0] / trunk_cache.HIDDEN).unlink()
        return start

    monkeypatch.setattr(trunk_cache, "_deepest_found", found_and_removed)
    _, cache = cache_of(beside, number=1)
    monkeypatch.undo()
    _, reference = cache_of(alone, number=1)
    np.testing.assert_array_equal(cache.rows, reference.rows)


def test_hidden_states_in_bf16_are_those_of_fp32_rounded(tiny):
    half = tiny.copy("half", train={"trunk_cache_dtype": "bf16"})
    _, exact = cache_of(tiny.copy("exact"))
    _, rounded = cache_of(half)
    token = torch.tensor([[0, 5, -1], [2, 1, 0]])
    assert rounded.read(token).dtype == torch.bfloat16
    assert torch.equal(rounded.read(token), exact.read(token).bfloat16())
    assert rounded.rows.nbytes * 2 == exact.rows.nbytes


def test_a_cache_above_the_budget_is_not_kept_and_the_oldest_goes_first(tiny, filled, capsys):
    one = tiny.copy("budget")
    _, cache = cache_of(one)
    size = cache.rows.nbytes / 1e9
    assert cache_of(one, split="val", trunk_cache_gb=size / 1000)[1] is None
    assert "above trunk_cache_gb" in capsys.readouterr().out
    _, other = cache_of(one, split="train_1", trunk_cache_gb=1.2 * size)
    assert other is not None
    assert [path.name[:7] for path in (one.runs_dir / "trunks").glob("t*")] == ["train_1"]
    before = len(filled)
    cache_of(one)
    assert len(filled) == before + 1


def test_caches_that_others_fill_count_and_what_a_killed_launch_left_is_removed(tmp_path, capsys):
    whole, first, second, third = (tmp_path / "trunks" / f"val-{layers}" for layers in range(4))
    facts = {"below": 1, "tokens": 1000, "width": 4, "dtype": "fp32"}
    runtime = RuntimeConfig(trunk_cache_gb=2.5 * 16000 / 1e9)

    def begin(folder):
        return trunk_cache._make_room(folder, facts, runtime)

    with lock(whole, quiet):
        assert begin(whole)
        write_json(whole / "manifest.json", facts)
    with lock(first, quiet), lock(second, quiet):
        assert begin(first) and begin(second) and not whole.exists()
        with lock(third, quiet):
            assert not begin(third) and not third.exists()
    assert "beside what others are filling" in capsys.readouterr().out
    with lock(third, quiet):  # the others were killed: nobody holds them
        assert begin(third)
    assert sorted((tmp_path / "trunks").iterdir()) == [third]


def test_a_cache_that_was_cut_short_is_computed_again(tiny, filled):
    broken = tiny.copy("broken")
    cache_of(broken)
    folder = next((broken.runs_dir / "trunks").glob("t*"))
    (folder / "manifest.json").unlink()
    cache_of(broken)
    (folder / "hidden.bin").unlink()
    cache_of(broken)
    assert len(filled) == 3


def test_a_cache_has_its_place_on_the_disk_before_it_is_mapped(tiny, monkeypatch):
    """On a disk that fills up under a mapped file a process ends with SIGBUS and says nothing."""
    allocated, real = [], trunk_cache._fill

    def fill(model, trees, folder, *rest):
        facts = (folder / "hidden.bin").stat()
        allocated.append(facts.st_blocks * 512 >= facts.st_size > 0)
        real(model, trees, folder, *rest)

    monkeypatch.setattr(trunk_cache, "_fill", fill)
    _, cache = cache_of(tiny.copy("placed"))
    assert allocated == [True] and cache is not None


def full_disk(file, offset, length):
    os.truncate(file, length)
    raise OSError(28, os.strerror(28))


def test_a_disk_too_full_for_a_cache_names_the_file_and_a_rerun_goes_on(tiny, monkeypatch):
    full = tiny.copy("full")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space") as stopped:
        patched.setattr(trunk_cache.os, "posix_fallocate", full_disk)
        cache_of(full)
    assert stopped.value.filename.endswith("hidden.bin") and stopped.value.errno == 28
    assert not list(full.runs_dir.rglob("hidden.bin"))
    assert cache_of(full)[1].rows.shape[0] > 0
