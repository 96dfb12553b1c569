"""Pairs of a micro batch -> the tensors that a reward model reads. Blind to where labels come from.

A micro batch holds trees: a prompt, its distinct responses, and the pairs among them. It is one row
of all its trees without padding, or, with `pack` off, a padded row for each tree.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.records import left_is_chosen
from data.tokens.tokenised import TokenisedSplit
from model.attention.tree import HostLayout, Segment
from src.batches.packing import responses_of
from src.batches.steps import ALL_PAIRS, Course, Step
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
    weights: np.ndarray
    """(P,) float32: of each pair's loss."""
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
        weights: of each pair's loss, (n,); None for 1.
        course: which of the pairs are trained on, and when.
        votes: as labels, of each of k teachers, (k, n); None where nothing asks for them.
        hints: hidden states of chosen and rejected, (n, 2, d_k) each, that the model's own are held
            to; none where nothing asks for them.
    """

    def __init__(self, split: TokenisedSplit, labels: np.ndarray, share_prompt: bool = True,
                 hidden_of: HiddenOf | None = None, weights: np.ndarray | None = None,
                 course: Course = ALL_PAIRS, votes: np.ndarray | None = None,
                 hints: Sequence[np.ndarray] = ()):
        if len(labels) != len(split):
            raise ValueError(f"{len(labels)} labels for {len(split)} pairs: one each is needed")
        self.split, self.hidden_of, self.course = split, hidden_of, course
        self.weights = np.ones(len(split), np.float32) if weights is None else weights.astype(
            np.float32)
        self.trees: Trees = trees_of(split, share_prompt)
        self.left_is_chosen = np.array([left_is_chosen(pair) for pair in split.pair_ids], bool)
        self.labels = self._of_left(labels)
        self.votes = None if votes is None else self._of_left(votes).T
        """(n, k) float32: each teacher's P(left preferred to right)."""
        self._hints = hints

    def _of_left(self, labels: np.ndarray) -> np.ndarray:
        """P(chosen preferred) -> P(left preferred)."""
        return np.where(self.left_is_chosen, labels, 1 - labels).astype(np.float32)

    def hints_of(self, pairs: np.ndarray) -> list[np.ndarray]:
        """(P, 2, d_k): the states of left and right of some pairs."""
        left = self.left_is_chosen[pairs][:, None, None]
        return [np.where(left, states[pairs], states[pairs][:, ::-1])
                for states in self._hints]

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
                        np.where(left, rejected, chosen), self.labels[pairs],
                        self.weights[pairs], pairs, self.hidden_of)


NONE = np.zeros(0, np.int64)
FILLER = Examples(TreeIds([np.zeros(1, np.int32)], [np.zeros(1, np.int32)], np.zeros(1, np.int64),
                          np.zeros(2, np.int64)),
                  NONE, NONE, *[NONE.astype(np.float32)] * 2, NONE, None)
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
        pair are; labels, weights (P,) float32; row (P,) int64."""
        batch, place = self.lay_out(examples.ids, examples.hidden_of)
        rest = {"left": place[examples.left], "right": place[examples.right],
                "labels": examples.labels, "weights": examples.weights, "row": examples.row}
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
        placed = place_segments(ids, self.pack)
        rows, width = int(placed.row[-1]) + 1, int(placed.end.max())
        answers = placed.row[placed.answer], placed.branch[placed.answer] - 1
        # One place more than there are responses, where a row has none: what is absent reads it.
        most = int(placed.branch.max()) + (not present.all())
        last_index = np.full((rows, most), PADDING)  # (B, R)
        last_index[answers] = placed.end[placed.answer] - 1
        reward = np.full(len(present), most - 1)  # (responses,)
        reward[present] = answers[0] * most + answers[1]

        tensors, token = _token_tensors(ids, placed, (rows, width), self.pad_token_id)
        inputs = dict(zip(MODEL_INPUTS, (*tensors, torch.from_numpy(last_index)), strict=True))
        if hidden_of is not None:
            inputs["hidden"] = hidden_of(token)  # (B, T, d)
        longest = int((placed.position + placed.end - placed.begin).max())
        inputs["host"] = HostLayout(_segments(placed, width), last_index, longest)
        return inputs, reward


class Placed(NamedTuple):
    """Where each segment, a prompt or a response, lies in the rows of its micro batch; (S,) each,
    row by row."""

    source: np.ndarray
    """Which one it is, of the prompts and then the responses."""
    answer: np.ndarray
    """bool: a response, not a prompt."""
    row: np.ndarray
    tree: np.ndarray
    """Within its row."""
    branch: np.ndarray
    """0 for a prompt, from 1 on for the responses of a row."""
    begin: np.ndarray
    """Its first token's place in its row."""
    end: np.ndarray
    """Behind its last token."""
    position: np.ndarray
    """Its first token's position in its tree: what the model takes for its place in the text."""
    token: np.ndarray
    """Its first token's number in the split."""


def place_segments(ids: TreeIds, pack: bool) -> Placed:
    """Every prompt, then its responses, one after the other: in one row, or a row for each tree."""
    trees = len(ids.prompts)
    lengths = np.array([len(segment) for segment in (*ids.prompts, *ids.responses)])  # (S,)
    owners = np.concatenate([np.arange(trees), ids.tree])
    positions = np.concatenate([np.zeros(trees, np.int64), lengths[ids.tree]])
    source = np.argsort(owners, kind="stable")
    owner, length, answer = owners[source], lengths[source], source >= trees
    nothing = np.zeros_like(owner)
    row, tree = (nothing, owner) if pack else (owner, nothing)

    first = np.searchsorted(row, row)  # the first segment of each one's row, a prompt
    answers, end = np.cumsum(answer), np.cumsum(length)
    branch = (answers - answers[first]) * answer
    before = (end - length)[first]  # tokens in earlier rows
    return Placed(source, answer, row, tree, branch, end - length - before, end - before,
                  positions[source], ids.token[source])


def _token_tensors(ids: TreeIds, placed: Placed, shape: tuple[int, int],
                   pad_token_id: int) -> tuple[list[Tensor], Tensor]:
    """input_ids, position_ids, tree and branch of every token, (B, T) each; and the tokens'
    numbers in their split, -1 for padding."""
    segments, length = (*ids.prompts, *ids.responses), placed.end - placed.begin
    facts = np.stack([placed.row * shape[1] + placed.begin, placed.position, placed.tree,
                      placed.branch, placed.token])  # (5, S)
    place, position, tree, branch, token = np.repeat(facts, length, axis=1)  # (N,) each
    within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
    found = ((np.concatenate([segments[i] for i in placed.source]), pad_token_id),
             (position + within, 0), (tree, PADDING), (branch, PADDING), (token + within, PADDING))
    laid = np.empty((len(found), *shape), np.int64)
    for out, (values, filler) in zip(laid, found, strict=True):
        out.fill(filler)
        out.ravel()[place + within] = values
    *tensors, numbers = map(torch.from_numpy, laid)
    return tensors, numbers


def _segments(placed: Placed, width: int) -> list[list[Segment]]:
    """The segments of each row in order, and its padding."""
    rows: list[list[Segment]] = [[] for _ in range(int(placed.row[-1]) + 1)]
    facts = (placed.row, placed.tree, placed.branch, placed.begin, placed.end)
    for row, *segment in zip(*(fact.tolist() for fact in facts), strict=True):
        rows[row].append(Segment(*segment))
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
