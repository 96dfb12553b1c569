"""Contrastive self-correction against plain loops over pairs and responses."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.methods.contrastive import agreed_side, agreement_contrast, self_corrected
from src.methods.losses import contrastive, soft_bradley_terry

DRAW = torch.Generator().manual_seed(0)
PAIRS = 12
STATES = torch.randn(PAIRS, 2, 5, generator=DRAW, dtype=torch.float64)
VOTES = torch.tensor([[0.9, 0.8], [0.1, 0.2], [0.7, 0.9], [0.3, 0.9], [0.55, 0.9], [0.05, 0.3],
                      [0.8, 0.95], [0.2, 0.1], [0.5, 0.5], [0.9, 0.1], [0.6, 0.7], [0.99, 0.98]],
                     dtype=torch.float64)
GROUP = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7])
MARGIN = torch.linspace(-8, 8, PAIRS, dtype=torch.float64)
LABEL = VOTES.mean(dim=1)
SURE, TEMPERATURE = 0.3, 0.5


def responses(votes, group):
    """(pair, side, role, prompt) of the responses of agreed pairs."""
    for pair, (said, prompt) in enumerate(zip(votes.tolist(), group.tolist(), strict=True)):
        for role_of_left, confident in ((1, [v > 0.5 + SURE / 2 for v in said]),
                                        (-1, [v < 0.5 - SURE / 2 for v in said])):
            if all(confident):
                yield pair, 0, role_of_left, prompt
                yield pair, 1, -role_of_left, prompt


def plain_contrast(states, votes, group):
    """The same loss in loops."""
    found, loss = list(responses(votes, group)), [torch.zeros(()).double()] * len(group)

    def alike(one, other):
        return math.nan if one is other else F.cosine_similarity(
            states[one[0], one[1]], states[other[0], other[1]], dim=0) / TEMPERATURE

    for anchor in found:
        pair, _, role, prompt = anchor
        positives = [other for other in found if other[2] == role and other[3] != prompt]
        negatives = [other for other in found if other[2] == -role and (
            other[3] != prompt or other[0] == pair)]
        if positives:
            total = sum(alike(anchor, other).exp() for other in positives + negatives)
            shares = [(alike(anchor, other).exp() / total).log() for other in positives]
            loss[pair] = loss[pair] - sum(shares) / len(positives) / 2
    return torch.stack(loss)


def contrast(states=STATES, votes=VOTES, group=GROUP):
    return agreement_contrast(states, votes, group, TEMPERATURE, SURE)


def test_experts_agree_where_all_are_sure_of_one_side():
    assert agreed_side(VOTES, SURE).tolist() == [1, -1, 1, 0, 0, -1, 1, -1, 0, 0, 0, 1]
    assert agreed_side(VOTES, 0.0).tolist() == [1, -1, 1, 0, 1, -1, 1, -1, 0, 0, 1, 1]


def test_the_contrast_and_its_gradient_are_those_of_plain_loops():
    states = STATES.clone().requires_grad_()
    found, expected = contrast(states), plain_contrast(states, VOTES, GROUP)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((each * MARGIN).sum(), states)[0]
                 for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    agreed = agreed_side(VOTES, SURE) != 0
    assert (found[agreed] > 0).all() and not found[~agreed].any()


@pytest.mark.parametrize(("votes", "group"), [
    (VOTES[3:5], GROUP[3:5]), (VOTES[:3], GROUP[:3]), (VOTES[:0], GROUP[:0])],
    ids=["no pair agreed", "one prompt", "no pair"])
def test_where_nothing_is_alike_the_contrast_and_its_gradient_are_0(votes, group):
    states = STATES[:len(votes)].clone().requires_grad_()
    loss = contrast(states, votes, group)
    gradient, = torch.autograd.grad(loss.sum(), states)
    assert not loss.any() and not gradient.any()


def test_a_step_along_the_gradient_brings_positives_together_and_off_their_negatives():
    states = torch.randn(8, 2, 16, generator=DRAW).requires_grad_()
    votes, group = torch.full((8, 2), 0.9), torch.arange(8)
    gradient, = torch.autograd.grad(contrast(states, votes, group).mean(), states)

    def likeness(values):
        z = F.normalize(values, dim=-1)
        return (z[:, 0] @ z[:, 0].T).mean() - (z[:, 0] @ z[:, 1].T).mean()

    assert likeness(states - 50 * gradient) > likeness(states) + 0.1


@pytest.mark.parametrize(("margin", "votes", "expected"), [
    (3.0, [0.2, 0.6], 1.0), (-3.0, [0.8, 0.4], 0.0),  # split, contradicted, sure
    (1.0, [0.2, 0.6], 0.3),  # not sure: tanh(1/2) = .46
    (3.0, [0.2, 0.9], 0.3), (-3.0, [0.2, 0.6], 0.3),  # the student is with the mean vote
    (3.0, [0.2, 0.3], 0.3),  # not split
    (3.0, [0.2, 0.5], 0.3), (3.0, [0.25, 0.75], 0.3)])  # undecided: one expert, their mean
def test_the_student_s_own_judgement_takes_over_only_where_all_of_it_holds(margin, votes, expected):
    found = self_corrected(torch.tensor([margin]), torch.tensor([0.3]), torch.tensor([votes]), 0.8)
    assert found.tolist() == pytest.approx([expected])


def loss_of(progress=0.6, **changes):
    given = {"margin": MARGIN, "label": LABEL, "states": STATES, "votes": VOTES, "group": GROUP}
    return contrastive(**given | changes, progress=progress)


def test_the_loss_is_cross_entropy_on_corrected_labels_and_a_part_of_the_contrast():
    corrected = self_corrected(MARGIN, LABEL, VOTES, 0.8)
    assert (corrected != LABEL).any()
    for progress, label in ((0.5, LABEL), (0.6, corrected)):
        expected = soft_bradley_terry(MARGIN, label) + 0.1 * contrast()
        torch.testing.assert_close(loss_of(progress), expected)


def test_the_order_of_pairs_changes_no_loss():
    order = torch.randperm(PAIRS, generator=DRAW)
    found = loss_of(margin=MARGIN[order], label=LABEL[order], states=STATES[order],
                    votes=VOTES[order], group=GROUP[order])
    torch.testing.assert_close(found, loss_of()[order])


def test_swapping_the_sides_of_any_pairs_changes_no_loss_and_turns_their_gradients():
    swapped = torch.arange(PAIRS) % 3 == 0
    states, margin = STATES.clone().requires_grad_(), MARGIN.clone().requires_grad_()
    turned = [torch.where(swapped, -margin, margin), torch.where(swapped, 1 - LABEL, LABEL),
              torch.where(swapped[:, None, None], states.flip(1), states),
              torch.where(swapped[:, None], 1 - VOTES, VOTES)]
    there = loss_of(states=states, margin=margin)
    back = loss_of(**dict(zip(("margin", "label", "states", "votes"), turned, strict=True)))
    torch.testing.assert_close(back, there)
    for one, other in zip(*(torch.autograd.grad(each.sum(), (states, margin))
                            for each in (there, back)), strict=True):
        torch.testing.assert_close(other, one)
