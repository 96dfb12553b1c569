"""The gradient of a loss that looks at all pairs of an optimiser step together, in micro batches.

    1. a forward without gradient over every micro batch of every rank: margins and states
    2. the loss of the whole step on these, and its derivative by each of them
    3. a forward with gradient over each micro batch, and of its margins and states the linear
       function that has this derivative

The gradient is that of the loss on one huge batch, however pairs are packed and dealt out (gradient
caching: Gao et al. 2021, arXiv 2101.06983). A step that is one micro batch of one process needs no
first forward of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.to_device import to_device
from src.batches.collate import PairDataset
from src.common import distributed


class Outputs(NamedTuple):
    """What a forward over a micro batch of P pairs gave, and what it learns from."""

    rewards: Tensor
    """(P, 2): of left and right."""
    states: Tensor | None
    """(P, 2, d): what these rewards were read from; None where the loss does not ask."""
    labels: Tensor
    """(P,)"""
    weights: Tensor
    """(P,)"""
    more: Mapping[str, Tensor] = MappingProxyType({})
    """What else the loss asks for, by its name."""

    @property
    def margin(self) -> Tensor:
        """(P,)"""
        return self.rewards[:, 0] - self.rewards[:, 1]


class StepShare(NamedTuple):
    """The part of a step's loss that belongs to the P pairs of a micro batch."""

    losses: Tensor
    """(P,), each times its weight."""
    by_margin: Tensor
    """(P,): derivative of the sum over all pairs of the step."""
    by_states: Tensor
    """(P, 2, d)"""

    def of(self, outputs: Outputs) -> Tensor:
        """(P,): the losses, with the step's gradient."""
        linear = self.by_margin * outputs.margin + (self.by_states * outputs.states).sum((1, 2))
        return self.losses + (linear - linear.detach())


def look_ahead(read: Callable[[Any], Outputs], micro_batches: Sequence[Any], data: PairDataset,
               loss: Callable[..., Tensor]) -> list[tuple[Outputs | None, StepShare]]:
    """Each micro batch's share of its step, and its outputs where they have their gradient already.
    Every rank calls it, with its own.

    Args:
        read: the forward over a micro batch.
        loss: (margin, label, states=, votes=, group=), see src/methods/losses.py -> (B,), of the
            pairs of all ranks. Where it does not ask for votes there are none, (B, 0).
    """
    alone = len(micro_batches) == distributed.world_size() == 1
    with torch.set_grad_enabled(alone):
        first = [read(micro) for micro in micro_batches]
    rows = _rows_of(micro_batches)
    votes = np.zeros((len(rows), 0), np.float32) if data.votes is None else data.votes[rows]
    shares = _shares(loss, first, votes, data.trees.group[rows])
    return [(outputs if alone else None, share)
            for outputs, share in zip(first, shares, strict=True)]


def _rows_of(micro_batches: Sequence[Any]) -> np.ndarray:
    """(P,): which pairs of the split they hold, which the host knows."""
    return torch.cat([micro["row"] for micro in micro_batches]).numpy()


def _shares(loss: Callable[..., Tensor], micro_batches: Sequence[Outputs], votes: np.ndarray,
            group: np.ndarray) -> list[StepShare]:
    """Args: votes (P, k) and group (P,) of this rank's pairs in their order."""
    known = [torch.cat(each).detach() for each in zip(*(
        (one.margin, one.states.float(), one.labels, one.weights) for one in micro_batches),
        strict=True)]
    known += [to_device(fact, known[0].device) for fact in (votes, group)]
    ranks = [known]
    if distributed.in_group():  # alone, there is nothing to wait for
        ranks = distributed.gather([fact.cpu() for fact in known])
    margin, states, labels, weights, votes, group = (
        torch.cat(each).to(known[0].device) for each in zip(*ranks, strict=True))
    inputs = margin.requires_grad_(), states.requires_grad_()
    losses = weights * loss(margin, labels, states=states, votes=votes, group=group)
    by = torch.autograd.grad(losses.sum(), inputs, materialize_grads=True)
    before = sum(len(each[0]) for each in ranks[:distributed.rank()])
    sizes = [len(one.labels) for one in micro_batches]
    own = (whole[before:before + sum(sizes)].split(sizes) for whole in (losses.detach(), *by))
    return [StepShare(*each) for each in zip(*own, strict=True)]
