"""The optimiser steps of an epoch: which pairs each takes, in which micro batches on this rank."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from configs.run import RunConfig
from src.batches.packing import Budget, MicroBatch, micro_batches
from src.batches.trees import Trees

EPOCH_STRIDE = 1_000_003
"""Epochs that a seed has to itself before it meets the next seed's shuffles."""


class Step(NamedTuple):
    """One rank's part of one optimiser step."""

    pairs: int
    """Pairs in the step, over all ranks: what its loss is a mean over."""
    micro_batches: list[MicroBatch]


@dataclass(frozen=True, eq=False)
class Course:
    """Which pairs of a split a training takes, and with which it begins."""

    kept: np.ndarray | None = None
    """(n,) bool: the pairs that are in any step; None for all."""
    first: np.ndarray | None = None
    """(n,) bool: the pairs that the first steps go through, epoch by epoch of their own; None for
    all that are kept."""
    first_steps: int = 0
    later_rate: float = 1.0
    """Factor of the learning rate after them."""


ALL_PAIRS = Course()


class StepSampler(Sampler[Step]):
    """One rank's steps of an epoch: every optimiser step takes the same pairs whatever the number
    of ranks, the budget and the layout.

    Prompts a (pairs 0 1 2), b (3), c (4 5 6), shuffled to c a b, in steps of four, or as near to
    four as leaves a prompt's pairs together:

        4 5 6 | 0 1 2 3

    Args:
        batch_pairs: in a step, over all ranks; the epoch's last step takes what is left.
        together: whether the pairs of a prompt are shuffled as one; else each alone.
        seed: of the shuffle, with the epoch; None for the given order.
        course: which of the pairs.
    """

    def __init__(self, trees: Trees, batch_pairs: int, budget: Budget, rank: int, world: int,
                 seed: int | None, together: bool = True, course: Course = ALL_PAIRS):
        self.trees, self.batch_pairs, self.budget = trees, batch_pairs, budget
        self.rank, self.world, self.course = rank, world, course
        self.seed, self.together, self.epoch = seed, together, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the shuffle of this epoch; the Trainer calls it, also where it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-count_kept(len(self.trees.chosen), self.course.kept) // self.batch_pairs)

    def __iter__(self) -> Iterator[Step]:
        for pairs in course_steps(self.trees, self.batch_pairs, self.seed, self.epoch,
                                  self.together, self.course):
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


def count_kept(pairs: int, kept: np.ndarray | None) -> int:
    """How many of so many pairs are in an epoch."""
    return pairs if kept is None else int(kept.sum())


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


def course_steps(trees: Trees, batch_pairs: int, seed: int | None, epoch: int, together: bool,
                 course: Course) -> list[np.ndarray]:
    """The pairs of each step of an epoch of a course: those of the same place in an epoch of all
    that are kept, but where the course goes through its first pairs still.

    A function of the epoch alone, so that a resumed training goes on with the steps that it missed.
    """
    steps = epoch_steps(trees, batch_pairs, seed, epoch, together, course.kept)
    begin = epoch * len(steps)
    if course.first is None or begin >= course.first_steps:
        return steps
    own: list[np.ndarray] = []  # of the first pairs, from the first epoch that is needed on
    their_epoch, missing = divmod(begin, -(-int(course.first.sum()) // batch_pairs))
    count = min(len(steps), course.first_steps - begin)
    while len(own) < missing + count:
        own += epoch_steps(trees, batch_pairs, seed, their_epoch, together, course.first)
        their_epoch += 1
    return own[missing:missing + count] + steps[count:]


def epoch_steps(trees: Trees, batch_pairs: int, seed: int | None, epoch: int, together: bool,
                kept: np.ndarray | None = None) -> list[np.ndarray]:
    """The pairs of each step of an epoch, in as many steps as pairs alone would make.

    Pairs that travel together are not parted: a step ends with the prompt that ends next to where
    it should, unless that is half a step away.
    """
    order = epoch_order(trees, seed, epoch, together)
    order = order if kept is None else order[kept[order]]
    ends = np.arange(batch_pairs, len(order), batch_pairs)
    if together and len(order):
        prompts = np.flatnonzero(np.diff(trees.group[order], prepend=-1))  # where each begins
        place = np.searchsorted(prompts, ends)
        before, after = prompts[place - 1], prompts[np.minimum(place, len(prompts) - 1)]
        nearest = np.where(np.abs(before - ends) <= np.abs(after - ends), before, after)
        ends = np.where(2 * np.abs(nearest - ends) < batch_pairs, nearest, ends)
    return np.split(order, ends)


@functools.lru_cache(maxsize=16)
def tokens_trained(trees: Trees, batch_pairs: int, epochs: float, seed: int, together: bool,
                   course: Course = ALL_PAIRS, steps: int | None = None) -> int:
    """Tokens that a training computes, forward and backward: every tree of every step, or of its
    first `steps`."""
    per_epoch = -(-count_kept(len(trees.chosen), course.kept) // batch_pairs)
    total = 0
    if steps is None:
        steps = max(1, int(np.ceil(epochs * per_epoch)))
    for epoch in range(-(-steps // per_epoch)):
        parts = course_steps(trees, batch_pairs, seed, epoch, together,
                             course)[:steps - epoch * per_epoch]
        total += trees.tokens(np.concatenate(parts), np.repeat(
            np.arange(len(parts)), [len(part) for part in parts]))
    return total


def optimiser_steps(run: RunConfig, pairs: int) -> int:
    """Optimiser steps of a run over `pairs` training pairs."""
    return max(1, int(np.ceil(np.ceil(pairs / run.train.batch_pairs) * run.train.epochs)))
