"""`micro_batch_tokens: auto`: as many tokens as the device holds, and the same result."""

import dataclasses
import re

import pytest
import torch
from safetensors.torch import load_file

from configs.schema import ExperimentConfig, RuntimeConfig
from src.batches.packing import AUTO_TOKENS
from src.common.errors import UserError
from src.common.files import read_json
from src.training import fit
from tests.model.test_memory import stand_in
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data

ROUNDING = 2e-5
"""Between weights after the same steps, added up in another order."""


def auto(model="llama_3_2_1b"):
    sweep, runs = stand_in(model, model)
    sweep.experiment = dataclasses.replace(
        sweep.experiment, runtime=dataclasses.replace(sweep.experiment.runtime,
                                                      micro_batch_tokens="auto"))
    return sweep, runs[0]


@pytest.mark.parametrize(("hardware", "processes"), [("gpu", 1), ("multi_gpu", 4), ("zero2", 4),
                                                     ("zero3", 2)])
def test_auto_is_the_most_that_the_formula_allows(hardware, processes):
    sweep, run = auto()
    size = fit.run_size(sweep, run)
    found = {}
    for memory in (24.0, 40.0, 60.0, 85.0, 192.0):
        runtime = fit.filled(sweep, size, hardware, processes, memory)
        found[memory] = runtime.micro_batch_tokens
        for tokens in AUTO_TOKENS:
            parts = fit.size_parts(sweep, size, hardware, processes, dataclasses.replace(
                runtime, micro_batch_tokens=tokens))
            if tokens > AUTO_TOKENS[-1]:
                assert (parts.total <= fit.USABLE * memory) == (tokens <= found[memory])
    assert list(found.values()) == sorted(found.values()) and len(set(found.values())) > 1
    assert found[192.0] == AUTO_TOKENS[0]


def test_a_number_stays_what_it_is_and_a_cpu_takes_the_least(monkeypatch):
    sweep, run = auto()
    size = fit.run_size(sweep, run)
    assert fit.filled(sweep, size, "cpu", 1, 1000.0).micro_batch_tokens == AUTO_TOKENS[-1] == 4096
    assert fit.runtime_of(sweep, run).micro_batch_tokens == 4096
    sweep.experiment = dataclasses.replace(sweep.experiment,
                                           runtime=RuntimeConfig(micro_batch_tokens=5000))
    assert fit.runtime_of(sweep, run).micro_batch_tokens == 5000


def test_the_gpu_with_least_memory_decides_for_all_ranks(monkeypatch):
    sweep, run = auto()
    launch = {"processes": 2, "deepspeed": ""}
    monkeypatch.setattr("src.common.distributed.launch_facts", lambda: launch)
    monkeypatch.setattr("src.common.distributed.gather", lambda mine: [85.0, 60.0])
    found = {}
    for memory in (85.0, 60.0):  # of this rank
        monkeypatch.setattr(fit, "device_gb", lambda memory=memory: memory)
        found[memory] = fit.runtime_of(sweep, run).micro_batch_tokens
    least = fit.filled(sweep, fit.run_size(sweep, run), "multi_gpu", 2, 60.0)
    most = fit.filled(sweep, fit.run_size(sweep, run), "multi_gpu", 2, 85.0)
    assert set(found.values()) == {least.micro_batch_tokens} != {most.micro_batch_tokens}


def test_hardware_is_chosen_and_refused_by_the_least_that_auto_may_be():
    sweep, run = auto()
    least = fit.size_parts(sweep, fit.run_size(sweep, run), "gpu", 1).total
    assert fit.choose(sweep, [run], 1, 1.01 * least / fit.USABLE) == "gpu"
    with pytest.raises(UserError, match="needs about"):
        fit.choose(sweep, [run], 1, 0.99 * least / fit.USABLE)


def test_auto_trains_the_same_model_and_says_what_it_was(tmp_path, capsys):
    fixed = make_experiment(tmp_path, train_pairs=48, runtime={"micro_batch_tokens": 128})
    prepare_data(fixed)
    chosen = fixed.copy("auto", runtime={"micro_batch_tokens": "auto"})
    folders, manifests = {}, {}
    for tiny in (fixed, chosen):
        assert in_process("src.train", *tiny.train("teachers")) == 0
        folder = folders[tiny] = tiny.finished("teachers")[0]
        manifests[tiny] = read_json(folder / "manifest.json")
    log = capsys.readouterr().out
    assert re.search(r"^micro_batch_tokens auto: llama-L1 4,096, llama-L2 4,096$", log,
                     re.MULTILINE)
    assert [each["micro_batch_tokens"] for each in manifests.values()] == [128, 4096]
    assert "| micro batches | 4,096 tokens" in (folders[chosen] / "README.md").read_text()
    assert folders[fixed].name == folders[chosen].name  # the identity is the same
    assert manifests[fixed]["steps"] == manifests[chosen]["steps"]
    one, other = (load_file(folder / "model.safetensors") for folder in folders.values())
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=ROUNDING, rtol=0)


def test_a_dry_run_says_what_auto_becomes(tmp_path, monkeypatch, capsys):
    tiny = make_experiment(tmp_path, train_pairs=16, runtime={"micro_batch_tokens": "auto"})
    prepare_data(tiny)
    capsys.readouterr()
    assert in_process("src.train", *tiny.train("teachers"), "--dry-run") == 0
    told = capsys.readouterr().out
    assert re.search(r"^rung +HARDWARE .* all +tokens$", told, re.MULTILINE)
    assert re.search(r"^llama-L2 +cpu .* 4,096$", told, re.MULTILINE)
    assert re.search(r"^ +zero3 .* 32,768$", told, re.MULTILINE)


def test_a_misspelling_and_policies_are_refused_in_one_line():
    with pytest.raises(UserError, match="'atuo'.*'auto'"):
        RuntimeConfig(micro_batch_tokens="atuo")
    with pytest.raises(UserError, match="auto: .* policy.* give a number of tokens"):
        ExperimentConfig(name="e", data="d", teachers=({"model": "m"},),
                         runtime={"micro_batch_tokens": "auto"},
                         policies={"model": "m"})
