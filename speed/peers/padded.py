"""Padded batches of two rows a pair: TRL's RewardTrainer, and a plain transformers.Trainer."""

import functools
from contextlib import AbstractContextManager

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from speed.mixes import Row, grouped_rounds, longer_side, rounds_of
from speed.peers.peer import Peer, Task, bradley_terry, with_arguments
from speed.shapes import load_classifier
from src.common.errors import UserError

TRL = "TRL RewardTrainer"


def trl_in_bf16(task: Task) -> Peer:
    """TRL with random batches and `bf16=True`: autocast over fp32 weights, as ours."""
    return Peer(f"{TRL}, bf16", _random(task), functools.partial(_trl, task, "random", bf16=True))


def trl_peers(task: Task) -> list[Peer]:
    """TRL with random batches, as it comes, and with batches of similar length.

    TRL's own group_by_length sorts within a quarter of the data set, or 50 batches where that is
    less, so that of the pairs of one round it would make random batches. The second peer is
    given batches instead that were sorted over the pairs of all rounds.
    """
    grouped = [sides_of(rows) for rows in grouped_rounds(task.rows, task.rounds, task.batch_pairs,
                                                         longer_side)]
    return [Peer(TRL, _random(task), functools.partial(_trl, task, "random")),
            Peer(f"{TRL}, length-grouped", grouped, functools.partial(_trl, task, "sequential"),
                 same_pairs=False)]


def padded_peer(task: Task) -> Peer:
    """A plain transformers.Trainer with a Bradley-Terry loss over padded batches."""
    return Peer("transformers.Trainer, padded", _random(task), functools.partial(_padded, task))


def _random(task: Task) -> list[list[dict]]:
    return [sides_of(rows) for rows in rounds_of(task.rows, task.rounds)]


def sides_of(rows: list[Row]) -> list[dict[str, list[int]]]:
    """chosen_ids and rejected_ids of every pair, each with its prompt before it."""
    return [{name: row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")}
            for row in rows]


def require_trl() -> None:
    """UserError where TRL is not installed."""
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise UserError(f"trl is not installed ({error}): run `pip install -r "
                        "requirements.txt`, or leave it out with --no_trl") from error


def _trl(task: Task, sampling: str, examples: list[dict],
         bf16: bool = False) -> AbstractContextManager[Trainer]:
    from trl import RewardConfig, RewardTrainer

    return with_arguments(task, RewardConfig, lambda args: RewardTrainer(
        model=load_classifier(task.model), args=args, train_dataset=Dataset.from_list(examples),
        processing_class=_tokenizer(task.pad)), bf16=bf16, max_length=None,
        train_sampling_strategy=sampling)


def _padded(task: Task, examples: list[dict]) -> AbstractContextManager[Trainer]:
    return with_arguments(task, TrainingArguments, lambda args: _PaddedTrainer(
        model=load_classifier(task.model), args=args, train_dataset=Dataset.from_list(examples),
        data_collator=functools.partial(pad_pairs, pad=task.pad)))


class _PaddedTrainer(Trainer):
    """The library's own classifier, chosen sides first."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = bradley_terry(*outputs.logits.squeeze(-1).chunk(2))
        return (loss, outputs) if return_outputs else loss


def pad_pairs(examples: list[dict], pad: int) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask (2 B, T): the chosen sides, then the rejected ones, padded on
    the right to the longest of both."""
    sides = [torch.tensor(example[name]) for name in ("chosen_ids", "rejected_ids")
             for example in examples]
    masks = [torch.ones_like(side) for side in sides]
    stack = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return {"input_ids": stack(sides, padding_value=pad), "attention_mask": stack(masks)}


def _tokenizer(pad: int) -> PreTrainedTokenizerFast:
    """What TRL asks for the padding id; it never sees a text here."""
    words = Tokenizer(WordLevel({"<unk>": 0, "<pad>": pad}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>",
                                   eos_token="<pad>")
