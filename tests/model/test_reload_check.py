"""The reload gate: a faithful save passes in every precision and at every depth, another does not.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from model import reload_check
from model.reload_check import Probe, ReloadError, check_reload, plain_rewards
from model.reward_model import build_reward_model, load_reward_model
from tests.families import FAMILIES, PAD, random_tree, tree_batch

KEPT = (1, 3, 5)
TREES = [random_tree(6, (5, 9), seed=0), random_tree(3, (2, 4, 1), seed=1)]
SEQUENCES = [sequence for tree in TREES for sequence in tree.sequences]
BATCH = tree_batch(TREES)
PLACE = (BATCH["last_index"] >= 0).flatten().nonzero().flatten()


def rewards_of(model, autocast=False):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return model(**BATCH).flatten()[PLACE]


def probe_with(trained, stored=None, dtype=torch.float32):
    return Probe(SEQUENCES, BATCH, PLACE, trained, trained if stored is None else stored, dtype)


@pytest.fixture
def saved(base, tmp_path):
    """Folder of a saved Llama reward model, free to be damaged."""
    build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder, change):
    """Write the folder's weights again, as `change` returns them."""
    state = change(load_file(folder / "model.safetensors"))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_gate_passes_a_faithful_save_and_refuses_another(saved):
    expected = rewards_of(load_reward_model(saved))
    good = probe_with(expected)
    check_reload(saved, good)
    torch.testing.assert_close(plain_rewards(saved, SEQUENCES), expected, rtol=0, atol=1e-5)
    edit(saved, lambda state: state | {"score.weight": state["score.weight"] * 1.01})
    with pytest.raises(ReloadError, match="differ"):
        check_reload(saved, good)
    for stored, trained in ((expected * torch.nan, expected),
                            (plain_rewards(saved, SEQUENCES), expected * torch.nan)):
        with pytest.raises(ReloadError, match=r"differ .*by nan"):
            check_reload(saved, probe_with(trained, stored))
    removed = load_file(saved / "model.safetensors")["model.norm.weight"]
    edit(saved, lambda state: {n: v for n, v in state.items() if n != "model.norm.weight"})
    with pytest.raises(ReloadError, match="1 tensors missing or too many, model.norm.weight"):
        check_reload(saved, good)
    edit(saved, lambda state: {**state, "model.norm.weight": removed, "other": removed + 1})
    with pytest.raises(ReloadError, match="too many, other first"):
        check_reload(saved, good)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gate_knows_every_tensor_of_every_family(base, family, tmp_path, monkeypatch):
    monkeypatch.setattr(reload_check, "CLOSE", 1e-5)
    model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD)
    model.save_pretrained(tmp_path)
    check_reload(tmp_path, probe_with(rewards_of(model)))


@pytest.fixture(scope="module", params=[(16, 0.02), (16, 0.04), (32, 0.02), (32, 0.08)], ids=str)
def deep(request, tmp_path_factory):
    """Folder of a language model of 16 or 32 layers as one is initialised, and its layers."""
    layers, scale = request.param
    folder = tmp_path_factory.mktemp("deep")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "llama", vocab_size=61, hidden_size=128, intermediate_size=256, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=scale)).save_pretrained(folder)
    return folder, layers


def with_two_layers_swapped(state, first, second):
    """The tensors with two layers in each other's place."""
    places = {f".layers.{first}.": f".layers.{second}.", f".layers.{second}.": f".layers.{first}."}
    swapped = dict(state)
    for name, value in state.items():
        for place, other in places.items():
            if place in name:
                swapped[name.replace(place, other)] = value
    return swapped


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["autocast", "bf16"])
def test_the_gate_accepts_deep_models_in_bf16_and_refuses_a_swapped_layer(deep, dtype, tmp_path):
    folder, layers = deep
    model = build_reward_model(folder, tuple(range(layers)), 0, pad_token_id=PAD, dtype=dtype)
    with torch.no_grad():
        model.score.weight.mul_(4)  # rewards a few apart, as of a trained model
    model.save_pretrained(tmp_path)
    probe = probe_with(rewards_of(model, autocast=dtype == torch.float32), rewards_of(model), dtype)
    check_reload(tmp_path, probe)
    if (layers, dtype) == (32, torch.bfloat16):  # which no fixed tolerance that refuses much allows
        assert (plain_rewards(tmp_path, SEQUENCES) - probe.trained).abs().max() > 0.05
    edit(tmp_path, lambda state: with_two_layers_swapped(state, layers // 2, layers // 2 + 1))
    with pytest.raises(ReloadError, match="after reloading differ"):
        check_reload(tmp_path, probe)


def test_rewards_of_training_that_are_another_models_are_refused(saved, base, tmp_path):
    """As from a fused attention that computes something else: the weights are right."""
    expected = rewards_of(load_reward_model(saved))
    other = rewards_of(build_reward_model(base("llama"), (0, 2, 4), 0, pad_token_id=PAD))
    check_reload(saved, probe_with(expected + 0.1 * expected.std(), expected))
    with pytest.raises(ReloadError, match="of their spread"):
        check_reload(saved, probe_with(other, expected))
