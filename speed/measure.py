"""Systems measured in turn: A B C A B C ..., so that a slow minute of the machine hits them all.

A system is a function that does one round of work, from the same start each time, and says how long
the timed part took. Every round has pairs of its own. One round more goes before the others, unless
rounds take minutes: it warms up, and peak memory is read there; its time does not count.
"""

import functools
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from src.common.memory import peak_memory_mib, reset_peak, set_libraries_aside


@dataclass(frozen=True)
class Round:
    """One round of one system."""

    seconds: float
    cpu_seconds: float
    """What this process computed, whatever else the machine did meanwhile."""
    tokens: int
    """Tokens that went through the model: rows x width of every batch, padding included."""


@dataclass(frozen=True)
class System:
    """What is measured."""

    name: str
    run: Callable[[int], Round]
    """Does the round of this number."""
    same_pairs: bool = True
    """Whether each round has the pairs that the other systems have in it; otherwise that holds only
    of all rounds together."""


@dataclass
class Measured:
    """A system's rounds."""

    system: System
    peak_mib: int | None
    rounds: list[Round] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Of every round; where rounds have pairs of other lengths than the other systems', as if
        each had its equal share of the tokens."""
        if self.system.same_pairs:
            return [each.seconds for each in self.rounds]
        share = self.tokens / len(self.rounds)
        return [each.seconds * share / each.tokens for each in self.rounds]

    @property
    def total_seconds(self) -> float:
        return sum(each.seconds for each in self.rounds)

    @property
    def total_cpu_seconds(self) -> float:
        return sum(each.cpu_seconds for each in self.rounds)

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self.rounds)


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds: median, lowest, highest."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    return Spread(float(np.median(values)), min(values), max(values))


def alternate(systems: list[System], rounds: int, title: str,
              warm_up: bool = True) -> list[Measured]:
    """`rounds` rounds of every system, in turn.

    Args:
        warm_up: after one that does not count, where peak memory is read; otherwise it is not.
    """
    measured = [Measured(system, None) for system in systems]
    set_libraries_aside()
    with tqdm(total=(rounds + warm_up) * len(systems), desc=title, unit="run", delay=2) as bar:
        for each in measured if warm_up else ():
            bar.set_postfix_str(each.system.name)
            each.peak_mib = peak_mib(functools.partial(each.system.run, 0))
            bar.update()
        for number in range(rounds):
            for each in measured:
                bar.set_postfix_str(each.system.name)
                gc.collect()
                each.rounds.append(each.system.run(number))
                bar.update()
    return measured


def ratios(own: Measured, baseline: Measured) -> Spread:
    """How many times faster than `baseline`, round by round: equally many pairs in each."""
    return spread([base / mine for mine, base in zip(own.seconds, baseline.seconds, strict=True)])


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Inside, a list of the sizes (rows x width) of what goes through the model."""
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


class Clock:
    """Reads seconds since it was made, once the accelerator has nothing left to do."""

    def __init__(self):
        self._begin = self._now()

    def read(self, tokens: int) -> Round:
        """A round that ends now."""
        seconds, cpu_seconds = (end - begin for end, begin in zip(self._now(), self._begin,
                                                                  strict=True))
        return Round(seconds, cpu_seconds, tokens)

    @staticmethod
    def _now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def peak_mib(work: Callable[[], object]) -> int | None:
    """MiB that `work` takes at most at once.

    On CUDA what torch allocated. On a CPU how far this process grows over what it held before, once
    freed memory is back with the system; None where the system does not tell.
    """
    reset_peak()
    before = 0 if torch.cuda.is_available() else peak_memory_mib()
    work()
    return None if before is None else peak_memory_mib() - before
