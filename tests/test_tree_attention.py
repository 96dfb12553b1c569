"""Sharing a prompt changes no reward and no gradient, in any family."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from configs.errors import UserError
from model.reward_model import build_reward_model
from model.tree_attention import attention_masks, tree_mask
from tests.families import (
    FAMILIES,
    PAD,
    WINDOW,
    plain_batch,
    random_tree,
    tiny_config,
    tree_batch,
)

every_family = pytest.mark.parametrize("family", FAMILIES)
KEPT = (0, 1, 2, 5)
TREES = [random_tree(9, (7, 12, 3), seed=0), random_tree(4, (2, 14), seed=1)]


def pair_of_models(folder, tmp_path, **options):
    """Our model, and the library's own with the same weights: the independent reference."""
    ours = build_reward_model(folder, KEPT, 0, pad_token_id=PAD, **options)
    ours.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation=ours.config._attn_implementation)
    return ours, plain


def present(rewards, batch):
    return rewards[batch["last_index"] >= 0]


def test_mask_of_a_small_row_is_the_tree():
    branch = torch.tensor([[0, 0, 1, 1, 2, -1]])
    positions = torch.tensor([[0, 1, 2, 3, 2, 0]])
    expected = torch.tensor([[1, 0, 0, 0, 0, 0],
                             [1, 1, 0, 0, 0, 0],
                             [1, 1, 1, 0, 0, 0],
                             [1, 1, 1, 1, 0, 0],
                             [1, 1, 0, 0, 1, 0],
                             [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(tree_mask(branch, positions)[0, 0], expected)
    windowed = expected.clone()
    windowed[[2, 3, 3, 4], [0, 0, 1, 0]] = False  # 2 or more positions back
    assert torch.equal(tree_mask(branch, positions, window=2)[0, 0], windowed)


def test_mask_of_one_response_is_the_ordinary_causal_one():
    branch = torch.tensor([[0, 0, 0, 1, 1]])
    expected = torch.ones(5, 5).tril().bool()
    assert torch.equal(tree_mask(branch, torch.arange(5)[None])[0, 0], expected)


@every_family
def test_tree_rewards_equal_separate_forwards_of_the_library(base, family, tmp_path):
    ours, plain = pair_of_models(base(family), tmp_path)
    batch = tree_batch(TREES, extra=2)
    with torch.no_grad():
        rewards = present(ours(**batch), batch)
        alone = [plain(torch.tensor([sequence])).logits[0, 0]
                 for tree in TREES for sequence in tree.sequences]
    assert min(map(len, TREES[0].sequences)) > 2 * WINDOW
    torch.testing.assert_close(rewards, torch.stack(alone), rtol=0, atol=1e-5)


@every_family
def test_tree_gradients_equal_those_of_separate_forwards(base, family, tmp_path):
    ours, plain = pair_of_models(base(family), tmp_path)
    batch = tree_batch(TREES, extra=1)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    (present(ours(**batch), batch) * weights).sum().backward()
    sequences = [sequence for tree in TREES for sequence in tree.sequences]
    (plain(**plain_batch(sequences)).logits[:, 0] * weights).sum().backward()
    reference = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = reference[name].grad
        scale = expected.abs().max().clamp(min=1)
        assert (parameter.grad - expected).abs().max() <= 1e-5 * scale, name
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_eager_and_sdpa_agree(base, family):
    batch = tree_batch(TREES)
    with torch.no_grad():
        rewards = [build_reward_model(base(family), KEPT, 0, pad_token_id=PAD,
                                      attn_implementation=name)(**batch)
                   for name in ("eager", "sdpa")]
    torch.testing.assert_close(*rewards, rtol=0, atol=1e-5)


@every_family
def test_gradient_checkpointing_changes_no_gradient(base, family):
    batch = tree_batch(TREES)
    grads = []
    for checkpointing in (False, True):
        model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).sum().backward()
        grads.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


def test_prompt_and_responses_see_nothing_of_another_response(base):
    model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    batch = tree_batch(TREES[:1])
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, 9:16] = 3  # the whole first response
    with torch.no_grad():
        before, after = model(**batch)[0], model(**other)[0]
    assert before[0] != after[0]
    assert torch.equal(before[1:], after[1:])


@every_family
def test_the_mask_is_always_given_so_no_packing_is_inferred(family):
    batch = tree_batch(TREES)
    config = tiny_config(family)
    config._attn_implementation = "eager"
    masks = attention_masks(config, batch["branch"], batch["position_ids"], torch.float32)
    for mask in masks.values() if isinstance(masks, dict) else [masks]:
        assert mask.ndim == 4 and mask.dtype == torch.float32


def test_rows_longer_than_the_learned_positions_work_while_each_branch_fits(base):
    tree = random_tree(20, (15, 15, 15))  # 65 tokens in a row, 40 positions
    for family in ("gpt2", "gpt_neo"):
        model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD)
        with torch.no_grad():
            together = model(**tree_batch([tree]))[0]
            alone = [model(**tree_batch([random_tree_of(tree, i)]))[0, 0] for i in range(3)]
        torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


def random_tree_of(tree, i):
    return type(tree)(tree.prompt, [tree.responses[i]])


def test_other_attention_back_ends_are_refused():
    config = tiny_config("llama")
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="sdpa or eager"):
        attention_masks(config, torch.zeros(1, 2), torch.arange(2)[None], torch.float32)
