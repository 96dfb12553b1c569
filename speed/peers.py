"""The peers of training: TRL's RewardTrainer, and transformers.Trainer over padded batches.

Both as their users run them, two rows a pair, with all that is not training switched off: gradient
checkpointing, logging, saving, telemetry. Same model, optimiser, pairs and batch as ours.
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from speed.measure import Clock, Round, System, counted
from speed.mixes import Row, grouped_rounds, rounds_of
from speed.shapes import load_classifier
from src.common.errors import UserError

LEARNING_RATE = 1e-5
TRL = "TRL RewardTrainer"


@dataclass(frozen=True)
class Task:
    """What is trained: a model on disk; pairs, in as many equal parts as there are rounds, and how
    many of them an optimiser step takes."""

    model: Path
    rows: list[Row]
    rounds: int
    batch_pairs: int
    pad: int
    seed: int


class StepTimer(TrainerCallback):
    """From the first batch to the end of the last optimiser step; not set-up, not saving."""

    def __init__(self, sizes: list[int]):
        self.sizes = sizes
        self.result: Round | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.clock = Clock()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            self.result = self.clock.read(sum(self.sizes))


def timed_training(trainer: Trainer) -> Round:
    """Train to the end; a trainer is good for one round."""
    trainer.remove_callback(PrinterCallback)
    with counted(trainer.model) as sizes:
        timer = StepTimer(sizes)
        trainer.add_callback(timer)
        trainer.train()
    return timer.result


def trl_in_bf16(task: Task) -> System:
    """TRL with random batches and `bf16=True`: autocast over fp32 weights, as ours."""
    random = [Dataset.from_list(sides_of(rows)) for rows in rounds_of(task.rows, task.rounds)]
    return System(f"{TRL}, bf16", lambda number: _trl(task, random[number], "random", bf16=True))


def trl_systems(task: Task) -> list[System]:
    """TRL with random batches, as it comes, and with batches of similar length.

    TRL's own group_by_length sorts within a quarter of the data set, or 50 batches where that is
    less, so that of the pairs of one round it would make random batches. The second system is
    given batches instead that were sorted over the pairs of all rounds.
    """
    random = [Dataset.from_list(sides_of(rows)) for rows in rounds_of(task.rows, task.rounds)]
    grouped = [Dataset.from_list(sides_of(rows))
               for rows in grouped_rounds(task.rows, task.rounds, task.batch_pairs)]
    return [System(TRL, lambda number: _trl(task, random[number], "random")),
            System(f"{TRL}, length-grouped",
                   lambda number: _trl(task, grouped[number], "sequential"), same_pairs=False)]


def trainer_systems(task: Task) -> list[System]:
    """A plain transformers.Trainer with a Bradley-Terry loss over padded batches."""
    data = [Dataset.from_list(sides_of(rows)) for rows in rounds_of(task.rows, task.rounds)]
    return [System("transformers.Trainer, padded", lambda number: _padded(task, data[number]))]


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


def _trl(task: Task, data: Dataset, sampling: str, bf16: bool = False) -> Round:
    from trl import RewardConfig, RewardTrainer

    return _in_folder(task, RewardConfig, lambda args: RewardTrainer(
        model=load_classifier(task.model), args=args, train_dataset=data,
        processing_class=_tokenizer(task.pad)), bf16=bf16, max_length=None,
        train_sampling_strategy=sampling)


def _padded(task: Task, data: Dataset) -> Round:
    return _in_folder(task, TrainingArguments, lambda args: _PaddedTrainer(
        model=load_classifier(task.model), args=args, train_dataset=data,
        data_collator=functools.partial(pad_pairs, pad=task.pad)))


def _in_folder(task: Task, arguments: type[TrainingArguments],
               build: Callable[[TrainingArguments], Trainer], bf16: bool = False,
               **options) -> Round:
    """One round of a trainer that `build` makes from the arguments that all peers share."""
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        return timed_training(build(arguments(
            output_dir=folder, per_device_train_batch_size=task.batch_pairs, num_train_epochs=1,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", weight_decay=0.0,
            bf16=on_gpu or bf16, use_cpu=not on_gpu, gradient_checkpointing=False,
            logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
            seed=task.seed, remove_unused_columns=False, dataloader_pin_memory=on_gpu, **options)))


class _PaddedTrainer(Trainer):
    """The least that trains a reward model on pairs."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
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
