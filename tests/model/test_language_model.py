"""A trunk under its base's own head is the library's language model."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from model.base.language_head import head_weight
from model.base.language_model import as_language_model
from model.reward_model import build_reward_model
from src.common.errors import UserError
from tests.families import FAMILIES, LAYERS, PAD

IDS = torch.arange(12)[None]


def whole(folder):
    return build_reward_model(folder, tuple(range(LAYERS)), 0, pad_token_id=PAD)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_whole_base_under_its_head_is_the_base_bit_for_bit(base, family):
    made = as_language_model(whole(base(family)), head_weight(base(family)))
    library = AutoModelForCausalLM.from_pretrained(base(family)).eval()
    assert torch.equal(made(IDS).logits, library(IDS).logits)


@torch.no_grad()
def test_a_head_that_was_tied_stays_the_base_s_where_embeddings_move(base):
    folder = base("gpt2")  # tied
    model, head = whole(folder), head_weight(folder)
    table = model.base_model.get_input_embeddings().weight
    assert torch.equal(table, head)
    table += 1
    made = as_language_model(model, head)
    made.tie_weights()  # as lm-eval does
    assert torch.equal(made.lm_head.weight, head)
    assert torch.equal(made.get_input_embeddings().weight, head + 1)


@torch.no_grad()
def test_log_odds_are_not_rounded_where_the_trunk_computes_in_bf16(base):
    made = as_language_model(whole(base("llama")), head_weight(base("llama")))
    with torch.autocast("cpu", torch.bfloat16):
        odds = made(IDS).logits
    assert odds.dtype == torch.float32 and not torch.equal(odds, odds.bfloat16().float())


def test_a_head_of_another_model_is_refused(base):
    with pytest.raises(UserError, match="name the base that the model was made from"):
        as_language_model(whole(base("llama")), torch.zeros(7, 16))
