"""Losses against closed forms, torch's own and TRL's, and the symmetry that none may break."""

import pytest
import torch
import torch.nn.functional as F

from configs.schema import MethodConfig
from src.common.errors import UserError
from src.methods.losses import (
    LOSSES,
    aux_weight,
    centering,
    check_losses,
    confidence,
    hard_bradley_terry,
    margin_mse,
    pair_loss,
    soft_bradley_terry,
)

MARGIN = torch.tensor([-3.0, -0.7, -1e-3, 0.0, 0.4, 1.9, 12.0], dtype=torch.float64)
LABEL = torch.tensor([0.9, 0.2, 0.5, 0.35, 0.5, 0.6, 0.01], dtype=torch.float64)
METHODS = [MethodConfig("a", "hard_bt"), MethodConfig("b", "soft_bt"),
           MethodConfig("c", "margin_mse"), MethodConfig("d", "confidence", 0.75, 0.5)]
SETTINGS = {method.loss: method for method in METHODS}
each_method = pytest.mark.parametrize(
    "method", [SETTINGS.get(loss, MethodConfig(loss, loss)) for loss in LOSSES],
    ids=lambda method: method.loss)
"""Every loss that there is, one that this file does not know by name too."""


def loss_and_gradient(method, margin, label, progress=0.25):
    """Loss per pair, and its derivative by each pair's margin."""
    margin = margin.clone().requires_grad_()
    loss = pair_loss(method, margin, label, progress)
    (gradient,) = torch.autograd.grad(loss.sum(), margin)
    return loss.detach(), gradient


@each_method
def test_swapping_sides_and_label_leaves_the_loss(method):
    loss, _ = loss_and_gradient(method, MARGIN, LABEL)
    swapped, _ = loss_and_gradient(method, -MARGIN, 1 - LABEL)
    torch.testing.assert_close(swapped, loss, rtol=1e-12, atol=1e-12)


@each_method
def test_swapping_sides_and_label_turns_the_gradient_around(method):
    """The margin is left minus right, so each answer's own gradient stays what it was."""
    _, gradient = loss_and_gradient(method, MARGIN, LABEL)
    _, swapped = loss_and_gradient(method, -MARGIN, 1 - LABEL)
    torch.testing.assert_close(-swapped, gradient, rtol=1e-12, atol=1e-12)


@each_method
def test_a_pair_s_loss_does_not_depend_on_its_batch(method):
    whole, _ = loss_and_gradient(method, MARGIN, LABEL)
    alone = torch.cat([loss_and_gradient(method, m[None], y[None])[0]
                       for m, y in zip(MARGIN, LABEL, strict=True)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=0)


@each_method
def test_losses_give_one_finite_number_a_pair_at_extreme_margins(method):
    margin = torch.tensor([-1e4, 1e4, 0.0])
    loss, gradient = loss_and_gradient(method, margin, torch.tensor([1.0, 0.0, 0.5]))
    assert loss.shape == (3,) and torch.isfinite(loss).all() and torch.isfinite(gradient).all()


def test_a_loss_without_code_trains_nothing():
    """It once trained soft Bradley-Terry."""
    with pytest.raises(KeyError):
        pair_loss(MethodConfig("a", "hinge"), MARGIN, LABEL, 0.0)
    with pytest.raises(UserError, match="^e: method a: loss 'hinge' is none of .*margin_mse"):
        check_losses([METHODS[0], MethodConfig("a", "hinge")], "e")


def test_soft_bradley_terry_has_its_closed_form():
    p = torch.sigmoid(MARGIN)
    expected = -(LABEL * p.log() + (1 - LABEL) * (1 - p).log())
    torch.testing.assert_close(soft_bradley_terry(MARGIN, LABEL), expected)


def test_soft_bradley_terry_has_gradient_sigmoid_minus_label():
    _, gradient = loss_and_gradient(METHODS[1], MARGIN, LABEL)
    torch.testing.assert_close(gradient, torch.sigmoid(MARGIN) - LABEL)


def test_soft_bradley_terry_agrees_with_torch_s_cross_entropy_of_two_classes():
    logits = torch.stack([MARGIN, torch.zeros_like(MARGIN)], 1)
    targets = torch.stack([LABEL, 1 - LABEL], 1)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(soft_bradley_terry(MARGIN, LABEL), expected)


def test_hard_labels_give_trl_s_reward_loss():
    """TRL's RewardTrainer: -logsigmoid(rewards_chosen - rewards_rejected)."""
    chosen_left = torch.tensor([1.0, 0, 1, 0, 1, 0, 1], dtype=torch.float64)
    chosen_minus_rejected = MARGIN * (2 * chosen_left - 1)
    torch.testing.assert_close(hard_bradley_terry(MARGIN, chosen_left),
                               -F.logsigmoid(chosen_minus_rejected))


def test_hard_equals_soft_on_hard_labels():
    label = (LABEL > 0.5).double()
    assert torch.equal(hard_bradley_terry(MARGIN, label), soft_bradley_terry(MARGIN, label))


def test_hard_rounds_labels_and_leaves_an_undecided_one():
    label = torch.tensor([0.51, 0.49, 0.5], dtype=torch.float64)
    expected = soft_bradley_terry(MARGIN[:3], torch.tensor([1, 0, 0.5], dtype=torch.float64))
    assert torch.equal(hard_bradley_terry(MARGIN[:3], label), expected)


def test_margin_mse_is_the_squared_distance_to_the_teacher_s_margin():
    teacher = torch.tensor([-2.0, 0.3, 5.0], dtype=torch.float64)
    loss = margin_mse(MARGIN[:3], torch.sigmoid(teacher))
    torch.testing.assert_close(loss, (MARGIN[:3] - teacher) ** 2)


def test_margin_mse_is_blind_to_a_shift_of_both_rewards():
    rewards = torch.tensor([[1.0, -2.0], [0.5, 0.25]], dtype=torch.float64)
    shifted = rewards + torch.tensor([[8.0], [-4.0]], dtype=torch.float64)
    before, after = (margin_mse(r[:, 0] - r[:, 1], LABEL[:2]) for r in (rewards, shifted))
    assert torch.equal(before, after)


def test_margin_mse_caps_the_log_odds_of_a_certain_label():
    loss = margin_mse(torch.zeros(2, dtype=torch.float64), torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(loss.sqrt(), torch.full((2,), 13.8155).double(), atol=1e-4, rtol=0)


def test_confidence_without_weight_is_exactly_soft_bradley_terry():
    margin, label = MARGIN.float(), LABEL.float()
    assert torch.equal(confidence(margin, label, 0.0), soft_bradley_terry(margin, label))


def test_confidence_mixes_two_cross_entropies():
    own = (MARGIN > 0).double()
    own[MARGIN == 0] = 0.5
    expected = 0.7 * soft_bradley_terry(MARGIN, LABEL) + 0.3 * soft_bradley_terry(MARGIN, own)
    torch.testing.assert_close(confidence(MARGIN, LABEL, 0.3), expected)


def test_confidence_gives_its_own_prediction_no_gradient():
    _, gradient = loss_and_gradient(MethodConfig("d", "confidence", 1.0, 0.0), MARGIN, LABEL)
    own = (torch.sign(MARGIN) + 1) / 2
    torch.testing.assert_close(gradient, torch.sigmoid(MARGIN) - own)


def test_the_ramp_rises_linearly_from_0_and_then_stays():
    method = MethodConfig("d", "confidence", aux_coef=0.8, warmup_frac=0.5)
    at = [aux_weight(method, progress) for progress in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    assert at == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.8, 0.8])


def test_no_ramp_gives_the_full_weight_at_once():
    assert aux_weight(MethodConfig("d", "confidence", 0.8, 0.0), 0.0) == 0.8


def test_the_loss_at_progress_0_is_soft_whatever_the_weight():
    margin, label = MARGIN.float(), LABEL.float()
    assert torch.equal(pair_loss(METHODS[3], margin, label, 0.0), soft_bradley_terry(margin, label))


def test_centering_is_the_mean_square_of_a_pair_s_rewards():
    rewards = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    assert centering(rewards).tolist() == [5.0, 2.0]
    assert torch.equal(centering(rewards.flip(1)), centering(rewards))
