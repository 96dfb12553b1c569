"""Pointwise records: a pair whose other side is absent has reward 0 there, and one trainer and one
scorer serve both kinds. Checked against the library's classifier with a binary cross-entropy."""

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from configs.schema import MethodConfig, RuntimeConfig
from data.records import ABSENT, left_is_chosen
from data.tokens.formatting import encode_pair
from model.reward_model import build_reward_model
from src.batches.collate import MODEL_INPUTS, PairDataset, TreeCollator
from src.batches.packing import Budget, micro_batches
from src.batches.steps import Step
from src.common.hashing import content_hash
from src.methods.losses import pair_loss
from src.scoring.pairs import load_reward_model, score
from tests.families import PAD
from tests.tiny_data import llama_like
from tests.tiny_pairs import MemorySplit, random_pairs

LAYOUTS = [dict(zip(("share_prompt", "pack", "last_layer_shortcut"), keys, strict=True))
           for keys in itertools.product((True, False), repeat=3)]


def pointwise(count: int, times: int = 1) -> MemorySplit:
    """Lone answers, right and wrong, of which some share a prompt, among two whole pairs; texts are
    repeated so many times."""
    rows = [{name: ids if isinstance(ids, str) else ids * times for name, ids in row.items()}
            for row in random_pairs(count).rows(range(count))]
    for i, row in enumerate(rows):
        if i not in (2, 5):
            row["rejected_ids" if i % 3 else "chosen_ids"] = []
    rows[1]["prompt_ids"] = rows[0]["prompt_ids"]
    return MemorySplit([{**row, "pair_id": content_hash(["pointwise", i])}
                        for i, row in enumerate(rows)])


SPLIT = pointwise(9)


@pytest.fixture
def folder(base, tmp_path):
    build_reward_model(base("llama"), (1, 4), 0, pad_token_id=PAD).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


LONG = pointwise(12, times=60)
"""More tokens than a block of the dense attention in most of its trees."""


def library_rewards(folder, requires_grad=False, split=SPLIT):
    """(n, 2) by the library's classifier, one sequence at a time; 0 for an absent side."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    rewards = []
    with torch.set_grad_enabled(requires_grad):
        for row in split.rows(range(len(split))):
            for side in ("chosen_ids", "rejected_ids"):
                ids = torch.tensor([row["prompt_ids"] + row[side]])
                rewards.append(model(ids, attention_mask=torch.ones_like(ids)).logits[0, 0]
                               if row[side] else torch.zeros(()))
    return model, torch.stack(rewards).reshape(-1, 2)


@pytest.mark.parametrize("budget", [1, 30, 10_000])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_absent_side_has_reward_0_and_the_other_that_of_the_library(folder, layout, budget):
    runtime = RuntimeConfig(score_batch_tokens=budget, **layout)
    model = load_reward_model(folder, last_layer_shortcut=runtime.last_layer_shortcut)
    found = score(model, SPLIT, runtime, "")
    wanted = library_rewards(folder)[1].numpy()
    assert (wanted == 0).sum() == 7
    np.testing.assert_array_equal(found[wanted == 0], 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("budget", [1, 10**6])
def test_absent_sides_stand_anywhere_among_long_trees(folder, layout, budget):
    model = load_reward_model(folder, last_layer_shortcut=layout["last_layer_shortcut"])
    found = score(model, LONG, RuntimeConfig(score_batch_tokens=budget, **layout), "")
    wanted = library_rewards(folder, split=LONG)[1].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_gradients_are_those_of_a_binary_cross_entropy_on_lone_rewards(folder, layout):
    labels = np.random.default_rng(1).random(len(SPLIT)).astype(np.float32)
    library, rewards = library_rewards(folder, requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(
        rewards[:, 0] - rewards[:, 1], torch.from_numpy(labels)).backward()
    model = load_reward_model(folder, last_layer_shortcut=layout["last_layer_shortcut"])
    data = PairDataset(SPLIT, labels, layout["share_prompt"])
    micro, = micro_batches(data.trees, np.arange(len(SPLIT)), Budget(10**6, layout["pack"]), 0, 1)
    collator = TreeCollator(PAD, layout["pack"])
    batch, = collator(data.__getitems__(Step(len(data), [micro])))["micro_batches"]
    own = model(**{name: batch[name] for name in MODEL_INPUTS}).flatten()
    margin = own[batch["left"]] - own[batch["right"]]
    pair_loss(MethodConfig("soft"), margin, batch["labels"], 0.0).mean().backward()
    wanted = dict(library.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-5, rtol=1e-4)


def test_the_absent_side_falls_left_and_right_alike():
    absent_left = [left_is_chosen(content_hash(i)) for i in range(2000)]
    assert 0.45 < np.mean(absent_left) < 0.55


def test_an_absent_answer_has_no_tokens_and_changes_none_of_the_other_s():
    tokenizer = llama_like()
    prompt = ({"role": "user", "content": "Is it so?"},)
    asked, yes, none = encode_pair(tokenizer, prompt, "Yes", ABSENT)
    again, nothing, same = encode_pair(tokenizer, prompt, ABSENT, "Yes")
    whole = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": "Yes"}], tokenize=False)
    assert none == nothing == [] and asked == again and yes == same
    assert asked + yes == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_labels_of_lone_answers_are_the_probability_that_they_are_right():
    labels = np.linspace(0.1, 0.9, len(SPLIT)).astype(np.float32)
    data = PairDataset(SPLIT, labels)
    chosen_is_left = np.array([left_is_chosen(pair) for pair in SPLIT.pair_ids])
    np.testing.assert_allclose(np.where(chosen_is_left, data.labels, 1 - data.labels), labels,
                               atol=1e-6)
