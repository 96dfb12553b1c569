"""One training run from its RunConfig to a finished run folder; every rank calls it.

The folder gets its weights, then its proof (the saved model scores as the trained one), then DONE.
"""

import json
import resource
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml

from configs.schema import RunConfig
from model.reload_check import check_reload
from model.reward_model import build_reward_model
from src import distributed
from src.batching import PairDataset, collate_rows
from src.model_card import write_model_card
from src.runs import (
    RESUME,
    clear_unfinished,
    commit,
    mark_done,
    newest_checkpoint,
    write_json,
    write_text,
)
from src.sweep import Sweep
from src.trainer import PairTrainer, build_trainer, training_arguments

PROBE_PAIRS = 4
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}


def train_run(run: RunConfig, sweep: Sweep, labels: np.ndarray, val_labels: np.ndarray | None,
              folder: Path) -> None:
    """Train `run` into `folder` and mark it done.

    Args:
        labels: P(chosen > rejected) of the run's split, (n,).
        val_labels: the teacher's, of val, for early stopping; None without it.
    Raises:
        NonFiniteLossError, ReloadError: the folder keeps its checkpoints but gets no DONE.
    """
    runtime = sweep.experiment.runtime
    base = sweep.base(run.model)
    split = sweep.split(run.model, run.split)
    if distributed.is_main():
        clear_unfinished(folder)
        write_text(folder / "config.yaml", yaml.safe_dump(
            json.loads(json.dumps(asdict(run))), sort_keys=False))
    distributed.barrier()
    args = training_arguments(run, runtime, folder, len(split))
    trainer = build_trainer(
        run, lambda: build_reward_model(base.path, run.kept, run.seed,
                                        pad_token_id=base.tokenizer.pad_token_id),
        args, PairDataset(split, labels),
        None if val_labels is None else PairDataset(sweep.split(run.model, "val"), val_labels),
        base.tokenizer.pad_token_id, runtime.share_prompt)
    checkpoint = newest_checkpoint(folder, distributed.world_size())
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    sequences, rewards = _probe(trainer, split)
    trainer.save_model(str(folder))  # on every rank: under ZeRO-3 it gathers
    if distributed.is_main():
        base.tokenizer.save_pretrained(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, with this machine's paths
        precision = "bf16" if args.bf16 else "fp32"
        check_reload(folder, sequences, rewards, TOLERANCE[precision])
        _write_facts(run, sweep, trainer, folder, seconds, precision)
        mark_done(folder, run.identity)
        shutil.rmtree(folder / RESUME, ignore_errors=True)
    distributed.barrier()


def _probe(trainer: PairTrainer, split) -> tuple[list[list[int]], list[float]]:
    """A few sequences (prompt + answer) and the rewards that the model in memory gives them."""
    rows = split.rows(range(min(PROBE_PAIRS, len(split))))
    pairs = [(list(row["prompt_ids"]), list(row[side])) for row in rows
             for side in ("chosen_ids", "rejected_ids")]
    batch = collate_rows([(prompt, (answer,)) for prompt, answer in pairs],
                         trainer.data_collator.pad_token_id)
    model = trainer.model_wrapped
    model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager(), trainer.autocast_smart_context_manager():
        rewards = model(**trainer._prepare_inputs(batch)).flatten().float().cpu().tolist()
    return [prompt + answer for prompt, answer in pairs], rewards


def _write_facts(run: RunConfig, sweep: Sweep, trainer: PairTrainer, folder: Path, seconds: float,
                 precision: str) -> None:
    """log.jsonl, manifest.json and the model card."""
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
    tokens, flops = sweep.work(run)
    write_json(folder / "manifest.json", {
        "identity": run.identity,
        "name": run.display_name,
        "pairs": len(trainer.train_dataset),
        "steps": trainer.state.global_step,
        "tokens": tokens,
        "flops": flops,
        "seconds": round(seconds, 3),
        "peak_memory_mib": peak_memory_mib(),
        "hardware": hardware(trainer, precision),
        "commit": commit(),
    })
    write_model_card(folder, run)


def hardware(trainer: PairTrainer, precision: str) -> dict[str, object]:
    """What a run was trained on, for a person and for the tests: how far it was distributed."""
    accelerator = trainer.accelerator
    return {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "distributed_type": str(accelerator.distributed_type.value),
        "engine": type(trainer.model_wrapped).__name__,
        "precision": precision,
        "torch": torch.__version__,
    }


def peak_memory_mib() -> int:
    """The most memory so far: of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
