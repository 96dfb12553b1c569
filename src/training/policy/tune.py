"""One policy's rows -> its weights, by TRL's SFTTrainer or DPOTrainer with arguments of ours.

What TRL 1.16 would do otherwise than a reader expects is set here and nowhere else: bf16 and
gradient checkpointing are on by default, texts are cut at 1,024 tokens, and DPO tokenises texts
itself, which need not give the ids that reward models read, and lets a pair of a short forward
count for more.
"""

import os
import time
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig as PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from src.common import distributed
from src.runs.folders import RESUME
from src.training.arguments import warmup_steps
from src.training.policy.rows import Row
from src.training.train_run import log_lines


class PairsTrainer(DPOTrainer):
    """TRL's trainer on token ids that are there already, and every pair of a step counts alike.

    TRL takes the mean over forwards of the mean over their pairs. Where the last forward of an
    epoch has fewer, each of them would count for more, the more pairs a forward may hold.
    """

    usual_pairs: float | None = None
    """In a forward of this step, on average."""

    def _prepare_dataset(self, dataset: Dataset, *args, **kwargs) -> Dataset:
        return dataset

    def get_batch_samples(self, *args, **kwargs) -> tuple[list, Any]:
        """The forwards of a step."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.usual_pairs = sum(map(_pairs, batches)) / max(1, len(batches))
        return batches, items

    def compute_loss(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], *args,
                     **kwargs) -> torch.Tensor:
        loss, pairs = super().compute_loss(model, inputs, *args, **kwargs), _pairs(inputs)
        return loss if self.usual_pairs in (None, pairs) else loss * (pairs / self.usual_pairs)


def _pairs(inputs: dict[str, torch.Tensor]) -> int:
    """Of a batch, which has the chosen answers above the rejected ones."""
    return len(inputs["input_ids"]) // 2


def tune(run: RunConfig, runtime: RuntimeConfig, rows: list[Row], model: PreTrainedModel,
         tokenizer: PreTrainedTokenizerBase, folder: Path
         ) -> tuple[PreTrainedModel, str, dict[str, Any]]:
    """Train `model` as `run` says: (it, with adapters merged; the log; what was measured)."""
    transformers.set_seed(run.seed)  # peft draws adapters from the global generator
    disable_progress_bars()
    with _quiet_when_short(len(rows)):
        trainer = build_trainer(run, runtime, rows, model, tokenizer, folder)
    trainer.remove_callback(PrinterCallback)  # the log has what it prints
    transformers.set_seed(run.seed)  # the reference's pass drew from it, unless TRL had it cached
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    tuned = trainer.accelerator.unwrap_model(trainer.model)
    if run.train.lora is not None:
        tuned = tuned.merge_and_unload()
    measured = {"steps": trainer.state.global_step, "seconds": round(seconds, 3),
                "hardware": {"device": str(trainer.accelerator.device),
                             "precision": run.train.precision, "torch": torch.__version__}}
    return tuned, log_lines(trainer), measured


def build_trainer(run: RunConfig, runtime: RuntimeConfig, rows: list[Row], model: PreTrainedModel,
                  tokenizer: PreTrainedTokenizerBase, folder: Path) -> Trainer:
    """The library's trainer of the run's step; of a dpo run it knows the reference's
    log-probabilities already."""
    step, lora = run.policy, run.train.lora
    shared = arguments(run, runtime, rows, folder)
    adapters = lora and PeftConfig(
        r=lora.rank, lora_alpha=lora.alpha, task_type="CAUSAL_LM",
        target_modules="all-linear" if lora.targets == "all_linear" else list(lora.targets))
    built: Callable[..., Trainer] = SFTTrainer
    if step.step == "dpo":
        built = PairsTrainer
        args = DPOConfig(beta=step.beta, loss_type=[step.loss],
                         label_smoothing=step.label_smoothing, precompute_ref_log_probs=True,
                         **shared)
    else:
        args = SFTConfig(packing=False, **shared)
    return built(model=model, args=args, train_dataset=Dataset.from_list(rows),
                 processing_class=tokenizer, peft_config=adapters or None)


@contextmanager
def _quiet_when_short(rows: int) -> Iterator[None]:
    """No bar over the reference's log-probabilities where they take moments."""
    with unittest.mock.patch.dict(os.environ, {"TQDM_DISABLE": "1"} if rows < 5_000 else {}):
        yield


def arguments(run: RunConfig, runtime: RuntimeConfig, rows: list[Row],
              folder: Path) -> dict[str, Any]:
    """What both trainers are told."""
    on_gpu, train = distributed.device().type == "cuda", run.train
    steps = max(1, int(np.ceil(len(rows) / train.batch_pairs) * train.epochs))
    micro = micro_batch(rows, train.batch_pairs, runtime.micro_batch_tokens)
    return {
        "output_dir": str(folder / RESUME), "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": train.batch_pairs // micro, "num_train_epochs": train.epochs,
        "learning_rate": train.learning_rate, "lr_scheduler_type": train.schedule,
        "warmup_steps": warmup_steps(train, steps),
        "weight_decay": train.weight_decay, "max_grad_norm": train.max_grad_norm,
        "seed": run.seed, "data_seed": run.seed, "bf16": train.precision == "bf16",
        "gradient_checkpointing": runtime.gradient_checkpointing, "max_length": None,
        "save_strategy": "no", "logging_steps": runtime.logging_steps, "report_to": "none",
        "logging_nan_inf_filter": False, "dataloader_pin_memory": on_gpu, "use_cpu": not on_gpu,
        "disable_tqdm": steps < 200,
    }


def micro_batch(rows: list[Row], batch: int, tokens: int) -> int:
    """The most rows of a forward that divide `batch` and hold, padded, at most `tokens`."""
    longest = max(sum(map(len, row.values())) if "prompt_ids" in row else len(row["input_ids"])
                  for row in rows)
    most = max(1, tokens // longest)
    return max(size for size in range(1, batch + 1) if batch % size == 0 and size <= most)
