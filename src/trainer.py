"""The one trainer: batch -> rewards -> loss. Blind to role: teacher, ceiling and student differ
in the labels and the method that they are handed, in nothing here.

accelerate, DeepSpeed, resuming, schedules and logging are transformers.Trainer's.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from configs.errors import UserError
from configs.schema import MethodConfig, RunConfig, RuntimeConfig
from data.records import content_hash
from src import distributed
from src.batching import NO_PAIR, MicroBatches, PairCollator, PairDataset
from src.losses import centering, pair_loss, soft_bradley_terry
from src.runs import RESUME


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite: training stopped before the step was taken."""


class PairTrainer(Trainer):
    """Trains a reward model on the margins of pairs.

    The loss of an optimiser step is the mean over its pairs, however they are spread over micro
    batches and ranks: a sum over the pairs of a micro batch, divided by the pairs of the step.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *, method: MethodConfig, center_coef: float, **kwargs):
        super().__init__(**kwargs)
        self.method = method
        self.center_coef = center_coef
        self.model_accepts_loss_kwargs = True  # count the step's labels: our normaliser
        self._loss_shifts_labels = False
        self.first_batch = ""
        """Hash of the pairs in this rank's first micro batch: ranks must not see the same."""

    def get_train_dataloader(self) -> DataLoader:
        batches = self._micro_batches(self.train_dataset, self.args.per_device_train_batch_size,
                                      self.args.gradient_accumulation_steps, self.args.data_seed)
        loader = self._loader(self.train_dataset, batches)
        loader.set_epoch = batches.set_epoch  # where the Trainer looks, unless it resumes
        return loader

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        batches = self._micro_batches(self.eval_dataset, self.args.per_device_eval_batch_size, 1,
                                      None)
        return self._loader(self.eval_dataset, batches)

    def _micro_batches(self, dataset: PairDataset, micro: int, accumulation: int,
                       seed: int | None) -> MicroBatches:
        world = self.accelerator.num_processes
        lengths = dataset.split.lengths().sum(axis=1)
        return MicroBatches(lengths, micro * accumulation * world, micro,
                            self.accelerator.process_index, world, seed)

    def _loader(self, dataset: PairDataset, batches: MicroBatches) -> DataLoader:
        return DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator,
                          pin_memory=self.args.dataloader_pin_memory)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum of this micro batch's pair losses over the pairs of the whole step.

        Ranks' gradients are averaged, so the sum is multiplied by their number.
        """
        losses, margin = self._pair_losses(model, inputs)
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, margin) if return_outputs else loss

    def evaluation_loop(self, dataloader, description, prediction_loss_only=None, ignore_keys=None,
                        metric_key_prefix="eval") -> EvalLoopOutput:
        """Mean loss of the evaluation pairs, each counted once."""
        self.model_wrapped.eval()
        total = torch.zeros((), device=self.args.device)
        for inputs in dataloader:
            with torch.no_grad(), self.compute_loss_context_manager():
                losses, _ = self._pair_losses(self.model_wrapped, self._prepare_inputs(inputs))
                total += losses.sum()
        mean = self.accelerator.reduce(total).item() / len(self.eval_dataset)
        return EvalLoopOutput(predictions=None, label_ids=None, num_samples=len(self.eval_dataset),
                              metrics={f"{metric_key_prefix}_loss": mean})

    def _pair_losses(self, model, inputs) -> tuple[Tensor, Tensor]:
        """Loss (0 for a NO_PAIR) and margin of every pair of a batch, each (B,)."""
        labels, rows = inputs.pop("labels"), inputs.pop("row")
        rewards = model(**inputs).view(-1, 2)  # (B, 2) left, right
        margin = rewards[:, 0] - rewards[:, 1]
        if model.training:
            progress = self.state.global_step / max(1, self.state.max_steps)
            losses = pair_loss(self.method, margin, labels, progress)
            losses = losses + self.center_coef * centering(rewards)
            dataset = self.train_dataset
            self.first_batch = self.first_batch or content_hash(rows.tolist(), 12)
        else:
            losses = soft_bradley_terry(margin, labels)
            dataset = self.eval_dataset
        losses = losses.masked_fill(rows == NO_PAIR, 0.0)
        self._stop_unless_finite(losses, rows, dataset)
        return losses, margin

    def _stop_unless_finite(self, losses: Tensor, rows: Tensor, dataset: PairDataset) -> None:
        """Stop every rank before the optimiser sees a NaN: the weights are still good."""
        if not distributed.any_true(~torch.isfinite(losses).all()):
            return
        ids = dataset.split.pair_ids[rows.cpu().numpy()]
        bad = [str(pair) for pair in ids[~torch.isfinite(losses).detach().cpu().numpy()]]
        named = ", ".join(pair for pairs in distributed.gather(bad) for pair in pairs)
        raise NonFiniteLossError(
            f"loss is not finite at step {self.state.global_step + 1}, pairs {named}: the step was "
            "not taken, earlier checkpoints are kept; lower learning_rate or look at these pairs")

    def release(self) -> None:
        """Give back the memory of a run that has ended: a launch trains many.

        DeepSpeed's engines and their shares of the weights stay alive through the hooks that they
        leave on the model.
        """
        if self.is_deepspeed_enabled and self.model_wrapped is not self.model:
            self.model_wrapped.destroy()
            for module in self.model.modules():
                module._forward_pre_hooks.clear()
                module._forward_hooks.clear()
            for parameter in self.model.parameters():
                vars(parameter).clear()
        self.accelerator.free_memory()


def optimiser_steps(run: RunConfig, pairs: int) -> int:
    """Optimiser steps of a run over `pairs` training pairs."""
    return max(1, int(np.ceil(np.ceil(pairs / run.train.batch_pairs) * run.train.epochs)))


def micro_batch(batch_pairs: int, runtime: RuntimeConfig, world: int) -> tuple[int, int]:
    """(pairs per forward on one device, accumulation steps) that make up a batch exactly.

    The largest divisor of each device's share that micro_batch_pairs allows.
    """
    if batch_pairs % world:
        raise UserError(f"batch_pairs {batch_pairs} cannot be shared by {world} processes: choose "
                        "a multiple of their number")
    share = batch_pairs // world
    micro = next(m for m in range(min(share, runtime.micro_batch_pairs), 0, -1) if share % m == 0)
    return micro, share // micro


def training_arguments(run: RunConfig, runtime: RuntimeConfig, folder: Path,
                       pairs: int) -> TrainingArguments:
    """transformers' arguments for a run; those of our configs and the launcher's hardware."""
    on_gpu = torch.cuda.is_available()
    deepspeed = distributed.uses_deepspeed()
    micro, accumulation = micro_batch(run.train.batch_pairs, runtime, distributed.world_size())
    stopping = run.train.early_stopping_evals > 0
    steps = optimiser_steps(run, pairs)
    save_steps = max(1, round(steps * run.train.eval_frac)) if stopping else runtime.save_steps
    return TrainingArguments(
        output_dir=str(folder / RESUME),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=runtime.score_batch_pairs,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=run.train.epochs,
        learning_rate=run.train.learning_rate,
        lr_scheduler_type=run.train.schedule,
        warmup_steps=int(np.ceil(run.train.lr_warmup_frac * steps)),
        weight_decay=run.train.weight_decay,
        max_grad_norm=run.train.max_grad_norm,
        seed=run.seed,
        data_seed=run.seed,
        bf16=on_gpu if run.train.precision == "auto" else run.train.precision == "bf16",
        gradient_checkpointing=runtime.gradient_checkpointing,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        eval_strategy="steps" if stopping else "no",
        eval_steps=save_steps if stopping else None,
        load_best_model_at_end=stopping,
        metric_for_best_model="loss" if stopping else None,
        greater_is_better=False if stopping else None,
        logging_strategy="steps",
        logging_steps=runtime.logging_steps,
        logging_nan_inf_filter=False,  # we stop at the first one instead
        report_to=runtime.report_to,
        run_name=f"{run.experiment}/{run.folder_name}",
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        label_names=["labels"],
        disable_tqdm=steps < 200 or not distributed.is_main(),
        use_cpu=not on_gpu and not deepspeed,
        ddp_backend="gloo" if not on_gpu and distributed.world_size() > 1 else None,
        ddp_find_unused_parameters=False,
        ddp_timeout=6 * 3600,
    )


def build_trainer(run: RunConfig, model_init: Callable[[], PreTrainedModel],
                  args: TrainingArguments,
                  train_data: PairDataset, val_data: PairDataset | None, pad_token_id: int,
                  share_prompt: bool) -> PairTrainer:
    """A trainer over a model that `model_init` builds now, after `args`: ZeRO-3 needs that order"""
    callbacks = []
    if run.train.early_stopping_evals:
        callbacks.append(EarlyStoppingCallback(run.train.early_stopping_evals))
    trainer = PairTrainer(
        model=model_init(),
        args=args,
        train_dataset=train_data,
        eval_dataset=val_data,
        data_collator=PairCollator(pad_token_id, share_prompt),
        callbacks=callbacks,
        method=run.method,
        center_coef=run.train.center_coef,
    )
    trainer.remove_callback(PrinterCallback)  # a sweep says one line a run; the log has the rest
    return trainer
