"""Hidden states through connectors and a gate, against numpy; which layers a method may name."""

import dataclasses

import numpy as np
import pytest
import torch

from configs.schema import LoraConfig, MethodConfig, TrainConfig
from model.reward_model import build_reward_model
from src.common.errors import UserError
from src.methods.distillation import Connectors, Distillation, distances, gated
from src.methods.distilled_layers import check_layers, distils, layer_pairs
from src.methods.losses import check_losses, pair_loss
from tests.families import save_base

METHOD = MethodConfig("d", "distil")


def with_pairs(*pairs):
    return MethodConfig("d", "distil", loss_options={"layer_pairs": pairs})


def states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def z(values):
    """N(x) of numpy's own."""
    values = values.numpy().astype(np.float64)
    return (values - values.mean(-1, keepdims=True)) / np.sqrt(
        values.var(-1, keepdims=True) + 1e-5)


def test_distances_and_gate_are_those_of_the_equation():
    own, final = [states(5, 2, 6), states(5, 2, 6, seed=1)], states(5, 2, 6, seed=2)
    theirs = [states(5, 2, 4, seed=3), states(5, 2, 8, seed=4)]
    connectors = Connectors(6, [4, 8])
    with torch.no_grad():
        for place, parameter in enumerate(connectors.parameters()):
            parameter.copy_(states(*parameter.shape, seed=10 + place))
        mapped, log_gate = connectors(own, final)
        found, mixed = distances(mapped, theirs), gated(distances(mapped, theirs), log_gate, 0.3)
    expected = np.stack([((z(h) @ each.weight.detach().numpy().T + each.bias.detach().numpy()
                           - z(t)) ** 2).mean(-1)
                         for h, t, each in zip(own, theirs, connectors.maps, strict=True)], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    logits = z(final) @ connectors.gate.weight.detach().numpy().T
    gate = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    cost = (gate * expected).sum(-1) + 0.3 * (gate * np.log(2 * gate)).sum(-1)
    np.testing.assert_allclose(mixed, cost.mean(-1), rtol=1e-4)


def test_at_first_every_teacher_counts_alike_and_an_equal_state_is_no_distance():
    own = states(3, 2, 6)
    mapped, log_gate = Connectors(6, [6, 6])([own, own], own)
    found = distances(mapped, [2 * own + 1, states(3, 2, 6, seed=5)])
    torch.testing.assert_close(found[..., 0], torch.zeros(3, 2))
    torch.testing.assert_close(log_gate.exp(), torch.full((3, 2, 2), 0.5))
    torch.testing.assert_close(gated(found, log_gate, 1.0), found.mean(dim=(1, 2)))


def test_a_response_that_is_not_there_has_no_distance():
    theirs = states(2, 2, 6)
    theirs[0, 1] = 0
    mapped, _ = Connectors(6, [6])([states(2, 2, 6, seed=1)], states(2, 2, 6))
    found = distances(mapped, [theirs])[..., 0]
    assert (found == 0).tolist() == [[False, True], [False, False]]


def test_the_loss_is_soft_bradley_terry_and_the_mean_of_both_sides():
    margin, label = states(4), torch.rand(4, generator=torch.Generator().manual_seed(1))
    distance, log_gate = states(4, 2, 3).abs(), states(4, 2, 3).log_softmax(-1)
    given = {"distances": distance, "log_gate": log_gate}
    soft = pair_loss(MethodConfig("s"), margin, label, 0.5)
    found = pair_loss(dataclasses.replace(METHOD, loss_options={"weight": 0.5}), margin, label, 0.5,
                      **given)
    torch.testing.assert_close(found, soft + 0.5 * gated(distance, log_gate, 0.1))
    turned = pair_loss(METHOD, -margin, 1 - label, 0.5,
                       **{name: value.flip(1) for name, value in given.items()})
    torch.testing.assert_close(turned, pair_loss(METHOD, margin, label, 0.5, **given))


def test_connectors_are_a_part_of_the_model_until_they_are_released(tmp_path):
    save_base(tmp_path, "llama")
    model = build_reward_model(tmp_path, (0, 1), 0, pad_token_id=0)
    names = set(model.state_dict())
    distillation = Distillation(model, [0, 1], [4, 8])
    assert {name.split(".")[0] for name in set(model.state_dict()) - names} == {"connectors"}
    distillation.release()
    assert set(model.state_dict()) == names


def test_layers_are_counted_from_below_or_above_and_asked_for_once_there_is_a_weight():
    assert layer_pairs(METHOD, 8, 5) == [(7, 4)]
    assert layer_pairs(with_pairs((3, 2), (-1, -2)), 8, 5) == [(3, 2), (7, 3)]
    none, = check_losses([MethodConfig("d", "distil", loss_options={"weight": 0})], "e")
    assert distils(METHOD) and not distils(none) and not distils(MethodConfig("s"))


@pytest.mark.parametrize(("method", "train", "message"), [
    (with_pairs((4, 0)), TrainConfig(), r"layer_pairs \[4, 0\]: a student has 4 layers: expected "
                                        "-4 to 3"),
    (with_pairs((0, 2)), TrainConfig(), r"\[0, 2\]: a teacher has 2 layers: expected -2 to 1"),
    (with_pairs((1, 2, 3)), TrainConfig(), "expected the number of a student's layer and that of"),
    (with_pairs((1, 0)), TrainConfig(trainable_layers=2), "layer 1 of the student does not train"),
    (METHOD, TrainConfig(lora=LoraConfig()), "not kept beside adapters: leave out train.lora")])
def test_layers_that_cannot_be_distilled_are_refused(method, train, message):
    with pytest.raises(UserError, match=f"^e: method d: loss distil: .*{message}"):
        check_layers(method, 4, [3, 2], train, "e")
    check_layers(dataclasses.replace(method, loss="soft_bt", loss_options={}), 4, [3, 2], train,
                 "e")
