"""Pairs -> batches of rows that a reward model reads. Blind to where labels come from.

A pair is one row `prompt | left | right`, in which both answers see the prompt but not each other
(see model/tree_attention.py), or, with `share_prompt` off, two rows `prompt | answer`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from data.records import left_is_chosen
from data.tokenised import TokenisedSplit

PADDING = -1
"""Branch of a padding token; 0 is the prompt, 1.. the answers."""
NO_PAIR = -1
"""Index of a pair that only fills a rank's batch, where there is one pair too few for all."""
NO_LABEL = -100.0
"""Its label, which transformers does not count."""
EPOCH_STRIDE = 1_000_003
"""Epochs that a seed has to itself before it meets the next seed's shuffles."""


class PairDataset(Dataset):
    """Pairs with sides picked by hash: `row`, `prompt_ids`, `left_ids`, `right_ids`, `label`.

    Args:
        split: the tokenised pairs.
        labels: P(chosen preferred to rejected) per pair, (n,): ones for human labels, a teacher's
            probabilities for weak ones. This is the only way a label gets in: the pairs' own order
            is dropped here, and nothing downstream can see it.
    """

    def __init__(self, split: TokenisedSplit, labels: np.ndarray):
        if len(labels) != len(split):
            raise ValueError(f"{len(labels)} labels for {len(split)} pairs: one each is needed")
        self.split = split
        self.left_is_chosen = np.array([left_is_chosen(pair) for pair in split.pair_ids], bool)
        self.labels = np.where(self.left_is_chosen, labels, 1 - labels).astype(np.float32)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """Rows of one batch in one read (the DataLoader prefers this to single items)."""
        return [
            {
                "row": int(index),
                "prompt_ids": row["prompt_ids"],
                "left_ids": row["chosen_ids" if self.left_is_chosen[index] else "rejected_ids"],
                "right_ids": row["rejected_ids" if self.left_is_chosen[index] else "chosen_ids"],
                "label": NO_LABEL if index == NO_PAIR else self.labels[index],
            }
            for index, row in zip(indices, self.split.rows(indices), strict=True)
        ]


class MicroBatches(Sampler[list[int]]):
    """One rank's micro batches of an epoch, such that every optimiser step takes the same pairs
    whatever the number of ranks and of accumulation steps.

    Seven pairs in steps of four, micro batches of one, two ranks, shuffled to 5 1 6 0 | 3 4 2, the
    pairs' numbers being their lengths:

        rank 0   [6] [1] | [4] [2]
        rank 1   [5] [0] | [3] [NO_PAIR]

    Within a step, whose loss is a mean over its pairs, the order is free: longest first, so that a
    micro batch holds pairs of one length and pads little.
    accelerate's own sharding would fill the last batch with pairs from the epoch's start, each of
    them counted twice.

    Args:
        lengths: (n,), tokens of each pair.
        seed: of the shuffle, with the epoch; None for the given order.
    """

    def __init__(self, lengths: np.ndarray, batch_pairs: int, micro: int, rank: int, world: int,
                 seed: int | None):
        self.lengths, self.pairs = lengths, len(lengths)
        self.batch_pairs, self.micro = batch_pairs, micro
        self.rank, self.world, self.seed = rank, world, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the shuffle of this epoch; the Trainer calls it, also where it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.pairs, self.batch_pairs)
        together = self.micro * self.world
        return full * -(-self.batch_pairs // together) + -(-rest // together)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.pairs))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(EPOCH_STRIDE * self.seed + self.epoch)
            order = torch.randperm(self.pairs, generator=generator).tolist()
        together = self.micro * self.world
        for begin in range(0, self.pairs, self.batch_pairs):
            step = sorted(order[begin : begin + self.batch_pairs], key=lambda i: -self.lengths[i])
            for start in range(0, len(step), together):
                group = step[start : start + together]
                mine = group[self.rank :: self.world]
                yield mine + [NO_PAIR] * (-(-len(group) // self.world) - len(mine))


class PairCollator:
    """Examples of PairDataset -> one batch of tensors.

    Two pairs, prompts (7 8) and (9), answers (1) | (2 3) and (4) | (5), pad id 0:

        input_ids     7 8 1 2 3      position_ids  0 1 2 2 3      branch  0 0 1 2 2
                      9 4 5 0 0                    0 1 1 0 0              0 1 2 - -
        last_index    2 4            labels        P(left > right)        (- is -1)
                      1 2
    """

    def __init__(self, pad_token_id: int, share_prompt: bool = True):
        self.pad_token_id = pad_token_id
        self.share_prompt = share_prompt

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        pairs = [(e["prompt_ids"], (e["left_ids"], e["right_ids"])) for e in examples]
        if not self.share_prompt:
            pairs = [(prompt, (answer,)) for prompt, answers in pairs for answer in answers]
        batch = collate_rows(pairs, self.pad_token_id)
        batch["labels"] = torch.tensor([e["label"] for e in examples], dtype=torch.float32)
        batch["row"] = torch.tensor([e["row"] for e in examples])
        return batch


def collate_rows(
    rows: list[tuple[Sequence[int], tuple[Sequence[int], ...]]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Rows of (prompt ids, answers' ids) -> input_ids, position_ids, branch (B, T),
    last_index (B, K).

    Right-padded to the longest row. Positions restart after the prompt for every answer. last_index
    is where each answer's last token stands: the reward is read there, by index.
    """
    width = max(len(prompt) + sum(map(len, answers)) for prompt, answers in rows)
    input_ids = np.full((len(rows), width), pad_token_id, np.int64)
    position_ids = np.zeros((len(rows), width), np.int64)
    branch = np.full((len(rows), width), PADDING, np.int64)
    last_index = np.zeros((len(rows), len(rows[0][1])), np.int64)
    for i, (prompt, answers) in enumerate(rows):
        start = end = len(prompt)
        input_ids[i, :start] = prompt
        position_ids[i, :start] = np.arange(start)
        branch[i, :start] = 0
        for k, answer in enumerate(answers):
            begin, end = end, end + len(answer)
            input_ids[i, begin:end] = answer
            position_ids[i, begin:end] = np.arange(start, start + len(answer))
            branch[i, begin:end] = k + 1
            last_index[i, k] = end - 1
    arrays = {"input_ids": input_ids, "position_ids": position_ids, "branch": branch,
              "last_index": last_index}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def scoring_batches(
    split: TokenisedSplit, indices: Sequence[int], batch_pairs: int, collator: PairCollator
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """(indices, batch) over the pairs `indices`, longest first so that a batch is of one length.

    Left is the chosen answer here: scores are stored in ground truth's order. Longest first also
    means that a batch too big for the memory fails at once and not after an hour.
    """
    indices = np.asarray(indices)
    lengths = split.lengths().sum(axis=1)[indices]
    ordered = indices[np.argsort(-lengths, kind="stable")]
    for start in range(0, len(ordered), batch_pairs):
        chunk = ordered[start : start + batch_pairs]
        examples = [
            {"prompt_ids": row["prompt_ids"], "left_ids": row["chosen_ids"],
             "right_ids": row["rejected_ids"], "label": 0.0, "row": int(index)}
            for index, row in zip(chunk, split.rows(chunk), strict=True)
        ]
        yield chunk, collator(examples)
