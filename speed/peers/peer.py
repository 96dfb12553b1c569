"""What all peers share: the task, the arguments of a transformers.Trainer, and how it is timed.

All that is not training is switched off: gradient checkpointing, logging, saving, telemetry. Same
model, optimiser, pairs and batch as ours.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from speed.measure import Clock, Round, System, counted
from speed.mixes import Row

LEARNING_RATE = 1e-5


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


@dataclass(frozen=True)
class Peer:
    """A system whose every round is an epoch of a transformers.Trainer."""

    name: str
    parts: list[list[dict]]
    """The examples of every round."""
    trainer: Callable[[list[dict]], AbstractContextManager[Trainer]]
    """Over some examples; good for one epoch."""
    same_pairs: bool = True
    """See System."""

    def system(self) -> System:
        return System(self.name, self._round, self.same_pairs)

    def _round(self, number: int) -> Round:
        with self.trainer(self.parts[number]) as trainer:
            return timed_training(trainer)


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


@contextmanager
def with_arguments(task: Task, arguments: type[TrainingArguments],
                   build: Callable[[TrainingArguments], Trainer], bf16: bool = False,
                   **options) -> Iterator[Trainer]:
    """What `build` makes from the arguments that all peers share, while their folder is there."""
    on_gpu = torch.cuda.is_available()
    shared = {"per_device_train_batch_size": task.batch_pairs, "num_train_epochs": 1,
              "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0,
              "bf16": on_gpu or bf16, "use_cpu": not on_gpu, "gradient_checkpointing": False,
              "logging_strategy": "no", "save_strategy": "no", "report_to": "none",
              "disable_tqdm": True, "seed": task.seed, "remove_unused_columns": False,
              "dataloader_pin_memory": on_gpu}
    with tempfile.TemporaryDirectory() as folder:
        yield build(arguments(output_dir=folder, **{**shared, **options}))


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The mean over pairs, (P,) rewards each."""
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


class PairLossTrainer(Trainer):
    """The least that trains on pairs: a model that gives (R,) rewards of a batch's responses, of
    which `chosen` and `rejected`, (P,) each, say where the pairs' are."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = inputs.pop("chosen"), inputs.pop("rejected")
        rewards = model(**inputs)
        loss = bradley_terry(rewards[chosen], rewards[rejected])
        return (loss, {"rewards": rewards}) if return_outputs else loss
