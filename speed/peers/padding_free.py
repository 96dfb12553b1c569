"""Padding-free rows of the transformers library: sides one after the other, none padded.

DataCollatorWithFlattening lays them there, positions restart at each, and the model's own masking
finds the boundaries in the positions. What reads boundaries without a mask is FlashAttention, on
GPUs; sdpa, here, is given a mask of the whole row, and computes as if all saw all.
"""

import functools
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import (
    DataCollatorWithFlattening,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from speed.mixes import rounds_of
from speed.peers.padded import sides_of
from speed.peers.peer import PairLossTrainer, Peer, Task, with_arguments
from speed.shapes import load_classifier


def padding_free_peer(task: Task) -> Peer:
    """A row holds one pair, the others of the step follow by gradient accumulation.

    That is the fastest on a CPU, where a row costs its length squared: 2, 4, 8 and 16 pairs took
    1.3, 1.9, 3.2 and 6.1 times the processor time (short_prompt, 4 layers; multi_turn: 1.3 to 7.5).
    With one pair a row there is nothing that grouping by length could save.
    """
    return Peer("transformers, padding-free", [sides_of(rows) for rows in
                                               rounds_of(task.rows, task.rounds)],
                functools.partial(_trainer, task))


def _trainer(task: Task, examples: list[dict]) -> AbstractContextManager[Trainer]:
    return with_arguments(
        task, TrainingArguments, lambda args: PairLossTrainer(
            model=LastTokenRewards(load_classifier(task.model)), args=args, train_dataset=examples,
            data_collator=flatten_pairs),
        per_device_train_batch_size=1, gradient_accumulation_steps=task.batch_pairs)


def flatten_pairs(examples: list[dict]) -> dict[str, Tensor]:
    """input_ids and position_ids (1, N) of the chosen sides, then the rejected ones; last (2 P,),
    where each ends; chosen, rejected (P,), which of them are the pairs' sides."""
    sides = [{"input_ids": example[name]} for name in ("chosen_ids", "rejected_ids")
             for example in examples]
    batch = DataCollatorWithFlattening()(sides)
    last = torch.tensor([len(side["input_ids"]) for side in sides]).cumsum(0) - 1
    chosen, rejected = torch.arange(len(sides)).chunk(2)
    return {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "last": last,
            "chosen": chosen, "rejected": rejected}


class LastTokenRewards(nn.Module):
    """A classifier's reward of every side of a row; its own forward knows one side a row."""

    def __init__(self, classifier: PreTrainedModel):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, position_ids: Tensor, last: Tensor) -> Tensor:
        """(1, N), (1, N), (R,) -> (R,)."""
        states = self.classifier.model(input_ids=input_ids, position_ids=position_ids,
                                       use_cache=False).last_hidden_state
        return self.classifier.score(states[0, last]).squeeze(-1)
