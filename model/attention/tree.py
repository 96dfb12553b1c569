"""Which token sees which, where the responses to one prompt share it and trees share a row.

A tree is `prompt | response 1 | ... | response K`; a row is one tree or several, then padding.
Position ids restart after the prompt and at each tree, and a response sees its prompt and itself,
so that each reward equals that of a forward over `prompt | response k` alone.
"""

import functools
from dataclasses import dataclass

import numpy as np
from torch import Tensor

PADDING = -1
PROMPT = 0


@dataclass(frozen=True)
class Segment:
    """Tokens start .. end of a row that stand together: a prompt, a response, or padding."""

    tree: int
    branch: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class HostLayout:
    """What a collator knows of its B rows, kept on the host: asking a GPU for it stops the GPU."""

    segments: list[list[Segment]]
    """Of each row, in order."""
    last_index: np.ndarray
    """(B, R)"""
    longest: int
    """See `Layout.longest`."""

    def to(self, *args, **kwargs) -> "HostLayout":
        """Itself: it travels among tensors that are moved to a device."""
        return self


@dataclass(frozen=True, eq=False)
class Layout:
    """What the tokens of B rows are.

    position_ids, tree, branch (B, T), last_index (B, R) and host: see `RewardForward.forward`.
    """

    position_ids: Tensor
    tree: Tensor
    branch: Tensor
    last_index: Tensor
    backend: str
    host: HostLayout | None = None

    def segments(self, row: int = 0) -> list[Segment]:
        """Of a row, in order."""
        if self.host is not None:
            return self.host.segments[row]
        tree, branch = self.tree[row].cpu().numpy(), self.branch[row].cpu().numpy()
        changes = np.flatnonzero((np.diff(tree) != 0) | (np.diff(branch) != 0)) + 1
        bounds = [0, *changes.tolist(), len(tree)]
        return [Segment(int(tree[start]), int(branch[start]), start, end)
                for start, end in zip(bounds, bounds[1:], strict=False)]

    @functools.cached_property
    def read(self) -> Tensor:
        """(B, R): last_index, and the row's last token where that is -1, so that it ascends."""
        return self.last_index.masked_fill(self.last_index < 0, self.tree.shape[1] - 1)

    def read_of_row(self, row: int = 0) -> np.ndarray:
        """(R,): `read` of a row, on the host."""
        if self.host is None:
            return self.read[row].cpu().numpy()
        last = self.host.last_index[row]
        return np.where(last < 0, self.tree.shape[1] - 1, last)

    @functools.cached_property
    def longest(self) -> int:
        """One more than the highest position: a window of so much hides nothing."""
        if self.host is not None:
            return self.host.longest
        return int(self.position_ids.max()) + 1

    @functools.cached_property
    def made(self) -> dict:
        """What a back end made for one layer of this forward and the others use again."""
        return {}

    def sees(self, queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
        """(B, Q, S) bool: whether the token at each of `queries` (B, Q) sees that at `keys` (B, S).

        `window`: a query sees keys fewer than this many positions back; None for all.
        """
        def facts(indices: Tensor) -> list[Tensor]:
            return [indices, *(fact.gather(1, indices) for fact in (
                self.tree, self.branch, self.position_ids))]

        return visible([fact[:, :, None] for fact in facts(queries)],
                       [fact[:, None, :] for fact in facts(keys)], window)


def visible(query: list[Tensor], key: list[Tensor], window: int | None) -> Tensor:
    """The rule itself, over (index, tree, branch, position) of queries and keys that broadcast.

    Padding sees itself: a softmax over nothing is NaN, which no later mask takes back out of the
    gradient.
    """
    index, tree, branch, position = query
    key_index, key_tree, key_branch, key_position = key
    sees = (key_index <= index) & (key_tree == tree)
    sees = sees & ((key_branch == PROMPT) | (key_branch == branch))
    if window is not None:
        sees = sees & (position - key_position < window)
    return (sees & (tree != PADDING)) | (key_index == index)
