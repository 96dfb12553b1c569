"""Losses on the margin of a pair. Pure functions: tensors in, one loss per pair out.

Each asks for some of these, and has options of its own (src/methods/named.py):

    margin       (B,): reward(left) - reward(right)
    label        (B,): P(left preferred to right), in [0, 1]: 0 or 1 for human labels, a teacher's
                 probability for weak ones
    progress     of the training, in [0, 1]
    aux_coef, warmup_frac   keys of a method that are older than options
    states, votes, group    see contrastive.py. A loss that asks for one of them gets the pairs of
                 a whole optimiser step at once (src/batches/whole_steps.py)
    distances, log_gate     see distillation.py. A loss that asks for them has the options `weight`
                 and `layer_pairs`, and gets them where weight is above 0

All of them are swap-invariant, f(-margin, 1 - label) = f(margin, label): sides are arbitrary.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.field_types import NotNegative, PartialShare, Positive, Several, Share
from configs.schema import MethodConfig
from configs.strict_yaml import require
from src.methods.contrastive import agreement_contrast, self_corrected
from src.methods.distillation import gated
from src.methods.log_odds import PROBABILITY_FLOOR
from src.methods.named import Named

WHOLE_STEP = ("states", "votes", "group")
"""What is asked for by a loss in which pairs are held against each other."""
LOSSES = Named("loss", ("margin", "label", "progress", "aux_coef", "warmup_frac", *WHOLE_STEP,
                        "distances", "log_gate"))
"""Every loss that a method may name."""


@LOSSES.add("soft_bt")
def soft_bradley_terry(margin: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of P(left) = sigmoid(margin) against `label` (Burns et al. 2023, arXiv
    2312.09390, reward modelling setting; Bradley & Terry 1952 for labels of 0 and 1)."""
    return F.binary_cross_entropy_with_logits(margin, label, reduction="none")


@LOSSES.add("hard_bt")
def hard_bradley_terry(margin: Tensor, label: Tensor) -> Tensor:
    """The same against the hardened label; an undecided label of exactly 0.5 stays 0.5."""
    return soft_bradley_terry(margin, _harden(label - 0.5))


@LOSSES.add("margin_mse")
def margin_mse(margin: Tensor, label: Tensor) -> Tensor:
    """(margin - teacher's margin)^2, the teacher's margin being the log-odds of `label`.

    Rewards are defined up to a shift per prompt, margins are not: this is the shift-invariant form
    of regressing on a teacher's raw scores.
    """
    return (margin - torch.logit(label, eps=PROBABILITY_FLOOR)).square()


@LOSSES.add("confidence")
def confidence(margin: Tensor, label: Tensor, progress: float, aux_coef: float,
               warmup_frac: float) -> Tensor:
    """(1 - a) CE(p, label) + a CE(p, [margin > 0]) (Burns et al. 2023, eq. 1), where a rises
    linearly from 0 at progress 0 to `aux_coef` at `warmup_frac`.

    The student's own hardened prediction is a constant target. Its threshold is 0 on the margin and
    not a batch quantile: sides are arbitrary, and a quantile would make one pair's target depend on
    the others in its batch.
    """
    weight = aux_weight(aux_coef, warmup_frac, progress)
    return soft_bradley_terry(margin, (1 - weight) * label + weight * _harden(margin.detach()))


def aux_weight(aux_coef: float, warmup_frac: float, progress: float) -> float:
    """`aux_coef` ramped linearly from 0 at progress 0 to its full value at `warmup_frac`."""
    return aux_coef if warmup_frac == 0 else aux_coef * min(1.0, progress / warmup_frac)


@LOSSES.add("adaptive_confidence")
def adaptive_confidence(margin: Tensor, label: Tensor, coef: Share = 1.0) -> Tensor:
    """The confidence loss with a weight for each pair in place of a schedule (RAVEN, arXiv
    2510.21332, its code's adapt_logconf): with p the student's probability of the side that it
    prefers itself, and q of the side that the label prefers,

        a = coef * (1/p) / (1/p + 1/q)

    which is coef / 2 where they prefer the same side, and coef * q below that where they do not:
    the surer the student, the more it learns from the label. Constant, as the target is.
    """
    own, theirs = _harden(margin.detach()), _harden(label - 0.5)
    doubt = [soft_bradley_terry(margin.detach(), side) for side in (own, theirs)]  # -log p, -log q
    weight = coef * torch.sigmoid(doubt[0] - doubt[1])
    return soft_bradley_terry(margin, (1 - weight) * label + weight * own)


@LOSSES.add("product")
def product(margin: Tensor, label: Tensor, alpha: NotNegative = 1.0,
            beta: NotNegative = 1.0) -> Tensor:
    """CE(p, target), target ~ p^beta * label^alpha over the two sides, renormalised and constant
    (the code of Burns et al. 2023, product loss).

    In log-odds the target is beta * margin + alpha * log-odds of the label. In double precision
    that gives back a single one's label exactly where beta is 0 and alpha 1.
    """
    log_odds = torch.logit(label.double(), eps=PROBABILITY_FLOOR)
    target = torch.sigmoid(beta * margin.detach().double() + alpha * log_odds)
    return soft_bradley_terry(margin, target.to(margin.dtype))


@LOSSES.add("reverse_kl")
def reverse_kl(margin: Tensor, label: Tensor) -> Tensor:
    """KL(p || label) = p log(p / label) + (1 - p) log((1 - p) / (1 - label)), p = sigmoid(margin)
    (Yao et al. 2025, arXiv 2502.11107): what the student is sure of weighs, not what the teacher
    is sure of. Its derivative by the margin is p (1 - p) (margin - log-odds of the label)."""
    teacher = torch.logit(label, eps=PROBABILITY_FLOOR)
    return (torch.sigmoid(margin) * (F.logsigmoid(margin) - F.logsigmoid(teacher))
            + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - F.logsigmoid(-teacher)))


@LOSSES.add("contrastive")
def contrastive(margin: Tensor, label: Tensor, states: Tensor, votes: Tensor, group: Tensor,
                progress: float, coef: NotNegative = 0.1, temperature: Positive = 0.5,
                sure: PartialShare = 0.3, warm: Share = 0.5, takeover: Share = 0.8) -> Tensor:
    """Contrastive self-correction: what several experts agree on shapes the student's states, and
    where they are split it may overrule them. With m_i the margin and v_ik expert k's vote,

        l_i = CE(sigmoid(m_i), t_i) + coef * (S_i,left + S_i,right) / 2

        S_a = -1/|P(a)| sum_{p in P(a)} log(exp(z_a.z_p / temperature)
                                            / sum_{b in P(a) + N(a)} exp(z_a.z_b / temperature))

        t_i = [m_i > 0]  where progress > warm, the votes v_i are split, m_i contradicts their mean
                         and |2 sigmoid(m_i) - 1| > takeover; else the label

    z is a response's state divided by its length. Anchors are both responses of every pair on which
    all experts prefer one side, each with |2v - 1| > sure: that one is a positive, the other one a
    negative. Prompts are groups: P(a) are the responses of a's kind of the *other* prompts of the
    step, N(a) those of the other kind, and the other response of a's own pair; a prompt's further
    responses, which may be positive in one pair and negative in the next, are neither. S_a is 0
    where P(a) is empty, and for all other pairs. (The supervised contrastive loss of Khosla et al.
    2020, arXiv 2004.11362, eq. 2, for two classes.)
    """
    if progress > warm:
        label = self_corrected(margin, label, votes, takeover)
    loss = soft_bradley_terry(margin, label)
    if coef == 0:
        return loss
    return loss + coef * agreement_contrast(states, votes, group, temperature, sure)


@LOSSES.add("distil")
def distil(margin: Tensor, label: Tensor, distances: Tensor, log_gate: Tensor,
           weight: NotNegative = 0.1, balance: NotNegative = 0.1,
           layer_pairs: Several[Several[int]] = ((-1, -1),)) -> Tensor:
    """CE(p, label) + weight * R, R the mean over a pair's two responses of

        sum_k g_k D_k + balance * sum_k g_k log(K g_k)

    D_k is how far the student's hidden state is, through the k-th linear connector, from a
    teacher's, and g a gate on the student's own state: distillation.py. k runs over all teachers
    and over `layer_pairs`, which (src/methods/distilled_layers.py) number the student's layer and
    the teacher's, from 0 or, as -1 for the last, from above.
    """
    loss = soft_bradley_terry(margin, label)
    return loss + weight * gated(distances, log_gate, balance) if weight else loss


def check_losses(methods: Sequence[MethodConfig], where: str) -> tuple[MethodConfig, ...]:
    """The methods, of their losses' options only those that are no defaults.

    Args:
        where: names the methods' experiment, for the message.
    Raises:
        UserError: a method whose loss has no code, or not these options.
    """
    for method in methods:
        own = sorted({"aux_coef", "warmup_frac"} & method.loss_options.keys())
        require(not own, f"{where}: method {method.name}: loss_options: {', '.join(own)}: a key of "
                "the method itself: write it beside loss")
    return tuple(dataclasses.replace(method, loss_options=LOSSES.checked(
        method.loss, method.loss_options, f"{where}: method {method.name}")) for method in methods)


def looks_at_steps(method: MethodConfig) -> bool:
    """Whether the loss of a pair depends on the others of its step, or on more than its margin."""
    return not set(WHOLE_STEP).isdisjoint(LOSSES.asks(method.loss))


def pair_loss(method: MethodConfig, margin: Tensor, label: Tensor, progress: float,
              **more: Tensor) -> Tensor:
    """The loss of `method` per pair (B,), at `progress` in [0, 1] of the training.

    Args:
        more: what else is known, of WHOLE_STEP or of distillation.
    """
    return LOSSES.call(method.loss, {
        "margin": margin, "label": label, "progress": progress, "aux_coef": method.aux_coef,
        "warmup_frac": method.warmup_frac, "distances": None, "log_gate": None, **more},
        method.loss_options)


def centering(rewards: Tensor) -> Tensor:
    """Mean squared reward of a pair, (B, 2) -> (B,): keeps rewards near 0 (Eisenstein et al. 2023,
    arXiv 2312.09244; TRL's `center_rewards_coefficient`, which squares the sum of the two)."""
    return rewards.square().mean(dim=-1)


def _harden(signed: Tensor) -> Tensor:
    """1 above 0, 0 below, 0.5 at 0: the only rule that treats the sides alike."""
    return (torch.sign(signed) + 1) / 2
