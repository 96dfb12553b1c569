"""Which trees go together into one forward: cut, dealt to ranks, packed to a budget of tokens.

A *unit* is a prompt with some of its responses, to be computed together. Packed, a micro batch is
one row of units one after the other and costs their tokens; padded, each of a unit's rows is as
wide as the micro batch's longest. All is deterministic, and the same on every rank.
"""

import heapq
from typing import NamedTuple

import numpy as np

from configs.schema import RuntimeConfig
from src.batches.trees import Sizes, Trees, distinct, starts

SCORED_TOKENS = {"cpu": 4_096, "cuda": 32_768}
"""In a forward where nothing is trained. On a CPU more cost a quarter to a third more time."""
AUTO_TOKENS = (32_768, 16_384, 8_192, 4_096)
"""What `micro_batch_tokens: auto` may become: lengths that kernels are compiled for. The last is
what it is on a CPU, and where it is not known what a device holds."""


class Budget(NamedTuple):
    """How much goes into one forward on one device."""

    tokens: int
    """Padding included. A single pair, or response, with more goes alone."""
    packed: bool
    """One row without padding; otherwise a row for each tree, padded to the longest."""

    def cost(self, sizes: Sizes) -> np.ndarray:
        """(U,): tokens of units that are computed alone."""
        return sizes.tokens if self.packed else sizes.trees * sizes.longest


def fewest_tokens(runtime: RuntimeConfig) -> int:
    """Of a micro batch in training: the config's number, or the least that `auto` becomes."""
    asked = runtime.micro_batch_tokens
    return AUTO_TOKENS[-1] if asked == "auto" else asked


def scoring_budget(runtime: RuntimeConfig, device: str, packed: bool) -> Budget:
    """What goes into one forward on a device of this type where nothing is trained."""
    tokens = runtime.score_batch_tokens or SCORED_TOKENS.get(device, SCORED_TOKENS["cuda"])
    return Budget(tokens, packed)


class MicroBatch(NamedTuple):
    """Pairs of some units, for one forward."""

    pairs: np.ndarray
    """(P,) index of each pair in its split."""
    unit: np.ndarray
    """(P,) number of the unit that it stands in, ascending from 0; its pairs have one prompt."""


def micro_batches(trees: Trees, pairs: np.ndarray, budget: Budget, rank: int,
                  world: int) -> list[MicroBatch]:
    """`rank`'s share of the forwards over `pairs`: as many for every rank, some without a pair.

    Units are dealt longest first, each to the rank with the least so far, so that ranks differ by
    no more than one unit's tokens.
    """
    pairs, unit, sizes = _by_prompt(trees, pairs, budget)
    order = _longest_first(sizes, budget)
    ranks = _deal(budget.cost(sizes)[order], world)
    shares = [order[ranks == each] for each in range(world)]
    numbers = [pack(sizes, share, budget) for share in shares]
    # Only this rank's units get the number of a micro batch; the others are somebody else's.
    number_of = np.full(len(order), -1)
    number_of[shares[rank]] = numbers[rank]
    places = [np.flatnonzero(number_of[unit] == number)
              for number in range(max(each.max(initial=-1) for each in numbers) + 1)]
    return [MicroBatch(pairs[place], _renumbered(unit[place])) for place in places]


def scoring_batches(trees: Trees, budget: Budget) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every distinct response once: (responses (R,), number of each one's unit (R,)) a forward.

    Longest first: a forward holds units of one length, and one too big for the memory fails at once
    and not after an hour.
    """
    responses = np.arange(len(trees.response_tokens))
    unit = _cut_responses(trees, budget) if trees.share_prompt else responses
    sizes = trees.sizes(responses, unit)
    order = _longest_first(sizes, budget)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))  # (U,): the inverse of the order
    responses = responses[np.argsort(place[unit], kind="stable")]
    unit = np.sort(place[unit])
    cuts = np.flatnonzero(np.diff(pack(sizes, order, budget)[unit])) + 1
    return [(some, _renumbered(number)) for some, number in
            zip(np.split(responses, cuts), np.split(unit, cuts), strict=True)]


def pack(sizes: Sizes, order: np.ndarray, budget: Budget) -> np.ndarray:
    """(U,): the micro batch, numbered from 0, of each of the units `order` (U,), longest first:
    each joins the one before it where the budget allows."""
    numbers, number, used, width = [], -1, 0, 0
    for tokens, trees, longest in zip(*(size[order].tolist() for size in sizes), strict=True):
        used += tokens if budget.packed else trees * width
        if number < 0 or used > budget.tokens:
            number, width = number + 1, longest
            used = tokens if budget.packed else trees * longest
        numbers.append(number)
    return np.array(numbers, np.int64)


def responses_of(trees: Trees, pairs: np.ndarray,
                 unit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct responses of units of pairs: (R,) number in `trees`, (R,) unit, and (2, P) which
    of them is each pair's chosen and rejected one."""
    both = np.concatenate([trees.chosen[pairs], trees.rejected[pairs]])
    units = np.concatenate([unit, unit])
    first, index = distinct(units, both)
    return both[first], units[first], index.reshape(2, -1)


def _by_prompt(trees: Trees, pairs: np.ndarray,
               budget: Budget) -> tuple[np.ndarray, np.ndarray, Sizes]:
    """Pairs sorted by prompt, the unit of each, and the units' sizes. A unit is a prompt with all
    its pairs, or with a part of them where all together are above the budget."""
    prompt = trees.prompt_of[trees.chosen[pairs]]
    order = np.argsort(prompt, kind="stable")
    pairs, prompt = pairs[order], prompt[order]
    new = starts(prompt)  # (P,) bool: a unit begins here
    unit = np.cumsum(new) - 1
    sizes = _sizes(trees, pairs, unit)
    # A prompt whose pairs do not fit is cut where the next pair would be too much.
    too_big = np.flatnonzero(budget.cost(sizes) > budget.tokens)
    for big in too_big:
        first, end = np.searchsorted(unit, [big, big + 1])
        for i in range(first + 1, end):
            alone = _sizes(trees, pairs[first:i + 1], np.zeros(i + 1 - first, np.int64))
            if budget.cost(alone)[0] > budget.tokens:
                new[i], first = True, i
    if len(too_big):
        unit = np.cumsum(new) - 1
        sizes = _sizes(trees, pairs, unit)
    return pairs, unit, sizes


def _sizes(trees: Trees, pairs: np.ndarray, unit: np.ndarray) -> Sizes:
    return trees.sizes(*responses_of(trees, pairs, unit)[:2])


def _cut_responses(trees: Trees, budget: Budget) -> np.ndarray:
    """(M,): the unit of every response: its prompt, or a part of it where all are too many."""
    new = starts(trees.prompt_of)
    ends = np.append(np.flatnonzero(new), len(new))
    totals = np.add.reduceat(trees.response_tokens, ends[:-1]) + trees.prompt_tokens
    for big in np.flatnonzero(totals > budget.tokens):
        used = prompt = trees.prompt_tokens[big]
        for i in range(ends[big], ends[big + 1]):
            used += trees.response_tokens[i]
            if used > budget.tokens and not new[i]:
                new[i], used = True, prompt + trees.response_tokens[i]
    return np.cumsum(new) - 1


def _longest_first(sizes: Sizes, budget: Budget) -> np.ndarray:
    """(U,): the order of units by what makes a row of them long."""
    return np.argsort(-(sizes.tokens if budget.packed else sizes.longest), kind="stable")


def _deal(tokens: np.ndarray, world: int) -> np.ndarray:
    """(U,): rank of each unit; units are given longest first."""
    if world == 1:
        return np.zeros(len(tokens), np.int64)
    loads = [(0, rank) for rank in range(world)]
    ranks = []
    for size in tokens.tolist():
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + size, rank))
        ranks.append(rank)
    return np.array(ranks, np.int64)


def _renumbered(unit: np.ndarray) -> np.ndarray:
    """Ascending numbers without their gaps, from 0."""
    return np.cumsum(starts(unit)) - 1
