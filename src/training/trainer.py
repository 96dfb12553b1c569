"""The one trainer: batch -> rewards -> loss. Blind to role: teacher, ceiling and student differ
in the labels and the method that they are handed, in nothing here.

accelerate, DeepSpeed, resuming, schedules and logging are transformers.Trainer's.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput, unwrap_peft_model

from configs.run import RunConfig
from configs.schema import MethodConfig, RuntimeConfig, TrainConfig
from model.base.residual import compute_in
from model.layer_graphs import LayerGraphs, is_asked
from model.to_device import to_device
from src.batches.collate import PairDataset, TreeCollator
from src.batches.finite import FiniteLosses
from src.batches.packing import Budget, scoring_budget
from src.batches.steps import SinglePass, StepSampler
from src.batches.whole_steps import Outputs, StepShare, look_ahead
from src.common.hashing import content_hash
from src.common.precision import used
from src.methods.distillation import Distillation
from src.methods.label_treatments import Hints
from src.methods.losses import centering, looks_at_steps, pair_loss, soft_bradley_terry
from src.training.resumable import ResumableTrainer, SaveAndStop


class PairTrainer(ResumableTrainer):
    """Trains a reward model on the margins of pairs.

    For transformers a step is one batch. Here it is this rank's micro batches of the step: the loss
    of the step is the mean over its pairs, each with its weight, however they are spread over micro
    batches and ranks: a sum over the pairs of a micro batch divided by the pairs of the step.
    """

    def __init__(self, *, method: MethodConfig, train: TrainConfig, runtime: RuntimeConfig,
                 distillation: Distillation | None = None, **kwargs):
        super().__init__(**kwargs)
        self.method, self.train_config, self.distillation = method, train, distillation
        self.budgets = [Budget(runtime.micro_batch_tokens, runtime.pack),
                        scoring_budget(runtime, self.args.device.type, runtime.pack)]
        self._losses_to_look_at = FiniteLosses()
        self.layer_graphs: LayerGraphs | None = None
        """Of the layers that are compiled; None where none are."""
        self.first_batch = ""
        """Hash of the pairs in this rank's first step: ranks must not see the same."""

    def get_train_dataloader(self) -> DataLoader:
        steps = StepSampler(
            self.train_dataset.trees, self.train_config.batch_pairs, self.budgets[0],
            self.accelerator.process_index, self.accelerator.num_processes, self.args.data_seed,
            self.train_config.shuffle == "prompts", self.train_dataset.course)
        loader = self._loader(self.train_dataset, steps)
        loader.set_epoch = steps.set_epoch  # where the Trainer looks, unless it resumes
        return loader

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        return self._loader(self.eval_dataset, SinglePass(
            self.eval_dataset.trees, self.budgets[1], self.accelerator.process_index,
            self.accelerator.num_processes))

    def _loader(self, dataset: PairDataset, steps: StepSampler) -> DataLoader:
        return DataLoader(dataset, batch_sampler=steps, collate_fn=self.data_collator,
                          pin_memory=self.args.dataloader_pin_memory)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """The schedule of the arguments, which a course may lower after its first steps."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        course = self.train_dataset.course
        if course.later_rate != 1:
            scheduler.lr_lambdas = [
                lambda step, usual=usual: usual(step) * (course.later_rate if
                                                         step >= course.first_steps else 1.0)
                for usual in scheduler.lr_lambdas]
        return scheduler

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """Forward and backward over the micro batches of a step; under DeepSpeed, the step too.

        Ranks' gradients are averaged, so the sum of pair losses is multiplied by their number.
        """
        if not model.training:
            model.train()
        scale = self.accelerator.num_processes / inputs["pairs"]
        kwargs = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
        rows = [micro["row"] for micro in inputs["micro_batches"]]
        seen: list[Tensor] = []
        ahead = self._look_ahead(model, inputs["micro_batches"])
        for micro, (outputs, share) in zip(inputs["micro_batches"], ahead, strict=True):
            last = len(seen) == len(rows) - 1
            with self._gradients_shared(model, last):
                losses = self._losses(outputs or self._outputs(model, micro), share)
                seen.append(losses.detach())
                self.accelerator.backward(losses.sum() * scale, **kwargs)
        self._losses_to_look_at.note(self.state.global_step + 1, seen, rows)
        if not self.first_batch:
            self.first_batch = content_hash(torch.cat(rows).tolist(), 12)
        return torch.cat(seen).sum() * scale

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        control = self.control
        if (control.should_log or control.should_save or control.should_evaluate
                or control.should_training_stop):
            self._losses_to_look_at.require(self.train_dataset.split.pair_ids)
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _gradients_shared(self, model, last: bool) -> AbstractContextManager:
        """Where ranks exchange gradients in the step's last backward only, and step after it."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        if last or self.is_deepspeed_enabled:  # which looks at what was just set
            return nullcontext()
        return self.accelerator.no_sync(model)

    def evaluation_loop(self, dataloader, description, prediction_loss_only=None, ignore_keys=None,
                        metric_key_prefix="eval") -> EvalLoopOutput:
        """Mean loss of the evaluation pairs, each counted once."""
        self.model_wrapped.eval()
        seen, rows = [], []
        for inputs in dataloader:
            for micro in inputs["micro_batches"]:
                with torch.no_grad():
                    outputs = self._outputs(self.model_wrapped, micro)
                seen.append(soft_bradley_terry(outputs.margin, outputs.labels))
                rows.append(micro["row"])
        losses = FiniteLosses()
        losses.note(self.state.global_step, seen, rows)
        losses.require(self.eval_dataset.split.pair_ids)
        mean = self.accelerator.reduce(torch.cat(seen).sum()).item() / len(self.eval_dataset)
        return EvalLoopOutput(predictions=None, label_ids=None, num_samples=len(self.eval_dataset),
                              metrics={f"{metric_key_prefix}_loss": mean})

    def _look_ahead(self, model,
                    micro_batches: list) -> list[tuple[Outputs | None, StepShare | None]]:
        """Of each micro batch, what a loss over whole steps says of it, and its outputs where they
        are known; nothing for other losses."""
        if not looks_at_steps(self.method):
            return [(None, None)] * len(micro_batches)
        return look_ahead(lambda micro: self._outputs(model, micro), micro_batches,
                          self.train_dataset, partial(pair_loss, self.method,
                                                      progress=self._progress))

    def _outputs(self, model, micro: dict[str, Tensor]) -> Outputs:
        """What a forward over a micro batch gives of its pairs."""
        row = micro["row"]
        micro = {name: value.to(self.args.device, non_blocking=True)
                 for name, value in micro.items() if name != "row"}
        left, right, labels, weights = (micro.pop(name) for name in ("left", "right", "labels",
                                                                     "weights"))
        distillation = self.distillation if model.training else None
        more = {}
        if model.training and (looks_at_steps(self.method) or distillation):
            rewards, states = model(**micro, with_states=True)
            states = states.flatten(0, 1)
            states = torch.stack([states[left], states[right]], dim=1)  # (P, 2, d)
        else:
            rewards, states = model(**micro), None
        rewards = rewards.flatten()
        rewards = torch.stack([rewards[left], rewards[right]], dim=-1)  # (P, 2)
        if distillation:
            hints = [to_device(each, self.args.device)
                     for each in self.train_dataset.hints_of(row.numpy())]
            more = distillation.compared(left, right, hints)
        return Outputs(rewards, states, labels, weights, more)

    def _losses(self, outputs: Outputs, share: StepShare | None) -> Tensor:
        """(P,): the method's loss of every pair of a micro batch."""
        if share is not None:
            losses = share.of(outputs)
        else:
            losses = outputs.weights * pair_loss(self.method, outputs.margin, outputs.labels,
                                                 self._progress, **outputs.more)
        if self.train_config.center_coef:
            losses = losses + self.train_config.center_coef * centering(outputs.rewards)
        return losses

    @property
    def _progress(self) -> float:
        return self.state.global_step / max(1, self.state.max_steps)

    def gradient_types(self) -> dict[str, str]:
        """The types in which gradients are summed over micro batches, and over ranks."""
        accumulated = communicated = next(self.model.parameters()).dtype
        if self.is_deepspeed_enabled:
            accumulated = self.model_wrapped.get_data_types()[1]
            communicated = self.model_wrapped.communication_data_type
        names = {"accumulated": accumulated, "communicated": communicated}
        return {name: str(dtype).removeprefix("torch.") for name, dtype in names.items()}

    def release(self) -> None:
        """Give back the memory of a run that has ended, well or not: a launch trains many.

        DeepSpeed's engines and their shares of the weights stay alive through the hooks that they
        leave on the model; a model, its optimiser and the last gradients through everything that
        the library hands them to.
        """
        if self.is_deepspeed_enabled and self.model_wrapped is not self.model:
            self.model_wrapped.destroy()
            for module in self.model.modules():
                module._forward_pre_hooks.clear()
                module._forward_hooks.clear()
            for parameter in self.model.parameters():
                vars(parameter).clear()
        for holder in (self, self.callback_handler):
            holder.model = holder.optimizer = holder.lr_scheduler = None
        self.model_wrapped = self.deepspeed = None
        self.accelerator.free_memory()  # collects, and empties the GPU's cache


def build_trainer(run: RunConfig, runtime: RuntimeConfig,
                  model_init: Callable[[], PreTrainedModel], args: TrainingArguments,
                  train_data: PairDataset, val_data: PairDataset | None,
                  pad_token_id: int, hints: Hints | None = None) -> PairTrainer:
    """A trainer over a model that `model_init` builds now, after `args`: ZeRO-3 needs that order.

    Args:
        hints: of `train_data`, that the model's hidden states are held to; None for none.
    """
    callbacks, model = [], model_init()
    compute_in(unwrap_peft_model(model), used(run.train.precision))
    layer_graphs = (LayerGraphs(model, runtime.last_layer_shortcut)
                    if is_asked(runtime, args.device) else None)
    if layer_graphs:
        callbacks.append(layer_graphs)
    if run.train.early_stopping_evals:
        callbacks.append(EarlyStoppingCallback(run.train.early_stopping_evals))
    callbacks.append(SaveAndStop(run.display_name))
    trainer = PairTrainer(
        model=model,
        distillation=hints and Distillation(model, hints.layers,
                                            [states.shape[-1] for states in hints.states]),
        args=args,
        train_dataset=train_data,
        eval_dataset=val_data,
        data_collator=TreeCollator(pad_token_id, runtime.pack),
        callbacks=callbacks,
        method=run.method,
        train=run.train,
        runtime=runtime,
    )
    trainer.layer_graphs = layer_graphs
    trainer.remove_callback(PrinterCallback)  # a sweep says one line a run; the log has the rest
    return trainer
