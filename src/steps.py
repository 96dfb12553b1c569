"""The optimiser steps of an epoch: which pairs each takes, in which micro batches on this rank."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from src.packing import Budget, MicroBatch, micro_batches
from src.trees import Trees

EPOCH_STRIDE = 1_000_003
"""Epochs that a seed has to itself before it meets the next seed's shuffles."""


class Step(NamedTuple):
    """One rank's part of one optimiser step."""

    pairs: int
    """Pairs in the step, over all ranks: what its loss is a mean over."""
    micro_batches: list[MicroBatch]


class StepSampler(Sampler[Step]):
    """One rank's steps of an epoch: every optimiser step takes the same pairs whatever the number
    of ranks, the budget and the layout.

    Prompts a (pairs 0 1 2), b (3), c (4 5 6), shuffled to c a b, in steps of four:

        4 5 6 0 | 1 2 3

    Args:
        batch_pairs: in a step, over all ranks; the epoch's last step takes what is left.
        together: whether the pairs of a prompt are shuffled as one; else each alone.
        seed: of the shuffle, with the epoch; None for the given order.
    """

    def __init__(self, trees: Trees, batch_pairs: int, budget: Budget, rank: int, world: int,
                 seed: int | None, together: bool = True):
        self.trees, self.batch_pairs, self.budget = trees, batch_pairs, budget
        self.rank, self.world = rank, world
        self.seed, self.together, self.epoch = seed, together, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the shuffle of this epoch; the Trainer calls it, also where it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.trees.chosen) // self.batch_pairs)

    def __iter__(self) -> Iterator[Step]:
        order = epoch_order(self.trees, self.seed, self.epoch, self.together)
        for begin in range(0, len(order), self.batch_pairs):
            pairs = order[begin : begin + self.batch_pairs]
            yield Step(len(pairs), micro_batches(self.trees, pairs, self.budget, self.rank,
                                                 self.world))


class SinglePass(StepSampler):
    """All pairs once, in no order, a micro batch at a time: for evaluation."""

    def __init__(self, trees: Trees, budget: Budget, rank: int, world: int):
        super().__init__(trees, len(trees.chosen), budget, rank, world, seed=None)
        self._steps = [Step(step.pairs, [micro]) for step in super().__iter__()
                       for micro in step.micro_batches]

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)


def epoch_order(trees: Trees, seed: int | None, epoch: int, together: bool) -> np.ndarray:
    """(n,): the pairs in the order that an epoch takes them; see StepSampler."""
    pairs = len(trees.chosen)
    if seed is None:
        return np.arange(pairs)
    generator = torch.Generator().manual_seed(EPOCH_STRIDE * seed + epoch)
    if not together:
        return torch.randperm(pairs, generator=generator).numpy()
    shuffled = torch.randperm(int(trees.group.max()) + 1, generator=generator).numpy()
    return np.argsort(np.argsort(shuffled)[trees.group], kind="stable")


@functools.lru_cache(maxsize=16)
def tokens_trained(trees: Trees, batch_pairs: int, epochs: float, seed: int,
                   together: bool) -> int:
    """Tokens that a training computes, forward and backward: every tree of every step."""
    per_epoch = -(-len(trees.chosen) // batch_pairs)
    steps, total = max(1, int(np.ceil(epochs * per_epoch))), 0
    for epoch in range(-(-steps // per_epoch)):
        order = epoch_order(trees, seed, epoch, together)
        order = order[: (steps - epoch * per_epoch) * batch_pairs]
        total += trees.tokens(order, np.arange(len(order)) // batch_pairs)
    return total
