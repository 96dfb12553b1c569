"""How a packed row of trees is cut into blocks of queries, each with the keys that it sees.

Attention block by block costs what the trees are long, not what the row is.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from model.attention.tree import PROMPT, Segment

Stretch = tuple[int, int]
"""Tokens start .. end of a row."""


@dataclass(frozen=True)
class Block:
    """Queries start .. end of a row, and the stretches of it that hold every key they see."""

    start: int
    end: int
    keys: tuple[Stretch, ...]
    branches: tuple[Stretch, ...] = ()
    """The queries of each branch: these see the first `before` keys and, causally, their own.
    Empty where what is seen has to be asked token by token."""
    before: int = 0


@dataclass(frozen=True)
class Group:
    """Whole trees, and the blocks that their queries make."""

    start: int
    end: int
    blocks: tuple[Block, ...]


def groups(segments: list[Segment], size: int) -> Iterator[Group]:
    """Groups that cover a packed row, in blocks of at most `size` queries.

    Short trees are taken together: all their keys for each other, the mask hides most. A tree that
    is longer than `size` is cut, but responses stay together while they are no longer than that: a
    call costs more than the scores between a few short responses. Nothing is computed between
    queries and the blocks that come after them.
    """
    short: list[Segment] = []
    for _, parts in itertools.groupby(segments, key=lambda segment: segment.tree):
        tree = list(parts)
        if short and tree[-1].end - short[0].start > size:
            yield _together(short)
            short = []
        if tree[-1].end - tree[0].start > size:
            yield Group(tree[0].start, tree[-1].end, tuple(_cut(tree, size)))
        else:
            short += tree
    if short:
        yield _together(short)


def _together(segments: list[Segment]) -> Group:
    start, end = segments[0].start, segments[-1].end
    return Group(start, end, (Block(start, end, ((start, end),)),))


def _cut(tree: list[Segment], size: int) -> Iterator[Block]:
    """The blocks of one long tree, whose prompt, where it has one, comes first."""
    start = tree[0].start
    shared = start, start  # without a prompt in this row, nothing is
    if tree[0].branch == PROMPT:
        yield from _branch_blocks(shared, tree[0], size)
        shared = start, tree[0].end
        tree = tree[1:]
    for some in _neighbours(tree, size):
        if len(some) == 1:
            yield from _branch_blocks(shared, some[0], size)
        else:
            own = some[0].start, some[-1].end
            branches = tuple((each.start, each.end) for each in some)
            yield Block(*own, _keys(shared, own), branches, shared[1] - shared[0])


def _neighbours(responses: list[Segment], size: int) -> Iterator[list[Segment]]:
    """Responses that are together no longer than `size`; a longer one is alone."""
    some: list[Segment] = []
    for response in responses:
        if some and response.end - some[0].start > size:
            yield some
            some = []
        some.append(response)
    if some:
        yield some


def _branch_blocks(shared: Stretch, branch: Segment, size: int) -> Iterator[Block]:
    """One branch, `size` queries after the other: each sees what is shared and the branch so far"""
    for start in range(branch.start, branch.end, size):
        end = min(start + size, branch.end)
        before = shared[1] - shared[0] + start - branch.start
        yield Block(start, end, _keys(shared, (branch.start, end)), ((start, end),), before)


def _keys(shared: Stretch, own: Stretch) -> tuple[Stretch, ...]:
    """Both, as one stretch where one follows the other."""
    if shared[0] == shared[1]:
        return (own,)
    return ((shared[0], own[1]),) if shared[1] == own[0] else (shared, own)
