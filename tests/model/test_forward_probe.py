"""A model whose forward is not ours is refused when it is loaded, not scored wrong in silence."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from model import forward_probe
from model.reward_model import build_reward_model, load_reward_model
from src.common.errors import UserError
from tests.families import FAMILIES, save_base


def saved(base, folder, **changes):
    """A reward model of a family, with another config.json."""
    model = build_reward_model(base, (0, 1), 0, pad_token_id=1)
    model.save_pretrained(folder)
    return edited(folder, **changes)


def edited(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4, "original_max_position_embeddings": 20}


@pytest.mark.parametrize(("family", "rope"), [
    ("llama", LONG), ("mistral", LONG),
    ("gemma3_text", {"full_attention": LONG, "sliding_attention": {"rope_type": "default",
                                                                   "rope_theta": 10000.0}})])
def test_positions_that_depend_on_the_longest_text_of_a_batch_are_refused(base, tmp_path, family,
                                                                          rope):
    folder = saved(base(family), tmp_path / "rm", rope_parameters=rope)
    with pytest.raises(UserError, match="longrope is not supported"):
        load_reward_model(folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [{"is_causal": False}, {"use_bidirectional_attention": True},
                                    {"is_encoder_decoder": True}])
def test_a_model_that_attends_both_ways_is_refused_by_its_config(base, tmp_path, family, change):
    name, = change
    folder = saved(base(family), tmp_path / "rm", **change)
    with pytest.raises(UserError, match=f"{name} is .*both directions"):
        load_reward_model(folder)
    bare = tmp_path / "base"
    shutil.copytree(base(family), bare)
    with pytest.raises(UserError, match=f"{name} is .*both directions"):
        build_reward_model(edited(bare, **change), (0,), 0, pad_token_id=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probe_s_rewards_are_those_of_the_library_and_of_ours(base, tmp_path, family,
                                                                  monkeypatch):
    gaps = []
    check = forward_probe.check_forward
    monkeypatch.setattr("model.reward_model.check_forward", lambda model, plain, where: (
        gaps.append(plain), check(model, plain, where)))
    folder = saved(base(family), tmp_path / "rm")
    model = load_reward_model(folder)
    library = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    prompt, responses = forward_probe._pair(model)
    with torch.no_grad():
        plain = [library(input_ids=torch.cat([prompt, each])[None]).logits[0, 0].item()
                 for each in responses]
    assert gaps[-1].tolist() == pytest.approx(plain, abs=1e-5)


def test_a_switch_that_nobody_knows_yet_is_found_by_the_rewards(base, tmp_path, monkeypatch):
    """The library's forward is changed as a release to come might: nothing in the config says so.
    """
    from transformers.models.llama import modeling_llama

    folder = saved(base("llama"), tmp_path / "rm")
    monkeypatch.setattr(modeling_llama, "create_causal_mask", lambda **unused: None)
    with pytest.raises(UserError, match="this repository's forward .* transformers' own"):
        load_reward_model(folder)
    with pytest.raises(UserError, match="choose another model"):
        build_reward_model(base("llama"), (0, 1), 0, pad_token_id=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_alone_is_no_reason_to_refuse(tmp_path, dtype):
    deep = save_base(tmp_path / "deep", "llama", num_hidden_layers=16, initializer_range=0.1)
    assert build_reward_model(deep, tuple(range(16)), 0, pad_token_id=1, dtype=dtype).dtype == dtype


def test_nothing_of_the_probe_stays_behind(base):
    model = build_reward_model(base("llama"), (0, 1), 0, pad_token_id=1)
    assert model.config._attn_implementation == "tree"
    assert all(parameter.grad is None for parameter in model.parameters())
    again = build_reward_model(base("llama"), (0, 1), 0, pad_token_id=1)
    state = SimpleNamespace(a=model.state_dict(), b=again.state_dict())
    assert all(torch.equal(state.a[name], state.b[name]) for name in state.a)
