"""Compiled decoder layers: few graphs, the same training, and plain checkpoints.

Back ends that run graphs without making kernels stand in for the compiler, which takes minutes.
"""

import dataclasses
import logging
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.parallel import DistributedDataParallel

from configs.schema import LoraConfig, RuntimeConfig
from model import compiled, layer_graphs
from model.attention import flex
from model.base.adapters import add_adapters
from model.base.truncate import decoder_layers
from model.base.trunk import freeze_below, freeze_embeddings, hidden_states
from model.reward_model import build_reward_model
from src.batches.collate import MODEL_INPUTS, PairDataset
from src.common.errors import UserError
from src.common.precision import RESIDUAL
from src.training.arguments import training_arguments
from src.training.trainer import build_trainer
from tests.families import PAD
from tests.tiny_pairs import random_pairs
from tests.training.test_trainer import (
    KEPT,
    PAIRS,
    ROUNDING,
    RUN,
    RUNTIME,
    gap,
    logged,
    run_with,
    trained,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """Graphs as they are traced, so that no rounding differs."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    compiled.compiler.cache_clear()
    compiled._compiled.cache_clear()
    names = ("recompile_limit", "specialize_float", "optimize_ddp")
    with torch._dynamo.config.patch({name: getattr(torch._dynamo.config, name) for name in names}):
        yield
    torch._dynamo.reset()


def unchanged(model):
    return model


def with_checkpoints(model):
    return model


def with_adapters(model):
    return add_adapters(model, LoraConfig(rank=2, alpha=4.0), 0, 0)


def with_frozen_embeddings(model):
    freeze_embeddings(model)
    return model


def above_a_trunk(model):
    freeze_below(model, 1)
    return model


@pytest.fixture
def make(base, tmp_path):
    """A trainer on a tiny model of four kept layers, of which the last is never compiled."""
    def trainer(compile_layers, change=unchanged, run=RUN, hidden_of=None, **runtime):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        runtime = dataclasses.replace(RUNTIME, micro_batch_tokens=60,
                                      compile_layers=compile_layers,
                                      gradient_checkpointing=change is with_checkpoints, **runtime)
        return build_trainer(
            run, runtime, lambda: change(build_reward_model(
                base("llama"), KEPT, run.seed, pad_token_id=PAD,
                last_layer_shortcut=runtime.last_layer_shortcut)),
            training_arguments(run, runtime, folder, PAIRS),
            PairDataset(random_pairs(PAIRS), np.random.default_rng(5).random(PAIRS),
                        hidden_of=hidden_of), None, PAD)
    return trainer


def lengths(trainer):
    """Of all rows of an epoch."""
    return {micro["input_ids"].shape[1] for step in trainer.get_train_dataloader()
            for micro in step["micro_batches"]}


def test_an_epoch_of_rows_of_many_lengths_is_four_graphs_and_the_next_run_none(make, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")  # what the real one does before kernels
    plain = make(False)
    assert len(lengths(plain)) > 4
    end = trained(plain)
    for graphs in (compiled.MOST_GRAPHS, 0):
        fast = make(True)
        assert gap(trained(fast), end) < ROUNDING
        np.testing.assert_allclose(logged(fast), logged(plain), atol=1e-5)
        assert fast.layer_graphs.layers == len(KEPT) - 1
        assert fast.layer_graphs.graphs == graphs


@pytest.mark.parametrize("change", [with_checkpoints, with_adapters, with_frozen_embeddings,
                                    above_a_trunk])
def test_checkpointing_adapters_and_frozen_parts_are_four_graphs_and_train_the_same(make, change):
    plain, fast = make(False, change), make(True, change)
    assert gap(trained(fast), trained(plain)) < ROUNDING
    assert 0 < fast.layer_graphs.graphs <= compiled.MOST_GRAPHS
    assert fast.layer_graphs.layers == (1 if change is above_a_trunk else 2)


def test_a_residual_stream_in_bf16_is_four_graphs_too_and_trains_the_same(make):
    run = run_with(precision=RESIDUAL)
    plain, fast = make(False, run=run), make(True, run=run)
    assert gap(trained(fast), trained(plain)) < ROUNDING
    assert 0 < fast.layer_graphs.graphs <= compiled.MOST_GRAPHS


def test_what_a_trunk_cache_gives_enters_compiled_layers(make, base):
    frozen = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    data = make(False).train_dataset
    known = {}
    for pair in range(PAIRS):
        micro = make_batch(data, [pair], hidden_of=lambda token: token)
        token = micro.pop("hidden")
        known.update(zip(token.flatten().tolist(), hidden_states(
            frozen, 1, {name: micro[name] for name in MODEL_INPUTS})[0], strict=True))

    def read(token):
        return torch.stack([known[one] for one in token.flatten().tolist()])[None]

    fast = make(True, above_a_trunk, hidden_of=read)
    assert gap(trained(fast), trained(make(False, above_a_trunk))) < ROUNDING
    assert 0 < fast.layer_graphs.graphs <= compiled.MOST_GRAPHS


def make_batch(data, pairs, hidden_of):
    from src.batches.collate import TreeCollator
    examples = data.read(np.array(pairs), np.arange(len(pairs)))
    return TreeCollator(PAD).lay_out(examples.ids, hidden_of)[0]


def test_a_resumed_compiled_run_has_the_same_weights_and_checkpoints_are_plain(make, tmp_path):
    whole = make(True, save_steps=2)
    end = trained(whole)
    whole.save_model(tmp_path / "saved")
    checkpoint = next(tmp_path.glob("*/resume/checkpoint-4"))
    again = make(True)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert gap(again.model.state_dict(), end) == 0
    make(False).save_model(tmp_path / "plain")
    names, plain = (set(load_file(tmp_path / folder / "model.safetensors"))
                    for folder in ("saved", "plain"))
    assert names == plain == set(load_file(checkpoint / "model.safetensors"))
    assert not any("_orig_mod" in name for name in names)


def test_graphs_beyond_four_are_one_warning_with_the_cause(make, caplog):
    trainer = make(True, pack=False)  # rows of one batch vary in number, and one is not many
    with caplog.at_level(logging.WARNING, logger=layer_graphs.__name__):
        trainer.train()
    said = [record.getMessage() for record in caplog.records
            if record.name == layer_graphs.__name__]
    assert trainer.layer_graphs.graphs > compiled.MOST_GRAPHS
    assert len(said) == 1 and "compiled again" in said[0] and "unknown" not in said[0]
    assert "size mismatch" in said[0] or ".size()" in said[0] or "== 1" in said[0], said


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "qwen3"])
def test_families_and_layers_of_several_windows_are_four_graphs(base, family):
    models = [build_reward_model(base(family), (0, 1, 2, 3), 0, pad_token_id=PAD)
              for _ in range(2)]
    compiled.compile_layers(models[0], last_layer_shortcut=True)
    for pairs in ([0], [0, 1, 2], [3, 4]):
        batch = make_batch(PairDataset(random_pairs(5), np.ones(5)), pairs, None)
        inputs = {name: batch[name] for name in MODEL_INPUTS}
        rewards = [model(**inputs) for model in models]
        for found in rewards:
            found.sum().backward()
        torch.testing.assert_close(*rewards, atol=1e-5, rtol=0)
    for fast, plain in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(fast.grad, plain.grad, atol=1e-4, rtol=1e-4)
    assert len(compiled.compiler(compiled.BACKEND).compiled) == compiled.MOST_GRAPHS


def test_a_model_that_is_spread_over_processes_has_no_more_graphs(base):
    """torch would cut every graph at the borders of what processes exchange at once."""
    models = [build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD) for _ in range(2)]
    compiled.compile_layers(models[0], last_layer_shortcut=True)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        spread = DistributedDataParallel(models[0], bucket_cap_mb=0.001)
        for pairs in ([0], [0, 1, 2], [3, 4]):
            batch = make_batch(PairDataset(random_pairs(5), np.ones(5)), pairs, None)
            inputs = {name: batch[name] for name in MODEL_INPUTS}
            for model in (spread, models[1]):
                model(**inputs).sum().backward()
    finally:
        dist.destroy_process_group()
    for fast, plain in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(fast.grad, plain.grad, atol=1e-4, rtol=1e-4)
    assert len(compiled.compiler(compiled.BACKEND).compiled) == compiled.MOST_GRAPHS


def test_forwards_without_gradients_run_the_librarys_code(base):
    model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    plain = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    assert compiled.compile_layers(model, last_layer_shortcut=True) == len(KEPT) - 1
    data = PairDataset(random_pairs(3), np.ones(3))
    batch = make_batch(data, [0, 1, 2], None)
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    with torch.no_grad():
        assert torch.equal(model(**inputs), plain(**inputs))
    assert compiled.compiler(compiled.BACKEND).compiled == []
    assert type(decoder_layers(model)[0]).__name__ == type(decoder_layers(plain)[0]).__name__


def test_flex_attention_is_compiled_still_where_layers_are(base, monkeypatch):
    """Left out of the layers' graphs, it has its own."""
    kernels = []

    def count(graph, inputs):
        kernels.append(graph)
        return graph.forward

    module = sys.modules["torch.nn.attention.flex_attention"]
    monkeypatch.setattr(module, "_validate_device", lambda *given: None)  # no backward on CPUs
    kernel = torch.compile(flex_attention, backend=count, dynamic=False)
    monkeypatch.setattr(flex, "_compiled", lambda device: kernel)
    models = [build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD, attention=attention)
              for attention in ("flex", "dense")]
    kernels.clear()
    torch._dynamo.reset()
    compiled.compile_layers(models[0], last_layer_shortcut=True)
    batch = make_batch(PairDataset(random_pairs(3), np.ones(3)), [0, 1, 2], None)
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    rewards = [model(**inputs) for model in models]
    rewards[0].sum().backward()
    torch.testing.assert_close(*rewards, atol=1e-5, rtol=0)
    assert len(kernels) == 1
    assert len(compiled.compiler(compiled.BACKEND).compiled) == compiled.MOST_GRAPHS


def test_layers_are_compiled_on_cuda_and_not_on_a_cpu_unless_it_is_said(monkeypatch):
    monkeypatch.setattr(layer_graphs, "can_compile", lambda device: True)
    cuda, runtime = torch.device("cuda"), RuntimeConfig()
    assert layer_graphs.is_asked(runtime, cuda) and not layer_graphs.is_asked(runtime, CPU)
    assert not layer_graphs.is_asked(RuntimeConfig(pack=False), cuda)
    assert not layer_graphs.is_asked(RuntimeConfig(compile_layers=False), cuda)
    assert layer_graphs.is_asked(RuntimeConfig(compile_layers=True), CPU)
    monkeypatch.setattr(layer_graphs, "is_deepspeed_zero3_enabled", lambda: True)
    assert not layer_graphs.is_asked(runtime, cuda)
    with pytest.raises(UserError, match="compile_layers: true, under ZeRO-3.*zero2"):
        layer_graphs.is_asked(RuntimeConfig(compile_layers=True), cuda)


def test_a_machine_without_a_compiler_is_one_line(monkeypatch):
    def fail(graph, inputs):
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(compiled, "BACKEND", fail)
    with pytest.raises(UserError, match="nothing can be compiled here .*no g\\+\\+ here"):
        layer_graphs.is_asked(RuntimeConfig(compile_layers=True), CPU)
