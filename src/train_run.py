"""One training run from its RunConfig to a finished run folder; every rank calls it.

The folder gets its weights, then its proof (the saved model scores as the trained one), then DONE.
"""

import json
import os
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
    CURVES,
    RESUME,
    clear_unfinished,
    commit,
    mark_done,
    newest_checkpoint,
    read_json,
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
    distributed.on_main(lambda: _open_folder(run, folder))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / CURVES)  # the library's only way
    args = training_arguments(run, runtime, folder, len(split))
    trainer = build_trainer(
        run, lambda: build_reward_model(base.path, run.kept, run.seed,
                                        pad_token_id=base.tokenizer.pad_token_id),
        args, PairDataset(split, labels),
        None if val_labels is None else PairDataset(sweep.split(run.model, "val"), val_labels),
        base.tokenizer.pad_token_id, runtime.share_prompt)
    try:
        _train_and_prove(trainer, run, sweep, folder)
    finally:
        trainer.release()


def _train_and_prove(trainer: PairTrainer, run: RunConfig, sweep: Sweep, folder: Path) -> None:
    """Train from the newest checkpoint, save, check what was saved, mark it done."""
    checkpoint = newest_checkpoint(folder, distributed.world_size())
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    sequences, rewards = _probe(trainer, sweep.split(run.model, run.split))
    trainer.save_model(str(folder))  # on every rank: under ZeRO-3 it gathers
    precision = "bf16" if trainer.args.bf16 else "fp32"
    facts = hardware(trainer, precision)

    def prove_and_mark() -> None:
        sweep.base(run.model).tokenizer.save_pretrained(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, with this disk's paths
        check_reload(folder, sequences, rewards, TOLERANCE[precision])
        _write_facts(run, sweep, trainer, folder, seconds, facts)
        mark_done(folder, run.identity)
        shutil.rmtree(folder / RESUME, ignore_errors=True)

    distributed.on_main(prove_and_mark)


def _open_folder(run: RunConfig, folder: Path) -> None:
    """The run's folder with its config, and of an earlier try only checkpoints to resume from."""
    clear_unfinished(folder)
    launch = folder / RESUME / "launch.json"
    if read_json(launch) != distributed.launch_facts():
        shutil.rmtree(folder / RESUME, ignore_errors=True)
        write_json(launch, distributed.launch_facts())
    write_text(folder / "config.yaml", yaml.safe_dump(
        json.loads(json.dumps(asdict(run))), sort_keys=False))


def _probe(trainer: PairTrainer, split) -> tuple[list[list[int]], list[float]]:
    """A few sequences (prompt + answer) and the rewards that the model in memory gives them."""
    rows = split.rows(range(min(PROBE_PAIRS, len(split))))
    pairs = [(list(row["prompt_ids"]), list(row[side])) for row in rows
             for side in ("chosen_ids", "rejected_ids")]
    batch = collate_rows([(prompt, (answer,)) for prompt, answer in pairs],
                         trainer.data_collator.pad_token_id)
    model = trainer.model_wrapped
    model.eval()
    with (torch.no_grad(), trainer.compute_loss_context_manager(),
          trainer.autocast_smart_context_manager()):
        rewards = model(**trainer._prepare_inputs(batch)).flatten().float().cpu().tolist()
    return [prompt + answer for prompt, answer in pairs], rewards


def _write_facts(run: RunConfig, sweep: Sweep, trainer: PairTrainer, folder: Path, seconds: float,
                 facts: dict[str, object]) -> None:
    """log.jsonl, manifest.json and the model card."""
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    write_text(folder / "log.jsonl", "".join(
        json.dumps(entry, sort_keys=True) + "\n" for entry in history))  # a resume reorders keys
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
        "hardware": facts,
        "commit": commit(),
    })
    write_model_card(folder, run)


def hardware(trainer: PairTrainer, precision: str) -> dict[str, object]:
    """What a run was trained on, and proof of how far it was distributed; every rank calls it."""
    accelerator = trainer.accelerator
    tensors = list(trainer.model.parameters())
    return {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "distributed_type": str(accelerator.distributed_type.value),
        "engine": type(trainer.model_wrapped).__name__,
        "precision": precision,
        "tensors": len(tensors),
        "partitioned_tensors": sum(tensor.numel() == 0 for tensor in tensors),
        "first_batch_of_rank": distributed.gather(trainer.first_batch),
        "torch": torch.__version__,
    }


def peak_memory_mib() -> int:
    """The most memory so far: of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
