"""Memory by formula: that of the tensors that torch holds; a stage that cannot fit is refused."""

import dataclasses
import os
import re
import types

import pytest
import torch
import yaml
from transformers import AutoConfig

from configs.model_schema import ModelConfig
from configs.schema import (
    CONFIG_ROOT,
    DataConfig,
    ExperimentConfig,
    LoraConfig,
    TrainConfig,
    load_config,
)
from configs.strict_yaml import from_dict
from model.base.adapters import add_adapters
from model.base.memory import Forward, scoring_gb, size_of, training_parts
from model.reward_model import build_reward_model
from speed.gpu.published import PUBLISHED
from src.common.errors import UserError
from src.training import choose_hardware, fit
from tests.families import LAYERS, PAD, tiny_config
from tests.tiny_experiment import command, in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data

GPU_GB = 85.0
"""Of what is sold as 80 GB."""


def state_gb(size, hardware, processes, precision="fp32"):
    return training_parts(size, hardware, processes, precision, Forward(1)).state


def shape(model):
    return AutoConfig.for_model(**PUBLISHED[model])


def stand_in(experiment, model):
    """A sweep as far as it is asked here, and its run on the whole `model`."""
    config = shape(model)
    loaded = load_config(ExperimentConfig, experiment)
    sweep = types.SimpleNamespace(experiment=loaded, data=load_config(DataConfig, loaded.data),
                                  bases={model: types.SimpleNamespace(hf_config=config)})
    run = types.SimpleNamespace(model=model, kept=tuple(range(config.num_hidden_layers)),
                                train=loaded.train, display_name=model, name=model)
    return sweep, [run]


def test_what_one_process_holds_is_what_torch_holds_after_a_step(base):
    model = build_reward_model(base("llama"), tuple(range(LAYERS)), 0, pad_token_id=PAD)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = [*model.parameters(), *(parameter.grad for parameter in model.parameters()),
            *(value for state in optimizer.state.values() for name, value in state.items()
              if name != "step")]
    found = sum(tensor.numel() * tensor.element_size() for tensor in held)
    size = size_of(tiny_config("llama"), tuple(range(LAYERS)), TrainConfig())
    assert state_gb(size, "cpu", 1) * 1e9 == pytest.approx(found, abs=0.5)


def test_frozen_embeddings_have_neither_gradient_nor_optimiser(base):
    kept, frozen = (0, 2, 5), TrainConfig(freeze_embeddings=True)
    sizes = [size_of(tiny_config("llama"), kept, train) for train in (TrainConfig(), frozen)]
    embedded = build_reward_model(base("llama"), kept, 0, pad_token_id=PAD).get_input_embeddings()
    saved = state_gb(sizes[0], "cpu", 1) - state_gb(sizes[1], "cpu", 1)
    assert saved * 1e9 == pytest.approx(12 * embedded.weight.numel())


def test_of_adapters_alone_there_are_gradients_and_an_optimiser(base):
    kept, lora = (0, 2, 5), LoraConfig(rank=4)
    model = add_adapters(build_reward_model(base("llama"), kept, 0, pad_token_id=PAD), lora, 1, 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = [*model.parameters(), *(parameter.grad for parameter in trained),
            *(value for state in optimizer.state.values() for name, value in state.items()
              if name != "step")]
    found = sum(tensor.numel() * tensor.element_size() for tensor in held)
    train = TrainConfig(trainable_layers=2, lora=lora)
    size = size_of(tiny_config("llama"), kept, train)
    assert state_gb(size, "cpu", 1) * 1e9 == pytest.approx(found, abs=0.5)


@pytest.mark.parametrize(("model", "gb"), [("llama_3_1_8b", 50), ("gemma_2_9b", 60)])
def test_adapters_of_the_biggest_models_train_on_one_gpu_as_their_files_say(model, gb):
    sweep, runs = stand_in(model, model)
    text = (CONFIG_ROOT / "experiments" / f"{model}.yaml").read_text()
    lines = text.split("`train` becomes\n")[1].split("\ndata:")[0].replace("#", " ")
    adapters = from_dict(TrainConfig, yaml.safe_load(lines)["train"])
    rate = 10 * load_config(ModelConfig, model).learning_rate
    assert adapters.learning_rate == pytest.approx(rate)
    assert adapters == dataclasses.replace(runs[0].train, lora=LoraConfig(),
                                           learning_rate=adapters.learning_rate)
    runs[0].train = adapters
    assert fit.choose(sweep, runs, 1, GPU_GB) == "gpu" and f"about {gb} GB" in text
    needed = fit.size_parts(sweep, fit.run_size(sweep, runs[0]), "gpu", 1).total
    assert needed == pytest.approx(gb, abs=2)


@pytest.mark.parametrize(("model", "hardware", "processes", "tokens", "gb"), [
    ("llama_3_2_1b", "gpu", 1, 8192, 40), ("llama_3_2_1b", "multi_gpu", 2, 8192, 45),
    ("llama_3_2_3b", "multi_gpu", 2, 4096, 74), ("llama_3_1_8b", "multi_gpu", 8, 4096, 170),
    ("qwen3_4b", "multi_gpu", 8, 4096, 92), ("llama_3_1_8b", "zero3", 4, 4096, 44),
    ("llama_3_1_8b", "zero3", 4, 16384, 49), ("mistral_nemo_12b", "zero3", 4, 4096, 64)])
def test_the_formula_agrees_with_a_reckoning_by_hand(model, hardware, processes, tokens, gb):
    """To 4%: state, copies, activations and the rest, each added up apart; see memory.py."""
    config = shape(model)
    size = size_of(config, tuple(range(config.num_hidden_layers)), TrainConfig())
    forward = Forward(tokens, checkpointing=model != "llama_3_2_1b")
    found = training_parts(size, hardware, processes, "bf16", forward)
    assert found.total == pytest.approx(gb, rel=0.04)


def test_layers_that_do_not_train_have_no_gradients_no_optimiser_and_no_activations():
    config, kept = shape("llama_3_1_8b"), tuple(range(32))
    whole, top = (size_of(config, kept, TrainConfig(trainable_layers=top)) for top in (None, 2))
    top, whole = (training_parts(each, "gpu", 1, "bf16", Forward(8192)) for each in (top, whole))
    assert top.state < 0.4 * whole.state
    assert top.activations < 0.15 * whole.activations


@pytest.mark.parametrize(("experiment", "model", "on_one", "on_eight"), [
    ("llama_3_2_1b", "llama_3_2_1b", "gpu", "multi_gpu"),
    ("llama_3_2_3b", "llama_3_2_3b", "gpu", "multi_gpu"),
    ("gemma_2_2b", "gemma_2_2b", "gpu", "multi_gpu"),
    ("qwen3", "qwen3_4b", "gpu", "zero2"),
    ("qwen3", "qwen3_8b", None, "zero2"),
    ("llama_3_1_8b", "llama_3_1_8b", None, "zero2"),
    ("gemma_2_9b", "gemma_2_9b", None, "zero2"),
    ("ministral", "mistral_7b", None, "zero2"),
    ("mistral", "mistral_nemo_12b", None, "zero2")])
def test_each_big_experiment_gets_hardware_that_holds_it(experiment, model, on_one, on_eight):
    sweep, runs = stand_in(experiment, model)
    assert fit.choose(sweep, runs, 8, GPU_GB) == on_eight
    if on_one is None:
        with pytest.raises(UserError, match=r"on each of 1 GPU\(s\) .* on [248] GPU\(s\) of 85 GB"):
            fit.choose(sweep, runs, 1, GPU_GB)
    else:
        assert fit.choose(sweep, runs, 1, GPU_GB) == on_one
    assert scoring_gb(fit.run_size(sweep, runs[0]), 32768) < 0.5 * GPU_GB


@pytest.mark.parametrize(("hardware", "remedy"), [
    ({"processes": 8, "deepspeed": ""}, "zero2 on 8 GPU"),
    ({"processes": 2, "deepspeed": "zero2.json"}, "zero3 on 2 GPU")])
def test_a_launch_that_cannot_hold_a_run_names_what_would(monkeypatch, hardware, remedy):
    sweep, runs = stand_in("llama_3_1_8b", "llama_3_1_8b")
    monkeypatch.setattr(fit, "device_gb", lambda: GPU_GB)
    monkeypatch.setattr("src.common.distributed.launch_facts", lambda: hardware)
    with pytest.raises(UserError, match=f"llama_3_1_8b needs about .* HARDWARE={remedy}"):
        fit.require_fit(sweep, runs)


def test_a_cpu_is_refused_only_what_its_memory_cannot_hold(monkeypatch):
    sweep, runs = stand_in("llama_3_2_1b", "llama_3_2_1b")
    monkeypatch.setattr(fit, "cpu_has_bf16", lambda: False)
    for pages, fits in ((6 * 10**6, True), (4 * 10**6, False)):  # 25 and 16 GB; 20 are needed
        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": pages}.get)
        if fits:
            fit.require_fit(sweep, runs)
        else:
            with pytest.raises(UserError, match="about 20 GB .* machine has 16"):
                fit.require_fit(sweep, runs)


def test_a_stage_that_does_not_fit_trains_nothing_and_a_dry_run_says_so(tmp_path, monkeypatch,
                                                                        capsys):
    tiny = make_experiment(tmp_path, train_pairs=16)
    prepare_data(tiny)
    monkeypatch.setattr(fit, "device_gb", lambda: 0.5)
    with pytest.raises(UserError, match="llama-L2-s0 needs about 2 GB on each of 1 GPU"):
        in_process("src.train", *tiny.train("teachers"))
    assert not tiny.runs_dir.exists()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert in_process("src.train", *tiny.train("teachers"), "--dry-run") == 0
    told = capsys.readouterr().out
    part = r" +\d\.\d\d"
    assert re.search(f"llama-L2 +cpu({part}){{5}} +0.00{part}\n +gpu({part}){{5}} +1.70{part}\n",
                     told)
    assert all(f" {kind} " in told for kind in ("multi_gpu", "zero2", "zero3"))
    assert "does not fit: llama-L2-s0 needs" in told
    monkeypatch.setattr(fit, "device_gb", lambda: GPU_GB)
    monkeypatch.setattr(choose_hardware, "device_gb", lambda: GPU_GB)
    assert in_process("src.training.choose_hardware", *tiny.train("teachers")) == 0
    assert capsys.readouterr().out == "multi_gpu\n"


STUB = """#!/bin/sh
case "$*" in
  *src.common.gpus*) echo 8 ;;
  *src.training.choose_hardware*) [ -z "$REFUSED" ] || exit 2; echo "library"; echo zero2 ;;
  *accelerate*) echo "launched $*"; echo 0 > "$STATUS_FILE" ;;
esac
"""


@pytest.mark.parametrize(("asked", "refused", "code", "launched"), [
    ("auto", "", 0, "zero2.yaml"), ("auto", "1", 2, ""), ("zero3", "1", 0, "zero3.yaml")])
def test_the_script_takes_the_hardware_that_holds_the_stage(tmp_path, asked, refused, code,
                                                            launched):
    for name in ("python", "nvidia-smi"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    ended = command("bash", "-c", "set -euo pipefail; source src/shell.sh; python=$0; launch_stage "
                    "teachers llama_3_1_8b", str(tmp_path / "python"), HARDWARE=asked,
                    REFUSED=refused, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ended.returncode == code, ended.stderr
    assert ("launched" in ended.stdout) == bool(launched) and launched in ended.stdout
    assert not launched or "--num_processes 8" in ended.stdout


def test_a_refusal_names_every_single_change_that_would_do(monkeypatch):
    """Each is then held to the formula again: it does fit."""
    sweep, runs = stand_in("llama_3_2_1b", "llama_3_2_1b")
    with pytest.raises(UserError) as refused:
        fit.choose(sweep, runs, 1, 36.0)
    told = str(refused.value)
    assert re.search(r"HARDWARE=\w+ on \d GPU\(s\) of 36 GB would do", told)
    assert "runtime.gradient_checkpointing: true would" in told and "train.lora" in told
    tokens = int(re.search(r"runtime.micro_batch_tokens: (\d+) would", told)[1])
    for changed in ({"gradient_checkpointing": True}, {"micro_batch_tokens": tokens}):
        runtime = dataclasses.replace(sweep.experiment.runtime, **changed)
        parts = fit.size_parts(sweep, fit.run_size(sweep, runs[0]), "gpu", 1, runtime)
        assert parts.total <= fit.USABLE * 36
    more = dataclasses.replace(sweep.experiment.runtime, micro_batch_tokens=tokens + 1024)
    assert fit.size_parts(sweep, fit.run_size(sweep, runs[0]), "gpu", 1,
                          more).total > fit.USABLE * 36
