"""Low-rank adapters: what trains, what it comes to against peft and transformers alone, and that a
finished run is a plain one. Resuming is test_resumable.py's, memory test_memory.py's."""

import dataclasses
import functools
import types

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from configs.run import RunConfig
from configs.schema import LoraConfig, MethodConfig, RuntimeConfig, TrainConfig
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import open_split
from model.base.adapters import adapter_parameters, add_adapters
from model.base.trunk import begin_above, hidden_states
from model.reload_check import Probe, ReloadError, plain_rewards
from model.reward_model import HEAD, build_reward_model, initial_head
from src.batches.collate import PairDataset
from src.common.files import read_json
from src.runs.cards import model_card
from src.runs.folders import ADAPTER
from src.train import train_stage
from src.training.arguments import training_arguments
from src.training.merge import save_merged
from src.training.trainer import build_trainer
from src.training.work import work
from tests.families import FAMILIES, PAD, packed_batch, random_tree, tiny_config
from tests.tiny_experiment import TinyExperiment, kill_at_checkpoint, launch, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all
from tests.tiny_pairs import random_pairs

every_family = pytest.mark.parametrize("family", FAMILIES)
KEPT = (0, 2, 5)
LORA = LoraConfig(rank=2, alpha=6.0)
TREES = [random_tree(9, (7, 12, 3), seed=0), random_tree(4, (2, 14), seed=1)]
SEQUENCES = [sequence for tree in TREES for sequence in tree.sequences]
BATCH = packed_batch(TREES)
RUN = RunConfig(
    experiment="e", kind="ceiling", name="m-L3", model="m", base="0" * 16, kept=KEPT, data="d",
    data_hash="1" * 16, tokenizer="2" * 12, split="train_2", labels="3" * 16, teacher="",
    method=MethodConfig("soft"), seed=0, train=TrainConfig(batch_pairs=64, lora=LORA))


def build(base, family, below=0, lora=LORA, **options):
    """A model with adapters that do something, as they do after some training."""
    model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD, **options)
    begin_above(model, below)
    return disturbed(add_adapters(model, lora, below, 0))


def disturbed(adapted):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted


def library_model(base, family, folder):
    """The library's classifier on the truncated base model, with a head of its own."""
    build_reward_model(base(family), KEPT, 7, pad_token_id=PAD).save_pretrained(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")


def plain_base(base, family):
    """What `save_merged` asks of a base model."""
    return types.SimpleNamespace(path=base(family), config=types.SimpleNamespace(is_local=True),
                                 tokenizer=types.SimpleNamespace(pad_token_id=PAD))


def gradients(model, **options):
    model.zero_grad()
    (model(**BATCH, **options) * torch.tensor([1.0, -2, 3, 0.5, -1])).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@every_family
def test_it_starts_as_the_base_model_and_adapters_and_head_alone_train(base, family):
    model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD)
    before = model(**BATCH)
    adapted = add_adapters(model, LORA, 1, 0)
    assert torch.equal(adapted(**BATCH), before)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or ".score." in name for name in trained)
    assert {name.split(".")[4] for name in trained if ".lora_" in name} == {"1", "2"}
    head = model.config.hidden_size
    assert sum(p.numel() for p in trained.values()) == head + adapter_parameters(
        tiny_config(family), KEPT[1:], LORA)


def test_adapters_are_random_by_the_seed_alone(base):
    def drawn(seed):
        model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
        return {name: p for name, p in add_adapters(model, LORA, 0, seed).named_parameters()
                if ".lora_A." in name}

    first, (_, again), other = drawn(0), (torch.rand(3), drawn(0)), drawn(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    for weight in first.values():  # uniform, of the scale that peft draws from
        assert weight.abs().max() <= weight.shape[1] ** -0.5
        assert weight.std().item() == pytest.approx((3 * weight.shape[1]) ** -0.5, rel=0.35)


def test_only_the_layers_that_are_named_get_adapters(base):
    adapted = build(base, "llama", lora=LoraConfig(rank=1, targets=("q_proj", "down_proj")))
    names = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in adapted.named_parameters()
             if ".lora_" in name}
    assert names == {"q_proj", "down_proj"}


@every_family
@pytest.mark.parametrize("below", [0, 2])
def test_adapters_act_in_the_last_layer_as_without_its_shortcut(base, family, below):
    short, long = (build(base, family, below, last_layer_shortcut=shortcut)
                   for shortcut in (True, False))
    torch.testing.assert_close(short(**BATCH), long(**BATCH), rtol=0, atol=1e-5)
    found, expected = gradients(short), gradients(long)
    assert found.keys() == expected.keys() and all(g.abs().max() > 0 for g in found.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_family
def test_adapters_above_a_trunk_take_its_hidden_states(base, family):
    model = build(base, family, below=2)
    known = hidden_states(model.get_base_model(), 2, BATCH)
    torch.testing.assert_close(model(**BATCH, hidden=known), model(**BATCH), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients(model, hidden=known), gradients(model), rtol=1e-5,
                               atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient(base):
    model = build(base, "llama")
    expected = gradients(model)
    model.gradient_checkpointing_enable()
    model.train()
    torch.testing.assert_close(gradients(model), expected, rtol=1e-5, atol=1e-6)


@every_family
def test_merged_rewards_are_unmerged_rewards_and_those_of_peft_alone(base, family, tmp_path):
    adapted = build(base, family)
    adapted.save_pretrained(tmp_path / ADAPTER)
    with torch.no_grad():
        rewards = adapted(**BATCH).flatten()
    probe = Probe(SEQUENCES, BATCH, torch.arange(5), rewards, rewards, torch.float32)
    assert save_merged(RUN, plain_base(base, family), tmp_path, probe) is probe
    torch.testing.assert_close(plain_rewards(tmp_path, SEQUENCES), rewards, rtol=1e-5, atol=1e-5)
    theirs = peft.PeftModel.from_pretrained(library_model(base, family, tmp_path / "base"),
                                            tmp_path / ADAPTER)
    alone = [theirs(input_ids=torch.tensor([ids]), use_cache=False).logits.item()
             for ids in SEQUENCES]
    torch.testing.assert_close(torch.tensor(alone), rewards, rtol=1e-5, atol=1e-5)


def test_a_run_in_bf16_has_to_score_as_its_adapters_do_in_fp32(base, tmp_path):
    adapted = build(base, "llama")
    with torch.no_grad():
        rewards = adapted(**BATCH).flatten()
    adapted.to(torch.bfloat16).save_pretrained(tmp_path / ADAPTER)
    probe = Probe(SEQUENCES, BATCH, torch.arange(5), rewards, rewards.bfloat16(), torch.bfloat16)
    proof = save_merged(RUN, plain_base(base, "llama"), tmp_path, probe)
    assert proof.dtype == torch.float32
    torch.testing.assert_close(plain_rewards(tmp_path, SEQUENCES), proof.stored, rtol=1e-5,
                               atol=1e-5)
    torch.testing.assert_close(proof.stored, rewards, rtol=0, atol=0.05)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {
        torch.float32}


def test_adapters_that_lack_a_tensor_are_no_finished_run(base, tmp_path):
    build(base, "llama").save_pretrained(tmp_path / ADAPTER)
    path = tmp_path / ADAPTER / "adapter_model.safetensors"
    state = load_file(path)
    del state[next(name for name in state if "lora_B" in name)]
    save_file(state, path)
    with pytest.raises(ReloadError, match="1 tensors missing or too many, base_model.*lora_B"):
        save_merged(RUN, plain_base(base, "llama"), tmp_path, None)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize(("tokens", "pack"), [(4096, True), (40, True), (40, False)])
def test_a_gradient_is_that_of_a_plain_loop_with_peft_over_padded_rows(base, family, tmp_path,
                                                                       tokens, pack):
    split, labels = random_pairs(20), np.random.default_rng(0).random(20)
    runtime = RuntimeConfig(micro_batch_tokens=tokens, pack=pack, report_to="none")
    trainer = build_trainer(RUN, runtime, lambda: build(base, family),
                            training_arguments(RUN, runtime, tmp_path, 20),
                            PairDataset(split, labels, True), None, PAD)
    step, = trainer.get_train_dataloader()
    assert (len(step["micro_batches"]) > 1) == (tokens == 40)
    trainer.training_step(trainer.model, step)

    trainer.model.save_pretrained(tmp_path / ADAPTER)
    theirs = peft.PeftModel.from_pretrained(library_model(base, family, tmp_path / "base"),
                                            tmp_path / ADAPTER, is_trainable=True)
    rewards = torch.stack([padded(theirs, split, side) for side in ("chosen_ids", "rejected_ids")])
    margin, label = rewards[0] - rewards[1], torch.tensor(labels, dtype=torch.float32)
    loss = -(label * logsigmoid(margin) + (1 - label) * logsigmoid(-margin)).mean()
    loss.backward()
    found, expected = ({name: p.grad for name, p in model.named_parameters() if p.requires_grad}
                       for model in (trainer.model, theirs))
    assert found.keys() == expected.keys() and len(found) > 6
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def padded(model, split, side):
    """(n,) rewards of one side of every pair, each a row, padded on the right."""
    rows = [row["prompt_ids"] + row[side] for row in split.rows(range(len(split)))]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    return model(input_ids=ids, attention_mask=(ids != PAD).long(), use_cache=False).logits[:, 0]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    """Prepared data; two epochs of 153 pairs, the last step of each too small to be shared evenly,
    and matrices that ZeRO-3 shares out."""
    made = make_experiment(
        tmp_path_factory.mktemp("lora"), rows=400, train_pairs=153, test_pairs=24,
        layers=([1], [4]), runtime={"micro_batch_tokens": 128},
        train={"epochs": 2, "learning_rate": 1e-2, "lora": {"rank": 4, "alpha": 8}},
        model={"hidden_size": 128, "intermediate_size": 128, "head_dim": 32,
               "num_key_value_heads": 4, "noise": 0.05})
    prepare_data(made)
    return made


@pytest.fixture(scope="module")
def trained(tiny) -> TinyExperiment:
    """Every stage, by one process."""
    alone = tiny.copy("alone")
    train_all(alone)
    return alone


def biggest(experiment: TinyExperiment, stage: str = "ceilings"):
    return next(folder for folder in experiment.finished(stage) if "-L4-" in folder.name)


def test_a_run_is_its_base_plus_alpha_over_rank_times_b_a(tiny, trained):
    base, found = (load_file(folder / "model.safetensors")
                   for folder in (tiny.model, biggest(trained)))
    adapters = load_file(biggest(trained) / ADAPTER / "adapter_model.safetensors")
    changed = set()
    for name, weight in found.items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        if name == HEAD:
            assert torch.equal(weight, adapters[f"{place}.weight"])
            assert not torch.equal(weight, initial_head(128, 0))
        elif f"{place}.lora_A.weight" not in adapters:
            assert torch.equal(weight, base[name]), name
        else:
            changed.add(name.split(".")[-2])
            a, b = (adapters[f"{place}.lora_{part}.weight"].double() for part in "AB")
            delta = weight.double() - base[name].double()
            torch.testing.assert_close(delta, 8 / 4 * b @ a, rtol=0, atol=1e-6)
            sizes = torch.linalg.svdvals(delta)
            assert sizes[0] > 1e-3 and sizes[4:].max() < 1e-3 * sizes[0], name
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_run_is_a_plain_one_to_all_that_comes_after(trained):
    folder = biggest(trained, "students")
    assert {file.name for file in folder.iterdir()} >= {"DONE", "model.safetensors", ADAPTER}
    assert {file.name for file in (folder / ADAPTER).iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json"}
    assert str(trained.root) not in (folder / ADAPTER / "adapter_config.json").read_text()
    assert "LoRA of rank 4, alpha 8, on all linear layers of every layer" in model_card(folder)
    AutoModelForSequenceClassification.from_pretrained(folder)


def test_a_run_that_computes_in_bf16_ends_with_fp32_weights(tiny):
    half = tiny.copy("half", train={"precision": "bf16", "epochs": 1})
    assert not train_stage(sweep_of(half), "teachers", half.runs_dir, 0, 1)  # it passed its gate
    folder, = half.finished("teachers")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {
        torch.float32}
    assert read_json(folder / "manifest.json")["hardware"]["precision"] == "bf16"


def test_a_frozen_weight_costs_four_operations_a_token_and_an_adapter_six(trained):
    plan = sweep_of(trained)
    run = next(run for run in plan.stage("ceilings") if len(run.kept) == 4)
    tokens, flops = work(run, plan)
    adapters = adapter_parameters(plan.bases[run.model].hf_config, run.kept, run.train.lora)
    assert adapters == 4 * 4 * 7 * 2 * 128  # layers, rank, matrices, both sides
    assert flops == tokens * (4 * plan.students[-1].parameters + 6 * adapters)
    full = dataclasses.replace(run, train=dataclasses.replace(run.train, lora=None))
    assert work(full, plan) == (tokens, 6 * tokens * plan.students[-1].parameters)


def test_adapters_over_a_cached_trunk_are_those_without_a_cache(tiny):
    frozen = {"train": {"trainable_layers": 1}}
    cached = tiny.copy("cached", **frozen)
    plain = tiny.copy("plain", **frozen, runtime={"trunk_cache_gb": 0})
    for each in (cached, plain):
        assert not train_stage(sweep_of(each), "ceilings", each.runs_dir, 0, 1)
    assert list(cached.runs_dir.glob("trunks/*/hidden.bin"))
    assert not list(plain.runs_dir.glob("trunks/*/hidden.bin"))
    states = [load_file(biggest(each) / "model.safetensors") for each in (cached, plain)]
    torch.testing.assert_close(*states, rtol=0, atol=1e-6)
    names = load_file(biggest(cached) / ADAPTER / "adapter_model.safetensors")
    assert {name.split(".layers.")[1][0] for name in names if ".layers." in name} == {"3"}
    assert "of the top 1 layers" in model_card(biggest(cached))


@pytest.fixture(scope="module")
def together(tiny):
    """hardware -> the ceilings by two processes, in one launch."""
    @functools.cache
    def on(hardware: str) -> TinyExperiment:
        return launched(tiny.copy(hardware), hardware)

    return on


def launched(tiny: TinyExperiment, hardware: str) -> TinyExperiment:
    ended = launch("train_student_model.sh", tiny, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return tiny


@pytest.mark.launch
@pytest.mark.parametrize("hardware", ["multi_gpu", "zero2", "zero3"])
def test_two_processes_train_the_weights_of_one(tiny, trained, together, hardware):
    split = open_split(tiny.processed, tokenizer_key(load_tokenizer(tiny.model)), "test")
    sequences = [row["prompt_ids"] + row["chosen_ids"] for row in split.rows(range(8))]
    folders = biggest(together(hardware)), biggest(trained)
    torch.testing.assert_close(*(load_file(folder / "model.safetensors") for folder in folders),
                               atol=1e-4, rtol=0)
    torch.testing.assert_close(*(plain_rewards(folder, sequences) for folder in folders),
                               atol=1e-3, rtol=0)


@pytest.mark.launch
@pytest.mark.parametrize("hardware", ["zero2", "zero3"])
def test_a_killed_run_resumes_though_its_checkpoints_hold_the_adapters_alone(tiny, together,
                                                                             hardware):
    killed = tiny.copy(f"killed_{hardware}")
    kill_at_checkpoint("ceilings", killed, hardware, 16)
    found = list(killed.runs_dir.rglob("*model_states.pt"))
    assert found and max(file.stat().st_size for file in found) < 0.5 * sum(
        tensor.nbytes for tensor in load_file(tiny.model / "model.safetensors").values())
    ended = launched(killed, hardware)
    for folder, whole in zip(ended.finished("ceilings"), together(hardware).finished("ceilings"),
                             strict=True):
        torch.testing.assert_close(*(load_file(f / "model.safetensors") for f in (folder, whole)),
                                   atol=1e-6, rtol=0)
