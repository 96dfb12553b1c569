"""Losses against closed forms, torch's own and TRL's, and the symmetry that none may break."""

import pytest
import torch
import torch.nn.functional as F

from configs.schema import MethodConfig
from src.common.errors import UserError
from src.methods.losses import (
    LOSSES,
    adaptive_confidence,
    aux_weight,
    centering,
    check_losses,
    confidence,
    hard_bradley_terry,
    looks_at_steps,
    margin_mse,
    pair_loss,
    product,
    reverse_kl,
    soft_bradley_terry,
)

MARGIN = torch.tensor([-3.0, -0.7, -1e-3, 0.0, 0.4, 1.9, 12.0], dtype=torch.float64)
LABEL = torch.tensor([0.9, 0.2, 0.5, 0.35, 0.5, 0.6, 0.01], dtype=torch.float64)
METHODS = [MethodConfig("a", "hard_bt"), MethodConfig("b", "soft_bt"),
           MethodConfig("c", "margin_mse"), MethodConfig("d", "confidence", 0.75, 0.5),
           MethodConfig("e", "product", loss_options={"alpha": 0.5, "beta": 2.0})]
SETTINGS = {method.loss: method for method in METHODS}
each_method = pytest.mark.parametrize(
    "method", [SETTINGS.get(loss) or MethodConfig(loss, loss) for loss in LOSSES],
    ids=lambda method: method.loss)
"""Every loss that there is, one that this file does not know by name too."""


def loss_and_gradient(method, margin, label, progress=0.25):
    """Loss per pair, and its derivative by each pair's margin; by one teacher of the label."""
    margin = margin.clone().requires_grad_()
    count, more = len(margin), {}
    if looks_at_steps(method):
        more = {"states": torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(0)),
                "votes": label[:, None], "group": torch.arange(count)}
    distilled = torch.full((count, 2, 2), 0.5)
    more |= {"distances": distilled, "log_gate": distilled.log()}
    loss = pair_loss(method, margin, label, progress, **more)
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
def test_a_pair_s_loss_does_not_depend_on_its_batch_unless_it_says_so(method):
    if looks_at_steps(method):
        return
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
    assert torch.equal(confidence(margin, label, 0.5, 0.0, 0.0), soft_bradley_terry(margin, label))


def test_confidence_mixes_two_cross_entropies():
    own = (MARGIN > 0).double()
    own[MARGIN == 0] = 0.5
    expected = 0.7 * soft_bradley_terry(MARGIN, LABEL) + 0.3 * soft_bradley_terry(MARGIN, own)
    torch.testing.assert_close(confidence(MARGIN, LABEL, 0.5, 0.3, 0.0), expected)


def test_confidence_gives_its_own_prediction_no_gradient():
    _, gradient = loss_and_gradient(MethodConfig("d", "confidence", 1.0, 0.0), MARGIN, LABEL)
    own = (torch.sign(MARGIN) + 1) / 2
    torch.testing.assert_close(gradient, torch.sigmoid(MARGIN) - own)


def test_the_ramp_rises_linearly_from_0_and_then_stays():
    at = [aux_weight(0.8, 0.5, progress) for progress in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    assert at == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.8, 0.8])


def test_no_ramp_gives_the_full_weight_at_once():
    assert aux_weight(0.8, 0.0, 0.0) == 0.8


def test_the_loss_at_progress_0_is_soft_whatever_the_weight():
    margin, label = MARGIN.float(), LABEL.float()
    assert torch.equal(pair_loss(METHODS[3], margin, label, 0.0), soft_bradley_terry(margin, label))


@pytest.mark.parametrize("coef", [1.0, 0.6])
def test_adaptive_confidence_gives_half_where_both_agree_and_q_where_they_do_not(coef):
    p = torch.sigmoid(MARGIN)
    agree = ((MARGIN > 0) == (LABEL > 0.5)) & (MARGIN != 0) & (LABEL != 0.5)
    theirs = torch.where(LABEL > 0.5, p, 1 - p)
    weight = coef * torch.where(agree, 0.5, theirs)
    own = (MARGIN > 0).double()
    expected = ((1 - weight) * soft_bradley_terry(MARGIN, LABEL)
                + weight * soft_bradley_terry(MARGIN, own))
    decided = (MARGIN != 0) & (LABEL != 0.5)
    assert agree.any() and (~agree & decided).any()
    found = adaptive_confidence(MARGIN, LABEL, coef)
    torch.testing.assert_close(found[decided], expected[decided])


def test_adaptive_confidence_has_the_gradient_of_a_constant_target():
    _, gradient = loss_and_gradient(MethodConfig("f", "adaptive_confidence"), MARGIN, LABEL)
    p, own = torch.sigmoid(MARGIN), (torch.sign(MARGIN) + 1) / 2
    theirs = torch.where(LABEL > 0.5, p, 1 - p)
    weight = torch.where((MARGIN > 0) == (LABEL > 0.5), 0.5, theirs)
    decided = (MARGIN != 0) & (LABEL != 0.5)
    expected = p - ((1 - weight) * LABEL + weight * own)
    torch.testing.assert_close(gradient[decided], expected[decided])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_product_takes_the_renormalised_product_for_a_constant_target(alpha, beta):
    method = MethodConfig("e", "product", loss_options={"alpha": alpha, "beta": beta})
    loss, gradient = loss_and_gradient(method, MARGIN, LABEL)
    p = torch.sigmoid(MARGIN)
    left, right = p**beta * LABEL**alpha, (1 - p)**beta * (1 - LABEL)**alpha
    target = left / (left + right)
    torch.testing.assert_close(loss, -(target * p.log() + (1 - target) * (1 - p).log()))
    torch.testing.assert_close(gradient, p - target)


def test_reverse_kl_is_torch_s_divergence_from_the_label_to_the_student():
    margin = MARGIN.clone().requires_grad_()
    p = torch.stack([torch.sigmoid(margin), torch.sigmoid(-margin)], 1)
    label = torch.stack([LABEL, 1 - LABEL], 1)
    expected = F.kl_div(label.log(), p, reduction="none").sum(1)
    (gradient,) = torch.autograd.grad(expected.sum(), margin)
    loss, found = loss_and_gradient(MethodConfig("f", "reverse_kl"), MARGIN, LABEL)
    torch.testing.assert_close(loss, expected.detach(), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found, gradient, atol=1e-9, rtol=1e-7)
    assert (loss >= 0).all() and not reverse_kl(torch.logit(LABEL), LABEL).abs().gt(1e-12).any()


@pytest.mark.parametrize("loss", [lambda m, y: confidence(m, y, 1.0, 0.0, 0.2),
                                  lambda m, y: adaptive_confidence(m, y, coef=0.0),
                                  lambda m, y: product(m, y, beta=0.0)],
                         ids=["confidence", "adaptive_confidence", "product"])
def test_a_loss_without_its_own_part_is_soft_bradley_terry_bit_for_bit(loss):
    draw = torch.Generator().manual_seed(0)
    label = torch.rand(100_000, generator=draw).clamp(1e-6, 1 - 1e-6)
    margin = torch.randn(100_000, generator=draw).requires_grad_()
    found, expected = loss(margin, label), soft_bradley_terry(margin, label)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(each.sum(), margin)[0] for each in (found, expected)))


def test_centering_is_the_mean_square_of_a_pair_s_rewards():
    rewards = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    assert centering(rewards).tolist() == [5.0, 2.0]
    assert torch.equal(centering(rewards.flip(1)), centering(rewards))
