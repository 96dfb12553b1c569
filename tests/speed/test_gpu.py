"""What is measured for and on GPUs, as far as a CPU can: memory by formula against live tensors."""

import gc

import pytest
import torch
from transformers import AutoConfig

from configs.schema import ModelConfig, load_config
from model.base.truncate import count_parameters
from speed.gpu import experiments, memory
from speed.gpu.live import LiveBytes
from speed.gpu.published import PUBLISHED
from tests.tiny_experiment import command


def test_a_storage_counts_once_and_until_nothing_refers_to_it():
    held = torch.ones(10)  # 40 bytes
    with LiveBytes([held]) as live:
        first = torch.ones(100)  # 400 more
        view = first[:50]
        assert live.live == 440
        del first
        assert live.live == 440
        del view
        gc.collect()
        assert (live.live, live.peak) == (40, 440)


def test_what_a_backward_needs_is_counted():
    weight = torch.ones(8, 8, requires_grad=True)
    with LiveBytes([weight]) as live:
        (weight.exp() * 2).sum().backward()  # exp keeps its output
    assert live.peak >= 3 * 256 and weight.grad is not None


@pytest.mark.parametrize("name", [*memory.FAMILIES, "residual", "checkpointing",
                                  "adapters"])
def test_the_formula_is_within_a_tenth_of_the_tensors_that_live(name):
    """Two optimiser steps of the trainer itself, in fp32 or under autocast; see memory.CASES."""
    found = memory.measure(memory.CASES[name])
    assert found.formula == pytest.approx(found.peak, rel=0.1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_as_many_parameters_as_their_models_say(name):
    said = load_config(ModelConfig, name).parameters
    config = AutoConfig.for_model(**PUBLISHED[name])
    total, _ = count_parameters(config, tuple(range(config.num_hidden_layers)))
    head = config.vocab_size * config.hidden_size  # which some count, and some have no own of
    assert not said or min(abs(total - 1e9 * said), abs(total + head - 1e9 * said)) < 1e7 * said


def test_the_page_on_memory_tells_what_the_command_reckons():
    """Of every experiment on it, and every one of a published model is."""
    told = [line for line in experiments.PAGE.read_text(encoding="utf-8").splitlines()
            if line.startswith("| `")]
    reckoned = experiments.rows()[2:]
    assert told and not set(told) - set(reckoned)
    missing = set(reckoned) - set(told)
    assert not [line for line in missing if " GPU" in line], "run the command with --write"
    assert not [line for line in reckoned if "| none |" in line]


@pytest.mark.launch
def test_the_gpu_script_runs_on_a_cpu_and_everything_agrees(tmp_path):
    """The same script as on a GPU box, with tiny shapes: all lines but speed's are as expected."""
    out = tmp_path / "table.md"
    ended = command("speed/gpu.sh", "--cpu-rehearsal", timeout=900, OUT=str(out))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line for line in out.read_text().splitlines() if line.startswith("| ")][1:]
    for what in ("rewards, flex", "gradients, varlen", "losses, multi_gpu", "losses, zero2",
                 "losses, zero3", "TRL RewardTrainer, 2 layer(s)", "ours, 1 layer(s)",
                 "memory, llama"):
        assert any(line.startswith(f"| {what}") for line in lines), what
    assert not [line for line in lines if line.endswith("| NO |") and "ours" not in line]
    assert sum(line.endswith("| yes |") for line in lines) >= 8


def test_the_gpu_script_says_what_it_takes_and_refuses_what_it_does_not_know():
    told = command("speed/gpu.sh", "--help")
    assert told.returncode == 0 and "--cpu-rehearsal" in told.stdout
    refused = command("speed/gpu.sh", "--gpu")
    assert refused.returncode == 2 and "expected --cpu-rehearsal" in refused.stderr
