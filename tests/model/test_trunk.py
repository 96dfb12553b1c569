"""Frozen layers stay as they are, and what they would compute can be handed in instead."""

import pytest
import torch

from model.base.truncate import decoder_layers
from model.base.trunk import (
    begin_above,
    freeze_below,
    freeze_embeddings,
    frozen_layers,
    hidden_states,
)
from model.reward_model import build_reward_model
from src.common.errors import UserError
from tests.families import FAMILIES, PAD, packed_batch, random_tree

every_family = pytest.mark.parametrize("family", FAMILIES)
KEPT = (0, 1, 2, 5)
BATCH = packed_batch([random_tree(9, (7, 12, 3), seed=0), random_tree(4, (2, 14), seed=1)])


def build(base, family, below=None):
    model = build_reward_model(base(family), KEPT, 0, pad_token_id=PAD)
    if below is not None:
        freeze_below(model, below)
    return model


def gradients(model, **options):
    model.zero_grad()
    (model(**BATCH, **options) * torch.tensor([1.0, -2, 3, 0.5, -1])).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_top_layers_the_final_norm_and_the_head_train(base):
    model = build(base, "llama", below=frozen_layers(4, 2, "x"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {".".join(name.split(".")[:3]) for name in trained} == {
        "model.layers.2", "model.layers.3", "model.norm.weight", "score.weight"}
    assert set(gradients(model)) == trained


@every_family
@pytest.mark.parametrize("below", [1, 2, 3])
def test_rewards_and_gradients_from_known_hidden_states_are_the_same(base, family, below):
    model = build(base, family, below)
    known = hidden_states(model, below, BATCH)
    with torch.no_grad():
        torch.testing.assert_close(model(**BATCH, hidden=known), model(**BATCH), rtol=0, atol=1e-6)
    whole, above = gradients(model), gradients(model, hidden=known)
    assert whole.keys() == above.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(above[name], gradient, rtol=1e-5, atol=1e-6)


def test_frozen_layers_compute_nothing_where_their_output_is_known(base):
    model = build(base, "llama", below=2)
    known = hidden_states(model, 2, BATCH)
    ran = []
    for number, layer in enumerate(decoder_layers(model)):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    model(**BATCH, hidden=known)
    assert ran == [2, 3]


@every_family
@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_but_the_embedding_tables_trains_as_it_does_with_them(base, family, checkpointing):
    model = build(base, family).train()
    expected = gradients(model)
    freeze_embeddings(model)
    model.zero_grad(set_to_none=True)
    if checkpointing:
        model.gradient_checkpointing_enable()
    tables = {name for name in expected if "embed_tokens" in name or ".wte." in name
              or ".wpe." in name}
    assert len(tables) == (2 if family.startswith("gpt") else 1)
    found = gradients(model)
    assert found.keys() == expected.keys() - tables
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6)


@every_family
def test_a_shallow_trunk_is_the_beginning_of_a_deeper_one(base, family):
    model = build(base, family)
    shallow, deep = hidden_states(model, 1, BATCH), hidden_states(model, 3, BATCH)
    begin_above(model, 1)
    torch.testing.assert_close(hidden_states(model, 3, BATCH, shallow), deep, rtol=0, atol=1e-6)


def test_a_frozen_trunk_under_gradient_checkpointing_trains_the_same(base):
    model = build(base, "llama", below=2).train()
    known = hidden_states(model, 2, BATCH)
    expected = gradients(model, hidden=known)
    model.gradient_checkpointing_enable()
    for name, gradient in gradients(model, hidden=known).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6)


def test_more_layers_to_train_than_there_are_is_a_mistake():
    assert frozen_layers(4, None, "x") == 0 == frozen_layers(4, 4, "x")
    with pytest.raises(UserError, match="trainable_layers 5, but the model keeps 4"):
        frozen_layers(4, 5, "experiments/x demo-L4")
