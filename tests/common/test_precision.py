"""What is computed in, and that a run says and is known by what was really used."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import ExperimentConfig, RuntimeConfig, TrainConfig, load_config
from model.reward_model import build_reward_model
from src.common import precision
from src.runs import folders
from src.runs.plan import Plan
from src.scoring.pairs import load_scorer, score
from tests.families import PAD
from tests.tiny_pairs import random_pairs

CPU_HAS_BF16 = precision.cpu_has_bf16
"""As imported: while tests run, a fixture answers in its place."""
RUN = RunConfig(
    experiment="e", kind="ceiling", name="m-L2", model="m", base="", kept=(1, 4), data="d",
    data_hash="", tokenizer="", split="train_2", labels=GROUND_TRUTH, teacher="",
    method=GROUND_TRUTH_METHOD, train=TrainConfig(precision="fp32"), seed=0)
BF16 = dataclasses.replace(RUN, train=TrainConfig(precision="bf16"))


@pytest.mark.parametrize(("has", "auto"), [({"avx512_bf16": True}, "bf16"),
                                           ({"amx_bf16": True}, "bf16"),
                                           ({"avx512_f": True, "amx_bf16": False}, "fp32"),
                                           ({}, "fp32")], ids=str)
def test_auto_is_bf16_on_a_cpu_that_has_instructions_for_it(monkeypatch, has, auto):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(precision, "cpu_has_bf16", CPU_HAS_BF16)
    assert precision.used("auto") == auto
    assert precision.used("fp32") == "fp32" and precision.used("bf16") == "bf16"
    assert ("warning" in precision.notice("bf16")) == (auto == "fp32")
    assert precision.notice("fp32") == "computes in fp32"


def test_a_run_says_what_was_used_and_is_known_by_it(finished, monkeypatch):
    """fp32 keeps the identity that `auto` had when it was fp32 on every CPU."""
    experiment = load_config(ExperimentConfig, str(finished.config))
    asks = {ask: dataclasses.replace(experiment, train=dataclasses.replace(
        experiment.train, precision=ask)) for ask in ("auto", "fp32", "bf16", "bf16_residual")}

    def run(ask: str) -> RunConfig:
        return Plan(asks[ask], finished.processed.parent).stage("teachers")[0]

    assert run("auto").train.precision == "fp32"
    assert run("auto").identity == run("fp32").identity != run("bf16").identity
    assert run("bf16_residual").identity not in (run("fp32").identity, run("bf16").identity)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    assert run("auto").train.precision == "bf16"
    assert run("auto").identity == run("bf16").identity


def test_an_old_run_that_says_auto_is_fp32_and_keeps_its_identity(finished, tmp_path):
    folder = finished.finished("teachers")[0]
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["train"]["precision"] = "auto"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    old, new = folders.read_run_config(tmp_path), folders.read_run_config(folder)
    assert old == new and old.train.precision == "fp32"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_run_is_scored_in_what_it_was_trained_in(base, tmp_path, family):
    """bf16 are the products of the layers; weights and head stay fp32, and rewards are close."""
    build_reward_model(base(family), (1, 4), 0, pad_token_id=PAD).save_pretrained(tmp_path)
    seen, rewards = {}, {}
    for run in (RUN, BF16):
        model = load_scorer(tmp_path, RuntimeConfig(), run)
        assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
        name = run.train.precision
        product = next(module for path, module in model.named_modules()
                       if path.endswith(("down_proj", "mlp.c_proj")))
        product.register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, out.dtype))
        rewards[name] = score(model, random_pairs(8), RuntimeConfig(), "")
    assert seen == {"fp32": torch.float32, "bf16": torch.bfloat16}
    gap = np.abs(rewards["bf16"] - rewards["fp32"]).max()
    assert 0 < gap < 0.1 * rewards["fp32"].std()


def test_weights_that_change_inside_are_not_those_that_were_rounded_before():
    layer, states = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with precision.computing("bf16", weights_change=True):
        layer(states)
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
        assert not layer(states).any()
