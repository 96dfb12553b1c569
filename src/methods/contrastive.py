"""What several experts' votes say beyond a label: which responses are alike, and when to doubt it.

Pure functions on the B pairs of a whole optimiser step, tensors in and tensors out:

    states   (B, 2, d): final hidden state at the last token of each pair's left and right response
    votes    (B, k): each expert's P(left preferred to right)
    group    (B,) int: number of each pair's prompt

None of them changes where the sides of a pair are swapped, or the pairs of a step reordered.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def agreed_side(votes: Tensor, sure: float) -> Tensor:
    """(B,): 1 where every expert prefers left, -1 where every one prefers right, each with a
    confidence |2v - 1| above `sure`; 0 where they do not agree so."""
    lean = 2 * votes - 1
    return (lean > sure).all(dim=1).to(lean.dtype) - (lean < -sure).all(dim=1).to(lean.dtype)


def agreement_contrast(states: Tensor, votes: Tensor, group: Tensor, temperature: float,
                       sure: float) -> Tensor:
    """(B,): the supervised contrastive loss of each pair's two responses, see `contrastive` in
    losses.py for its equation; 0 where the experts do not agree."""
    side = agreed_side(votes, sure)
    role = torch.stack([side, -side], dim=1).flatten()  # (2B,): 1 positive, -1 negative, 0 neither
    z = F.normalize(states, dim=-1).flatten(0, 1)  # (2B, d)
    prompt = group.repeat_interleave(2)
    pair = torch.arange(len(group), device=group.device).repeat_interleave(2)
    elsewhere, alike = prompt[:, None] != prompt, role[:, None] * role  # (2B, 2B)
    positive = (alike > 0) & elsewhere
    beside = positive | ((alike < 0) & (elsewhere | (pair[:, None] == pair)))
    logits = z @ z.T / temperature
    # The lowest number and not -inf: of an anchor with nothing beside it the gradient would be NaN.
    total = logits.masked_fill(~beside, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    log_share = (logits - total).masked_fill(~positive, 0.0)
    loss = -log_share.sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return loss.view(-1, 2).mean(dim=1)


def self_corrected(margin: Tensor, label: Tensor, votes: Tensor, takeover: float) -> Tensor:
    """(B,): the labels, but 1 or 0 as the student itself judges where its experts' votes are split
    and it contradicts their mean with a confidence |2p - 1| above `takeover`. A constant."""
    own, lean = margin.detach(), 2 * votes - 1
    split = (lean > 0).any(dim=1) & (lean < 0).any(dim=1)
    against = own * lean.mean(dim=1) < 0
    certain = torch.tanh(own.abs() / 2) > takeover
    return torch.where(split & against & certain, (own > 0).to(label.dtype), label)
