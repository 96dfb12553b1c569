"""What the pairs of a split share: their distinct prompts, and each prompt's distinct responses.

Four responses to one prompt, compared in six pairs, are a tree of one prompt and four responses.
Knows token ids alone: no label, and no order of the two responses of a pair but the caller's.
"""

import functools
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from data.tokens.tokenised import TokenisedSplit

PROMPT, CHOSEN, REJECTED = range(3)
"""Columns of a split's token ids."""


class TreeIds(NamedTuple):
    """Token ids of some trees, in their order."""

    prompts: list[np.ndarray]
    """One a tree, each (length,)."""
    responses: list[np.ndarray]
    """Those of the first tree, then those of the second, ..., each (length,)."""
    tree: np.ndarray
    """(R,) int: number of each response's tree, ascending from 0."""
    token: np.ndarray
    """(trees + R,) int: number, among the split's tokens, of the first of each prompt, then of each
    response."""


class Sizes(NamedTuple):
    """Of U units, each (U,) int: tokens, trees, and tokens of the longest of these trees."""

    tokens: np.ndarray
    trees: np.ndarray
    longest: np.ndarray


class Trees:
    """The distinct prompts and responses of a split's n pairs, by numbers.

    Two pairs have one prompt where its token ids are equal, and one response where its own are too.
    Responses are numbered prompt by prompt, and within a prompt by a hash of their tokens, so that
    the order in which a row holds them says nothing of which was preferred.

    Args:
        split: G distinct prompts, M distinct responses.
        share_prompt: off, each response is a tree of its own, with the prompt before it.
    """

    def __init__(self, split: TokenisedSplit, share_prompt: bool = True):
        self.split, self.share_prompt = split, share_prompt
        lengths = split.lengths()
        digests = [_digests(split, column) for column in (PROMPT, CHOSEN, REJECTED)]
        self._prompt_row, prompt = distinct(digests[PROMPT])
        first, response = distinct(np.tile(prompt, 2), np.concatenate(digests[1:]))
        self._response_row, self._response_column = first % max(1, len(split)), np.where(
            first < len(split), CHOSEN, REJECTED)
        self.chosen: np.ndarray = response[:len(split)]
        """(n,): number of each pair's chosen response."""
        self.rejected: np.ndarray = response[len(split):]
        self.prompt_of: np.ndarray = prompt[self._response_row]
        """(M,): number of each response's prompt, ascending."""
        self.prompt_tokens: np.ndarray = lengths[self._prompt_row, PROMPT]
        """(G,): length of each prompt."""
        self.response_tokens: np.ndarray = lengths[self._response_row, self._response_column]
        """(M,): length of each response."""
        starts = np.cumsum([0, *self.prompt_tokens, *self.response_tokens])
        self._first_token = starts[:-1]  # of every prompt, then of every response
        self.total_tokens = int(starts[-1])
        """Tokens of all distinct prompts and responses, which are numbered in this order."""
        self.group: np.ndarray = _by_first_occurrence(split.prompt_ids)
        """(n,): number of each pair's prompt in the order of the split. Known without a tokenizer:
        what is shuffled by it has one order for every model."""

    def sizes(self, responses: np.ndarray, unit: np.ndarray) -> Sizes:
        """What some units cost, each a prompt with some of its responses.

        Args:
            responses: (R,), distinct within a unit.
            unit: (R,), number of each one's unit, ascending from 0 without a gap.
        """
        first = np.flatnonzero(starts(unit))
        own, prompt = self.response_tokens[responses], self.prompt_tokens[
            self.prompt_of[responses[first]]]
        answers = np.add.reduceat(own, first)
        if self.share_prompt:
            return Sizes(prompt + answers, np.ones(len(first), np.int64), prompt + answers)
        rows = np.diff(first, append=len(unit))
        return Sizes(rows * prompt + answers, rows, prompt + np.maximum.reduceat(own, first))

    def tokens(self, pairs: np.ndarray, step: np.ndarray) -> int:
        """Tokens that `pairs` (P,), each in a step (P,) int, cost: nothing twice in a step."""
        count = len(self.response_tokens)
        both = np.concatenate([self.chosen[pairs], self.rejected[pairs]])
        keys = np.unique(np.tile(step, 2) * count + both)
        responses = keys % count
        prompts = self.prompt_of[responses]
        if self.share_prompt:
            prompts = np.unique(keys // count * count + prompts) % count
        return int(self.response_tokens[responses].sum() + self.prompt_tokens[prompts].sum())

    def read(self, responses: np.ndarray, unit: np.ndarray) -> TreeIds:
        """Token ids of units as in `sizes`, as the trees that they are laid out as."""
        tree = unit if self.share_prompt else np.arange(len(responses))
        prompts = self.prompt_of[responses[starts(tree)]]
        rows = np.concatenate([self._prompt_row[prompts], self._response_row[responses]])
        columns = np.zeros(len(rows), int)
        columns[len(prompts):] = self._response_column[responses]
        ids = self.split.ids(rows, columns)
        segments = np.concatenate([prompts, len(self.prompt_tokens) + responses])
        return TreeIds(ids[:len(prompts)], ids[len(prompts):], tree, self._first_token[segments])


@functools.lru_cache(maxsize=8)
def trees_of(split: TokenisedSplit, share_prompt: bool) -> Trees:
    """The trees of an open split, found once for all the runs that read it."""
    return Trees(split, share_prompt)


def _digests(split: TokenisedSplit, column: int) -> np.ndarray:
    """(n,) uint64: hash of each row's token ids in a column. Two of a million texts meet with a
    chance of one in 10^7."""
    texts = split.ids(np.arange(len(split)), np.full(len(split), column))
    return np.frombuffer(b"".join(blake2b(ids, digest_size=8).digest() for ids in texts), np.uint64)


def distinct(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of some columns, sorted: where each first is (U,), and the number of each
    row (n,). Of short columns this takes a third of np.unique's time."""
    order = np.lexsort(keys[::-1])
    new = functools.reduce(np.logical_or, (starts(key[order]) for key in keys))
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number


def starts(values: np.ndarray) -> np.ndarray:
    """(n,) bool: where a value differs from the one before it; the first does."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new


def _by_first_occurrence(names: np.ndarray) -> np.ndarray:
    """(n,): number of each name, 0 for the first that occurs, 1 for the next new one, ..."""
    _, first, number = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]
