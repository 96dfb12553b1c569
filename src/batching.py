"""Pairs -> batches of rows that a reward model reads. Blind to where labels come from.

A pair is one row `prompt | left | right`, in which both answers see the prompt but not each other
(see model/tree_attention.py), or, with `share_prompt` off, two rows `prompt | answer`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from data.tokenised import TokenisedSplit
from torch.utils.data import Dataset

from data.records import left_is_chosen

PADDING = -1
"""Branch of a padding token; 0 is the prompt, 1.. the answers."""


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
                "label": self.labels[index],
            }
            for index, row in zip(indices, self.split.rows(indices), strict=True)
        ]


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
    """Rows of (prompt ids, answers' ids) -> input_ids, position_ids, branch (B, T), last_index (B, K).

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
