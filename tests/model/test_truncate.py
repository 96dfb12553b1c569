"""Kept layers, the config that goes with them, and their tensors."""

import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from model.base.truncate import check_family, kept_layers, truncate_config, truncated_names
from model.reward_model import build_reward_model
from src.common.errors import UserError
from tests.families import (
    FAMILIES,
    LAYERS,
    MIXED,
    PAD,
    WINDOW,
    random_tree,
    tiny_config,
    tree_batch,
)

every_family = pytest.mark.parametrize("family", FAMILIES)
SPACED = (1, 3, 5)


def hidden_states(folder, sequence):
    """Every hidden state of the whole language model, and its final norm: the reference."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
    trunk = model.base_model
    return states, trunk.ln_f if hasattr(trunk, "ln_f") else trunk.norm


def last_hidden(model, tree):
    """What the reward model's trunk gives its head, for one prompt with one response."""
    seen = []
    handle = model.score.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(**tree_batch([tree]))
    handle.remove()
    return seen[0][0, 0]


def test_evenly_spaced_ends_each_stretch_and_keeps_the_last_layer():
    assert kept_layers(16, 4, "evenly_spaced") == (3, 7, 11, 15)
    for total in range(1, 41):
        for count in range(1, total + 1):
            kept = kept_layers(total, count, "evenly_spaced")
            gaps = {b - a for a, b in zip((-1, *kept), kept, strict=False)}
            assert len(kept) == count and kept[-1] == total - 1
            assert gaps <= {total // count, -(-total // count)}


def test_first_and_explicit_lists_and_none_keep_what_they_say():
    assert kept_layers(16, 3, "first") == (0, 1, 2)
    assert kept_layers(16, None, (0, 5, 15)) == (0, 5, 15)
    assert kept_layers(3, None, "evenly_spaced") == kept_layers(3, None, "first") == (0, 1, 2)


def test_both_ends_and_the_most_influential_keep_what_they_say():
    assert kept_layers(16, 4, "first_and_last") == (0, 1, 14, 15)
    assert kept_layers(16, 5, "first_and_last") == (0, 1, 2, 14, 15)
    assert kept_layers(16, 1, "first_and_last") == (0,)
    influence = [0.9, 0.1, 0.5, 0.1, 0.8]
    assert kept_layers(5, 3, "block_influence", influence) == (0, 2, 4)
    assert kept_layers(5, 4, "block_influence", influence) == (0, 1, 2, 4)
    for rule in ("first_and_last", "block_influence"):
        assert kept_layers(5, None, rule, influence) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(("count", "keep", "message"), [
    (17, "evenly_spaced", "17 layers to keep: the base model has 16"),
    (17, "first", "has 16"),
    (0, "first", "expected 1 to 16"),
    (-2, "evenly_spaced", "expected 1 to 16"),
    (None, (3, 16), r"out of range.*0 to 15"),
    (None, (-1, 3), "out of range"),
    (None, (3, 3, 5), "repeats"),
    (None, (5, 3), "ascending"),
    (None, (), "expected 1 to 16"),
    (None, tuple(range(17)), "expected 1 to 16"),
    (3, (1, 2), "2 layers listed but 3"),
    (3, "last", "block_influence or a list"),
])
def test_impossible_layers_are_refused_with_what_was_expected(count, keep, message):
    with pytest.raises(UserError, match=message):
        kept_layers(16, count, keep)


@every_family
def test_keeping_all_layers_is_the_identity(base, family):
    tree = random_tree(9, (12,))
    states, _ = hidden_states(base(family), tree.sequences[0])
    whole = build_reward_model(base(family), tuple(range(LAYERS)), 0, pad_token_id=PAD)
    torch.testing.assert_close(last_hidden(whole, tree), states[-1][0, -1], rtol=0, atol=1e-5)


@every_family
def test_keeping_the_first_k_layers_gives_the_whole_models_kth_hidden_state(base, family):
    tree = random_tree(9, (12,))
    states, norm = hidden_states(base(family), tree.sequences[0])
    for k in (1, 2, 4):
        model = build_reward_model(base(family), tuple(range(k)), 0, pad_token_id=PAD)
        with torch.no_grad():
            expected = norm(states[k])[0, -1]
        torch.testing.assert_close(last_hidden(model, tree), expected, rtol=0, atol=1e-5)


@every_family
def test_kept_layers_hold_the_sources_tensors_under_new_numbers(base, family):
    model = build_reward_model(base(family), SPACED, 0, pad_token_id=PAD)
    source = load_file(base(family) / "model.safetensors")
    seen = set()
    for name, tensor in model.state_dict().items():
        if name != "score.weight":
            old_name = re.sub(r"\.(layers|h)\.(\d+)\.",
                              lambda match: f".{match[1]}.{SPACED[int(match[2])]}.", name)
            assert torch.equal(tensor, source[old_name]), old_name
            seen.add(old_name)
    dropped = [f".{i}." for i in range(LAYERS) if i not in SPACED]
    left = {name for name in set(source) - seen if "lm_head" not in name}
    assert all(any(mark in name for mark in dropped) for name in left), left


@every_family
def test_every_layer_knows_its_new_index_and_kind(base, family):
    model = build_reward_model(base(family), (0, 3, 4), 0, pad_token_id=PAD)
    for module in model.modules():
        for attribute in ("layer_idx", "layer_id"):
            assert getattr(module, attribute, 0) in (0, 1, 2)
    if family == "gpt_neo":
        kinds = [block.attn.attention_type for block in model.transformer.h]
        assert kinds == ["global", "local", "global"]
    if getattr(model.config, "layer_types", None):
        whole = AutoConfig.from_pretrained(base(family)).layer_types
        kinds = [layer.self_attn.layer_type for layer in model.model.layers]
        windows = [layer.self_attn.sliding_window for layer in model.model.layers]
        assert kinds == [whole[i] for i in (0, 3, 4)] == model.config.layer_types
        assert windows == [WINDOW if kind == "sliding_attention" else None for kind in kinds]


def test_per_layer_fields_of_each_config_follow_the_kept_layers():
    assert truncate_config(tiny_config("ministral"), (0, 2, 3)).layer_types == [
        MIXED[0], MIXED[2], MIXED[3]]
    neo = truncate_config(tiny_config("gpt_neo"), (1, 2, 3))
    assert neo.attention_layers == ["local", "global", "local"]
    assert neo.attention_types == [[["local", "global", "local"], 1]]
    qwen = truncate_config(tiny_config("qwen3"), (1, 2, 4))
    assert (qwen.max_window_layers, qwen.layer_types[-1]) == (2, "sliding_attention")
    gemma = tiny_config("gemma3_text")
    assert truncate_config(gemma, (2, 5)).layer_types == ["full_attention"] * 2
    assert gemma.num_hidden_layers == LAYERS  # a copy was changed, not the argument
    assert truncate_config(tiny_config("gpt2"), (0, 5)).n_layer == 2


@every_family
def test_a_truncated_config_survives_saving_and_loading(family, tmp_path):
    short = truncate_config(tiny_config(family), SPACED)
    short.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.num_hidden_layers == len(SPACED)
    for name in ("layer_types", "attention_layers", "max_window_layers", "sliding_window"):
        assert getattr(again, name, None) == getattr(short, name, None)


def test_layers_that_depend_on_their_index_are_not_moved():
    config = tiny_config("gpt2", scale_attn_by_inverse_layer_idx=True)
    assert truncate_config(config, (0, 1)).num_hidden_layers == 2
    with pytest.raises(UserError, match="keep: first"):
        truncate_config(config, (1, 3))


def test_layers_beyond_the_config_are_refused():
    with pytest.raises(UserError, match="out of range"):
        truncate_config(tiny_config("llama"), (0, 6))


def test_heads_and_old_mask_buffers_are_left_out_but_real_biases_stay():
    gpt2 = tiny_config("gpt2")
    names = ["wte.weight", "h.0.attn.bias", "h.3.attn.masked_bias", "h.3.attn.c_attn.bias",
             "transformer.h.5.ln_1.bias", "lm_head.weight", "score.weight"]
    assert truncated_names(names, gpt2, (3, 5)) == {
        "wte.weight": "wte.weight", "h.3.attn.c_attn.bias": "h.0.attn.c_attn.bias",
        "transformer.h.5.ln_1.bias": "h.1.ln_1.bias"}
    neo = truncated_names(["transformer.h.1.attn.attention.bias",
                           "transformer.h.1.attn.attention.masked_bias",
                           "transformer.h.1.attn.attention.out_proj.bias"],
                          tiny_config("gpt_neo"), (1,))
    assert list(neo.values()) == ["h.0.attn.attention.out_proj.bias"]
    qwen = truncated_names(["model.layers.4.self_attn.q_proj.bias",
                            "model.layers.4.self_attn.rotary_emb.inv_freq"],
                           tiny_config("qwen2"), (4,))
    assert list(qwen.values()) == ["layers.0.self_attn.q_proj.bias"]


def test_other_families_are_refused_with_the_list_of_those_supported():
    with pytest.raises(UserError, match=r"model_type 'bert'.*llama.*gpt_neo"):
        check_family(AutoConfig.for_model("bert"), "somewhere")
