"""Language models on some of a base model's layers."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from model.policy_model import check_saved, load_language_model
from model.reload_check import ReloadError
from src.common.errors import UserError

FAMILIES = ["llama", "gpt2", "gemma3_text", "qwen3"]
IDS = torch.arange(2, 12)[None]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_base_model_answers_as_the_library_s_does(base, family):
    with torch.no_grad():
        own, peer = (load(base(family)).eval()(IDS).logits for load in (
            load_language_model, AutoModelForCausalLM.from_pretrained))
    assert torch.equal(own, peer)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_one_is_the_whole_one_without_the_layers_and_loads_again_as_it_was_saved(
        base, family, tmp_path):
    cut = load_language_model(base(family), (0, 1, 2))
    assert cut.config.num_hidden_layers == 3
    cut.save_pretrained(tmp_path)
    check_saved(cut, tmp_path)
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(IDS).logits
        assert torch.equal(again, cut.eval()(IDS).logits)


def test_another_save_is_not_trusted(base, tmp_path):
    model = load_language_model(base("llama"))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    with pytest.raises(ReloadError, match="1 tensors are others than were trained"):
        check_saved(model, tmp_path)


def test_a_checkpoint_without_a_head_is_no_language_model(base, tmp_path):
    shutil.copytree(base("llama"), tmp_path / "bare")
    path = tmp_path / "bare" / "model.safetensors"
    held = load_file(path)
    del held["lm_head.weight"]
    save_file(held, path, {"format": "pt"})
    with pytest.raises(UserError, match="no tensor lm_head.weight, so no language model"):
        load_language_model(tmp_path / "bare")
