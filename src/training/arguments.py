"""transformers' arguments for one of our runs."""

from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments

from configs.run import RunConfig
from configs.schema import RuntimeConfig, TrainConfig
from src.batches.steps import optimiser_steps
from src.common import distributed
from src.common.precision import products, used
from src.runs.folders import RESUME


def warmup_steps(train: TrainConfig, steps: int) -> int:
    """Its share of a run's steps. It begins at a learning rate of 0: one step at least is left to
    learn in."""
    return min(int(np.ceil(train.lr_warmup_frac * steps)), steps - 1)


def training_arguments(run: RunConfig, runtime: RuntimeConfig, folder: Path,
                       pairs: int) -> TrainingArguments:
    """transformers' arguments for a run; those of our configs and the launcher's hardware."""
    distributed.require_one_gpu()
    on_gpu = distributed.device().type == "cuda"
    stopping = run.train.early_stopping_evals > 0
    steps = optimiser_steps(run, pairs)
    save_steps = max(1, round(steps * run.train.eval_frac)) if stopping else runtime.save_steps
    return TrainingArguments(
        output_dir=str(folder / RESUME),
        per_device_train_batch_size=1,  # our batches are whole steps
        per_device_eval_batch_size=1,
        num_train_epochs=run.train.epochs,
        learning_rate=run.train.learning_rate,
        lr_scheduler_type=run.train.schedule,
        warmup_steps=warmup_steps(run.train, steps),
        weight_decay=run.train.weight_decay,
        max_grad_norm=run.train.max_grad_norm,
        seed=run.seed,
        data_seed=run.seed,
        bf16=products(used(run.train.precision)) == "bf16",
        gradient_checkpointing=runtime.gradient_checkpointing,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        eval_strategy="steps" if stopping else "no",
        eval_steps=save_steps if stopping else None,
        load_best_model_at_end=stopping,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="loss" if stopping else None,
        greater_is_better=False if stopping else None,
        logging_strategy="steps",
        logging_steps=runtime.logging_steps,
        logging_nan_inf_filter=False,  # we stop at the first one instead
        report_to=runtime.report_to,
        run_name=f"{run.experiment}/{run.folder_name}",
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=steps < 200 or not distributed.is_main(),
        use_cpu=not on_gpu,
        ddp_backend="gloo" if not on_gpu and distributed.world_size() > 1 else None,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # none of them changes in training
        ddp_timeout=6 * 3600,
    )


def weights_type(args: TrainingArguments) -> torch.dtype:
    """What a model is read in to be trained: fp32, except that where DeepSpeed computes in bf16 its
    weights are bf16, whatever they were read in. It makes its fp32 master weights of them."""
    return torch.bfloat16 if args.bf16 and distributed.uses_deepspeed() else torch.float32
