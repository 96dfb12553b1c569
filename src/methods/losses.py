"""Losses on the margin of a pair. Pure functions: tensors in, one loss per pair out.

`margin` is reward(left) - reward(right), shape (B,); `label` is P(left preferred to right), shape
(B,), in [0, 1]: 0 or 1 for human labels, a teacher's probability for weak ones. All of them are
swap-invariant: f(-margin, 1 - label) = f(margin, label).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import MethodConfig
from configs.strict_yaml import require, shown
from src.methods.label_treatments import PROBABILITY_FLOOR


def soft_bradley_terry(margin: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of P(left) = sigmoid(margin) against `label` (Burns et al. 2023, arXiv
    2312.09390, reward modelling setting; Bradley & Terry 1952 for labels of 0 and 1)."""
    return F.binary_cross_entropy_with_logits(margin, label, reduction="none")


def hard_bradley_terry(margin: Tensor, label: Tensor) -> Tensor:
    """The same against the hardened label; an undecided label of exactly 0.5 stays 0.5."""
    return soft_bradley_terry(margin, _harden(label - 0.5))


def margin_mse(margin: Tensor, label: Tensor) -> Tensor:
    """(margin - teacher's margin)^2, the teacher's margin being the log-odds of `label`.

    Rewards are defined up to a shift per prompt, margins are not: this is the shift-invariant form
    of regressing on a teacher's raw scores.
    """
    return (margin - torch.logit(label, eps=PROBABILITY_FLOOR)).square()


def confidence(margin: Tensor, label: Tensor, aux_weight: float) -> Tensor:
    """(1 - a) CE(p, label) + a CE(p, [margin > 0]), a = `aux_weight` (Burns et al. 2023, eq. 1).

    The student's own hardened prediction is a constant target. Its threshold is 0 on the margin and
    not a batch quantile: sides are arbitrary, and a quantile would make one pair's target depend on
    the others in its batch.
    """
    own = _harden(margin.detach())
    return soft_bradley_terry(margin, (1 - aux_weight) * label + aux_weight * own)


def aux_weight(method: MethodConfig, progress: float) -> float:
    """aux_coef ramped linearly from 0 at progress 0 to its full value at `warmup_frac`."""
    if method.warmup_frac == 0:
        return method.aux_coef
    return method.aux_coef * min(1.0, progress / method.warmup_frac)


LOSSES: dict[str, Callable[[MethodConfig, Tensor, Tensor, float], Tensor]] = {
    "soft_bt": lambda method, margin, label, progress: soft_bradley_terry(margin, label),
    "hard_bt": lambda method, margin, label, progress: hard_bradley_terry(margin, label),
    "margin_mse": lambda method, margin, label, progress: margin_mse(margin, label),
    "confidence": lambda method, margin, label, progress: confidence(
        margin, label, aux_weight(method, progress)),
}
"""Every loss that a method may name. What each is given: see pair_loss."""


def check_losses(methods: Sequence[MethodConfig], where: str) -> None:
    """UserError for a method whose loss has no code.

    Args:
        where: names the methods' experiment, for the message.
    """
    for method in methods:
        require(method.loss in LOSSES, f"{where}: method {method.name}: loss {shown(method.loss)} "
                f"is none of {', '.join(LOSSES)}")


def pair_loss(method: MethodConfig, margin: Tensor, label: Tensor, progress: float) -> Tensor:
    """The loss of `method` per pair (B,), at `progress` in [0, 1] of the training."""
    return LOSSES[method.loss](method, margin, label, progress)


def centering(rewards: Tensor) -> Tensor:
    """Mean squared reward of a pair, (B, 2) -> (B,): keeps rewards near 0 (Eisenstein et al. 2023,
    arXiv 2312.09244; TRL's `center_rewards_coefficient`, which squares the sum of the two)."""
    return rewards.square().mean(dim=-1)


def _harden(signed: Tensor) -> Tensor:
    """1 above 0, 0 below, 0.5 at 0: the only rule that treats the sides alike."""
    return (torch.sign(signed) + 1) / 2
