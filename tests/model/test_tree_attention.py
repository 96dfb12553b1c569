"""Sharing prompts and rows changes no reward and no gradient: every family, every back end."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaModel, masking_utils

from model.attention import dense
from model.attention.blocks import groups
from model.attention.dense import BLOCK_TOKENS
from model.attention.flex import flex_length, flex_lengths
from model.attention.tree import Layout
from model.reward_model import build_reward_model
from src.common.errors import UserError
from tests.families import FAMILIES, PAD, WINDOW, packed_batch, random_tree, tiny_config, tree_batch

every_family = pytest.mark.parametrize("family", FAMILIES)
KEPT = (0, 1, 2, 5)
TREES = [random_tree(9, (7, 12, 3), seed=0), random_tree(4, (2, 14), seed=1),
         random_tree(6, (5,), seed=2), random_tree(3, (2, 1), seed=3)]
SEQUENCES = [sequence for tree in TREES for sequence in tree.sequences]
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.7, -0.3, 2.0])
WAYS = [(family, backend, rows, shortcut) for family in FAMILIES
        for backend in ("dense", "flex", "varlen") for rows in ("packed", "padded")
        for shortcut in (True, False)
        if (family, backend) not in (("gemma2", "varlen"), ("gpt_neo", "varlen"))]  # see below


def pair_of_models(folder, tmp_path, **options):
    """Our model, and the library's own with the same weights: the independent reference."""
    ours = build_reward_model(folder, KEPT, 0, pad_token_id=PAD, **options)
    ours.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager")
    return ours, plain


def present(rewards, batch):
    return rewards[batch["last_index"] >= 0]


def layout_of(batch, backend="dense"):
    return Layout(batch["position_ids"], batch["tree"], batch["branch"], batch["last_index"],
                  backend)


def whole_mask(batch, window=None):
    index = torch.arange(batch["tree"].shape[1]).expand(len(batch["tree"]), -1)
    return layout_of(batch).sees(index, index, window)


def test_mask_of_a_small_row_is_the_tree():
    batch = packed_batch([random_tree(2, (2, 1)), random_tree(1, (1,))], extra=1)
    expected = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0],
                             [1, 1, 0, 0, 0, 0, 0, 0],
                             [1, 1, 1, 0, 0, 0, 0, 0],
                             [1, 1, 1, 1, 0, 0, 0, 0],
                             [1, 1, 0, 0, 1, 0, 0, 0],
                             [0, 0, 0, 0, 0, 1, 0, 0],
                             [0, 0, 0, 0, 0, 1, 1, 0],
                             [0, 0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(whole_mask(batch)[0], expected)
    windowed = expected.clone()
    windowed[[2, 3, 3, 4], [0, 0, 1, 0]] = False  # 2 or more positions back
    assert torch.equal(whole_mask(batch, window=2)[0], windowed)


def test_mask_of_one_response_is_the_ordinary_causal_one():
    batch = packed_batch([random_tree(3, (2,))])
    assert torch.equal(whole_mask(batch)[0], torch.ones(5, 5).tril().bool())


@pytest.mark.parametrize("size", [1, 4, 6, 20, 500])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_the_masks_of_the_blocks_make_up_the_mask_of_the_row(size, window, monkeypatch):
    monkeypatch.setitem(BLOCK_TOKENS, "cpu", size)
    batch = packed_batch(TREES, extra=3)
    layout, length = layout_of(batch), batch["tree"].shape[1]
    found = torch.zeros(length, length, dtype=torch.bool)
    rows = []
    masks, read = (make(layout, window, torch.float32) for make in (
        dense._masks, dense._read_masks))
    for group, group_masks, group_read in zip(groups(layout.segments(), size), masks, read,
                                              strict=True):
        for block, mask, own in zip(group.blocks, group_masks, group_read, strict=True):
            assert group.start <= block.start < block.end <= group.end
            assert block.end - block.start <= size
            keys = torch.cat([torch.arange(start, end) for start, end in block.keys])
            assert len(set(keys.tolist())) == mask.shape[1]
            assert set(mask.unique().tolist()) <= {0.0, -torch.inf}
            found[block.start:block.end, keys] = mask == 0
            rows += [torch.zeros(length, dtype=torch.bool).index_fill(0, keys[row == 0], True)
                     for row in own]
    assert sum(len(mask) for group_masks in masks for mask in group_masks) == length
    expected, real = whole_mask(batch, window)[0], batch["tree"][0] >= 0
    assert torch.equal(found[real], expected[real])
    assert found.diagonal().all()  # padding sees something, whatever it is
    assert torch.equal(torch.stack(rows), expected[batch["last_index"][0]])


def test_scoring_leaves_nothing_behind_that_training_cannot_use(base, monkeypatch):
    monkeypatch.setitem(BLOCK_TOKENS, "cpu", 6)
    dense._band.cache_clear()
    model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    batch = packed_batch(TREES)
    with torch.inference_mode():
        model(**batch)
    model(**batch).sum().backward()
    assert model.score.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("family", "backend", "rows", "shortcut"), WAYS)
def test_rewards_and_gradients_equal_separate_forwards(base, family, backend, rows, shortcut,
                                                       tmp_path, monkeypatch):
    monkeypatch.setitem(BLOCK_TOKENS, "cpu", 6)  # trees are cut, and short ones taken together
    ours, plain = pair_of_models(base(family), tmp_path, attention=backend,
                                 last_layer_shortcut=shortcut)
    batch = packed_batch(TREES) if rows == "packed" else tree_batch(TREES, extra=2)
    with torch.set_grad_enabled(backend != "flex"):  # it has no backward on CPUs
        rewards = present(ours(**batch), batch)
    alone = torch.stack([plain(torch.tensor([sequence])).logits[0, 0] for sequence in SEQUENCES])
    assert min(map(len, TREES[0].sequences)) > 2 * WINDOW
    torch.testing.assert_close(rewards, alone, rtol=0, atol=1e-5)
    if backend == "flex":
        return
    (rewards * WEIGHTS).sum().backward()
    (alone * WEIGHTS).sum().backward()
    reference = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = reference[name].grad
        scale = expected.abs().max().clamp(min=1)
        assert (parameter.grad - expected).abs().max() <= 1e-5 * scale, name


@every_family
def test_under_autocast_the_back_ends_agree_in_bf16(base, family):
    batch = packed_batch(TREES)
    backends = ["dense", "flex"] + ["varlen"] * (family not in ("gemma2", "gpt_neo"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = [build_reward_model(base(family), KEPT, 0, pad_token_id=PAD,
                                    attention=name)(**batch) for name in backends]
    for rewards in found:
        assert rewards.dtype == torch.float32
        torch.testing.assert_close(rewards, found[0], rtol=0.05, atol=0.05)


def test_the_last_layer_works_for_the_tokens_that_are_read_alone(base):
    counted = {}
    for shortcut in (False, True):
        model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD,
                                   last_layer_shortcut=shortcut)
        last = model.base_model.layers[-1]
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"):
            last.get_submodule(name).register_forward_hook(
                lambda module, args, out, key=(shortcut, name): counted.__setitem__(
                    key, args[0].shape[1]))
        model(**packed_batch(TREES))
    tokens = packed_batch(TREES)["input_ids"].numel()
    assert set(counted.values()) == {tokens, len(SEQUENCES)}
    assert counted[True, "mlp.down_proj"] == counted[True, "self_attn.q_proj"] == len(SEQUENCES)
    assert counted[True, "self_attn.k_proj"] == tokens == counted[False, "mlp.down_proj"]


def test_scores_between_responses_and_ahead_are_not_computed(base, monkeypatch):
    computed = []
    real = dense._masked
    monkeypatch.setattr(dense, "_masked", lambda q, k, *rest: (
        computed.append(q.shape[2] * k.shape[2]), real(q, k, *rest))[1])
    monkeypatch.setitem(BLOCK_TOKENS, "cpu", 16)
    tree = random_tree(64, (32, 32))
    model = build_reward_model(base("llama"), (0,), 0, pad_token_id=PAD,
                               last_layer_shortcut=False)
    model(**packed_batch([tree]))
    causal = sum(i + 1 for i in range(64)) + 2 * sum(64 + i + 1 for i in range(32))
    assert causal < sum(computed) < 1.25 * causal < 0.6 * 128 ** 2


def test_flex_lengths_are_few_and_multiples_of_a_tile():
    for device, few in (("cuda", 4), ("cpu", 8)):
        lengths = {flex_length(n, device) for n in range(1, 16385)}
        assert all(length % 128 == 0 for length in lengths) and len(lengths) == few
        assert sorted(lengths) == flex_lengths(16384, device)
        assert all(n <= flex_length(n, device) for n in range(1, 16385))


@every_family
def test_gradient_checkpointing_changes_no_gradient(base, family):
    batch = packed_batch(TREES)
    grads = []
    for checkpointing in (False, True):
        model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).sum().backward()
        grads.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


@every_family
def test_no_packing_is_inferred_from_positions_that_restart(base, family, monkeypatch):
    """transformers does so where it is given no mask, and cuts responses off from their prompt."""
    def inferred(*args, **kwargs):
        raise AssertionError("packing was inferred")

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", inferred)
    model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD)
    batch = packed_batch(TREES)
    model(**batch)
    if family == "llama":  # the trap is still there
        with pytest.raises(AssertionError, match="packing was inferred"):
            LlamaModel(tiny_config("llama"))(batch["input_ids"],
                                             position_ids=batch["position_ids"], use_cache=False)


def test_prompt_and_responses_see_nothing_of_another_response(base):
    model = build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD)
    batch = tree_batch(TREES[:1])
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, 9:16] = 3  # the whole first response
    with torch.no_grad():
        before, after = model(**batch)[0], model(**other)[0]
    assert before[0] != after[0]
    assert torch.equal(before[1:], after[1:])


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


def test_back_ends_that_cannot_serve_are_refused_at_the_door(base):
    with pytest.raises(UserError, match="'flash': expected one of auto, dense"):
        build_reward_model(base("llama"), KEPT, 0, pad_token_id=PAD, attention="flash")
    with pytest.raises(UserError, match="varlen: its kernel computes in half precision"):
        build_reward_model(base("gpt_neo"), KEPT, 0, pad_token_id=PAD, attention="varlen")
    with pytest.raises(UserError, match="varlen: it cannot cap"):
        build_reward_model(base("gemma2"), KEPT, 0, pad_token_id=PAD, attention="varlen")
