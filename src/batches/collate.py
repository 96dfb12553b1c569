"""Pairs of a micro batch -> the tensors that a reward model reads. Blind to where labels come from.

A micro batch holds trees: a prompt, its distinct responses, and the pairs among them. It is one row
of all its trees without padding, or, with `pack` off, a padded row for each tree.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.records import left_is_chosen
from data.tokens.tokenised import TokenisedSplit
from model.attention.tree import HostLayout, Segment
from src.batches.packing import responses_of
from src.batches.steps import Step
from src.batches.trees import TreeIds, Trees, trees_of

PADDING = -1
"""Tree and branch of a padding token, and last index of a response that a row does not have."""
MODEL_INPUTS = ("input_ids", "position_ids", "tree", "branch", "last_index")


HiddenOf = Callable[[Tensor], Tensor]
"""(B, T) numbers of tokens in their split, -1 for padding -> (B, T, d) known hidden states."""


class Examples(NamedTuple):
    """One micro batch as read from its data set."""

    ids: TreeIds
    left: np.ndarray
    """(P,) int: which of the responses is each pair's left one."""
    right: np.ndarray
    labels: np.ndarray
    """(P,) float32: P(left preferred to right)."""
    row: np.ndarray
    """(P,) int: index of each pair in its split."""
    hidden_of: HiddenOf | None


class PairDataset(Dataset):
    """Pairs as trees, with sides picked by hash.

    Args:
        split: the tokenised pairs.
        labels: P(chosen preferred to rejected) per pair, (n,): ones for human labels, a teacher's
            probabilities for weak ones. This is the only way a label gets in: the pairs' own order
            is dropped here, and nothing downstream can see it.
        share_prompt: off, each response is a tree of its own.
        hidden_of: what frozen layers make of this split, see src/scoring/trunk_cache.py.
    """

    def __init__(self, split: TokenisedSplit, labels: np.ndarray, share_prompt: bool = True,
                 hidden_of: HiddenOf | None = None):
        if len(labels) != len(split):
            raise ValueError(f"{len(labels)} labels for {len(split)} pairs: one each is needed")
        self.split, self.hidden_of = split, hidden_of
        self.trees: Trees = trees_of(split, share_prompt)
        self.left_is_chosen = np.array([left_is_chosen(pair) for pair in split.pair_ids], bool)
        self.labels = np.where(self.left_is_chosen, labels, 1 - labels).astype(np.float32)

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, step: Step) -> tuple[int, list[Examples]]:
        """The pairs of the step and its micro batches; the DataLoader calls this."""
        return step.pairs, [self.read(*micro) for micro in step.micro_batches]

    def read(self, pairs: np.ndarray, unit: np.ndarray) -> Examples:
        """Pairs of some units, see MicroBatch; (P,) each."""
        if not len(pairs):
            return FILLER._replace(hidden_of=self.hidden_of)
        responses, units, (chosen, rejected) = responses_of(self.trees, pairs, unit)
        left = self.left_is_chosen[pairs]
        return Examples(self.trees.read(responses, units), np.where(left, chosen, rejected),
                        np.where(left, rejected, chosen), self.labels[pairs], pairs,
                        self.hidden_of)


NONE = np.zeros(0, np.int64)
FILLER = Examples(TreeIds([np.zeros(1, np.int32)], [np.zeros(1, np.int32)], np.zeros(1, np.int64),
                          np.zeros(2, np.int64)),
                  NONE, NONE, NONE.astype(np.float32), NONE, None)
"""For ranks with less to do: all of them run as many forwards as the one with most, in which they
gather weights from each other. A tree of two tokens, without a pair."""


class TreeCollator:
    """What a data set read for a step -> `pairs`, the pairs of the step, and its `micro_batches`.

    Two trees, prompt (7 8) with responses (1) (2 3) and (4), of which one pair compares the first
    two, the other the last two; and prompt (9) with (4) (5); all in one row:

        input_ids     7 8 1 2 3 4 9 4 5     position_ids  0 1 2 2 3 2 0 1 1
        tree          0 0 0 0 0 0 1 1 1     branch        0 0 1 2 2 3 0 4 5
        last_index    2 4 5 7 8             left, right   0 1 3, 1 2 4

    or, not packed, each in its own, - being -1:

        input_ids     7 8 1 2 3 4           position_ids  0 1 2 2 3 2
                      9 4 5 0 0 0                         0 1 1 0 0 0
        tree          0 0 0 0 0 0           branch        0 0 1 2 2 3
                      0 0 0 - - -                         0 1 2 - - -
        last_index    2 4 5                 left, right   0 1 3, 1 2 4
                      1 2 -
    """

    def __init__(self, pad_token_id: int, pack: bool = True):
        self.pad_token_id, self.pack = pad_token_id, pack

    def __call__(self, step: tuple[int, list[Examples]]) -> dict:
        pairs, micro_batches = step
        return {"pairs": pairs, "micro_batches": [self.collate(each) for each in micro_batches]}

    def collate(self, examples: Examples) -> dict[str, Tensor]:
        """MODEL_INPUTS; left, right (P,): where in the model's rewards, flattened, those of each
        pair are; labels (P,) float32; row (P,) int64."""
        batch, place = self.lay_out(examples.ids, examples.hidden_of)
        rest = {"left": place[examples.left], "right": place[examples.right],
                "labels": examples.labels, "row": examples.row}
        return batch | {name: torch.from_numpy(array) for name, array in rest.items()}

    def lay_out(self, ids: TreeIds,
                hidden_of: HiddenOf | None = None) -> tuple[dict[str, Tensor], np.ndarray]:
        """MODEL_INPUTS, (B, T) and (B, R), host, and with `hidden_of` hidden, (B, T, d); and where
        in the rewards, flattened, each response's is, (number of responses,).

        Positions restart after the prompt for every response, and at every tree. last_index is
        where a response's last token stands: the reward is read there, by index. A response without
        tokens, the absent side of a pointwise record, has reward 0: nothing is read in its place.
        """
        ids, present = _present(ids)
        trees = len(ids.prompts)
        tree = np.concatenate([np.arange(trees), ids.tree])  # of each segment, prompts first
        order = np.argsort(tree, kind="stable")  # every prompt, then its responses
        segments = [*ids.prompts, *ids.responses]
        length = np.array([len(segment) for segment in segments])
        start = np.concatenate([np.zeros(trees, np.int64), length[ids.tree]])[order]
        tree, length, answer = tree[order], length[order], order >= trees
        row = np.zeros_like(tree) if self.pack else tree
        first = np.searchsorted(row, row)  # the row's first segment, a prompt
        answers, end = np.cumsum(answer), np.cumsum(length)
        branch = (answers - answers[first]) * answer
        before = (end - length)[first]  # tokens in earlier rows
        width, most = int((end - before).max()), int(branch.max()) + (not present.all())
        last_index = np.full((row[-1] + 1, most), PADDING)
        last_index[row[answer], branch[answer] - 1] = (end - before)[answer] - 1
        facts = np.stack([start - (end - length), ids.token[order] - (end - length),
                          tree if self.pack else np.zeros_like(tree), branch,
                          row * width - before])
        position, token, *facts, place = np.repeat(facts, length, axis=1)
        index = np.arange(len(place))
        batch = np.empty((5, row[-1] + 1, width), np.int64)
        for values, found, filler in zip(
                batch, (np.concatenate([segments[i] for i in order]), index + position, *facts,
                        index + token),
                (self.pad_token_id, 0, PADDING, PADDING, PADDING), strict=True):
            values.fill(filler)
            values.ravel()[index + place] = found
        *batch, token = map(torch.from_numpy, batch)
        inputs = dict(zip(MODEL_INPUTS, (*batch, torch.from_numpy(last_index)), strict=True))
        if hidden_of is not None:
            inputs["hidden"] = hidden_of(token)
        inputs["host"] = HostLayout(
            _segments(row, tree if self.pack else np.zeros_like(tree), branch,
                      end - length - before, end - before, width), last_index,
            int((start + length).max()))
        rewards = np.full(len(present), most - 1)
        rewards[present] = (row * most + branch - 1)[answer]
        return inputs, rewards


def _segments(row: np.ndarray, tree: np.ndarray, branch: np.ndarray, start: np.ndarray,
              end: np.ndarray, width: int) -> list[list[Segment]]:
    """The segments of each row in order, and its padding; (S,) each."""
    rows: list[list[Segment]] = [[] for _ in range(int(row[-1]) + 1)]
    for number, *facts in zip(row.tolist(), *(fact.tolist() for fact in (
            tree, branch, start, end)), strict=True):
        rows[number].append(Segment(*facts))
    for own in rows:
        if own[-1].end < width:
            own.append(Segment(PADDING, PADDING, own[-1].end, width))
    return rows


def _present(ids: TreeIds) -> tuple[TreeIds, np.ndarray]:
    """The trees without absent responses, and which responses are there, (R,) bool."""
    present = np.fromiter(map(len, ids.responses), np.int64, len(ids.responses)) > 0
    if present.all():
        return ids, present
    kept = np.flatnonzero(present)
    token = np.concatenate([np.arange(len(ids.prompts)), len(ids.prompts) + kept])
    return TreeIds(ids.prompts, [ids.responses[i] for i in kept], ids.tree[kept],
                   ids.token[token]), present
