"""One training run from its RunConfig to a finished run folder; every rank calls it.

The folder gets its weights, then its proof (the saved model scores as the trained one), then DONE.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml

from configs.run import RunConfig
from model.attention.attend import compile_ahead
from model.base.adapters import add_adapters
from model.base.trunk import begin_above, freeze_below, freeze_embeddings, frozen_of
from model.hub.present import dequantised_from
from model.reload_check import Probe, check_reload
from model.reward_model import build_reward_model
from src.batches.collate import PairDataset
from src.batches.steps import ALL_PAIRS, Course, count_kept
from src.common import distributed
from src.common.files import read_json, write_json, write_text
from src.common.hashing import commit
from src.common.memory import peak_memory_mib, reset_peak, set_libraries_aside
from src.common.owned import claim
from src.common.precision import used
from src.methods.label_treatments import Taught
from src.runs.cards import write_model_card
from src.runs.folders import (
    ADAPTER,
    CURVES,
    RESUME,
    clear_unfinished,
    mark_done,
    newest_checkpoint,
    remove_checkpoints,
)
from src.runs.plan import Plan
from src.scoring.labels import course_of
from src.scoring.trunk_cache import trunk_of
from src.training import fit
from src.training.arguments import training_arguments, weights_type
from src.training.linear_probe import fit_and_save
from src.training.merge import save_merged
from src.training.probe import probe_of
from src.training.resumable import saving_on_sigterm
from src.training.trainer import PairTrainer, build_trainer
from src.training.work import work

SPEED = ("_runtime", "_per_second")
"""How the library's figures of speed end."""


def train_run(run: RunConfig, plan: Plan, taught: Taught, val_labels: np.ndarray | None,
              folder: Path) -> None:
    """Train `run` into `folder` and mark it done; its checkpoints stay.

    Args:
        taught: what it learns from the pairs of its split, chosen left and rejected right.
        val_labels: P(chosen > rejected) of val by its teachers, for early stopping; None without.
    Raises:
        NonFiniteLossError, ReloadError: the folder keeps its checkpoints but gets no DONE.
    """
    set_libraries_aside()
    reset_peak()
    base = plan.bases[run.model]
    distributed.on_main(lambda: open_folder(run, folder))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / CURVES)  # the library's only way
    course = course_of(run, taught)
    by_gradient = run.method.learner == "gradient"
    proof, log, measured = (
        _train_and_save(run, plan, taught, val_labels, course, folder) if by_gradient
        else fit_and_save(run, plan, taught, folder))
    facts = _facts(run, plan, taught, course, measured)

    def prove_and_mark() -> None:
        held = save_merged(run, base, folder, proof) if by_gradient and run.train.lora else proof
        base.tokenizer.save_pretrained(folder)
        for place in (folder, folder / ADAPTER):  # a pickle, with this disk's paths
            (place / "training_args.bin").unlink(missing_ok=True)
        check_reload(folder, held, distributed.device())
        _write_facts(folder, log, facts)
        mark_done(folder, run.identity)

    distributed.on_main(prove_and_mark)


def _dataset(run: RunConfig, plan: Plan, split: str, taught: Taught, course: Course,
             runs_dir: Path) -> PairDataset:
    """The split's pairs, with what the run's frozen layers make of them where that is kept."""
    runtime = plan.experiment.runtime
    cache = trunk_of(run, plan, split, runs_dir)
    return PairDataset(plan.split(run, split), taught.labels, runtime.share_prompt,
                       cache.read if cache else None, taught.weights, course, taught.votes,
                       taught.hints.states if taught.hints else ())


def _build(run: RunConfig, plan: Plan, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The model that the run trains, on this process's device, frozen as far as it does not; with
    adapters it is in peft's wrapper."""
    runtime, base = plan.experiment.runtime, plan.bases[run.model]
    model = build_reward_model(
        base.path, run.kept, run.seed, pad_token_id=base.tokenizer.pad_token_id, dtype=dtype,
        attention=runtime.attention, last_layer_shortcut=runtime.last_layer_shortcut,
        device=distributed.device())
    below = frozen_of(run)
    if run.train.lora is not None:
        begin_above(model, below)
        return add_adapters(model, run.train.lora, below, run.seed)
    if below:
        freeze_below(model, below)
    if run.train.freeze_embeddings:
        freeze_embeddings(model)
    return model


def _train_and_save(run: RunConfig, plan: Plan, taught: Taught, val_labels: np.ndarray | None,
                    course: Course, folder: Path) -> tuple[Probe, str, dict[str, object]]:
    """Train from the newest checkpoint and save: (what to hold the saved model against, the log,
    what was measured). Every rank calls it."""
    runtime, runs_dir = fit.runtime_of(plan, run), folder.parents[2]
    args = training_arguments(run, runtime, folder, count_kept(len(taught.labels), course.kept))
    data = _dataset(run, plan, run.split, taught, course, runs_dir)
    val_data = None if val_labels is None else _dataset(run, plan, "val", Taught(val_labels),
                                                        ALL_PAIRS, runs_dir)
    trainer = build_trainer(run, runtime, lambda: _build(run, plan, weights_type(args)), args,
                            data, val_data, plan.bases[run.model].tokenizer.pad_token_id,
                            taught.hints)
    try:
        return _trained(trainer, run, folder)
    finally:
        trainer.release()


def _trained(trainer: PairTrainer, run: RunConfig,
             folder: Path) -> tuple[Probe, str, dict[str, object]]:
    checkpoint = newest_checkpoint(folder, distributed.world_size())
    compile_ahead(trainer.model, trainer.budgets[0].tokens, trainer.args.device,
                  torch.bfloat16 if trainer.args.bf16 else torch.float32)
    with saving_on_sigterm():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.distillation:
        trainer.distillation.release()
    log = log_lines(trainer)
    measured = {"steps": trainer.state.global_step, "seconds": trainer.seconds,
                "peak_memory_mib": peak_memory_mib(), "hardware": hardware(trainer),
                "micro_batch_tokens": trainer.budgets[0].tokens}
    proof = probe_of(trainer)
    trained = folder / ADAPTER if run.train.lora else folder
    trainer.save_model(str(trained))  # on every rank: under ZeRO-3 it gathers
    return proof, log, measured


def open_folder(run: RunConfig, folder: Path) -> None:
    """The run's folder with its config, and of an earlier try only checkpoints to resume from."""
    claim(folder, "a training run", "run folder",
          lambda place: (place / "config.yaml").is_file() or (place / RESUME).is_dir())
    clear_unfinished(folder)
    _keep_checkpoints_of_this_launch(run, folder)
    write_text(folder / "config.yaml", yaml.safe_dump(
        json.loads(json.dumps(asdict(run))), sort_keys=False))


def _keep_checkpoints_of_this_launch(run: RunConfig, folder: Path) -> None:
    """Remove checkpoints that a launch of another kind left, and say so.

    The trainer would take them: from one process to two it ends at once, having read no batch, for
    it counts the batches of the epoch that its own processes have not yet seen.
    """
    facts, path = distributed.launch_facts(), folder / RESUME / "launch.json"
    found = read_json(path)
    if found == facts:
        return
    if any(path.parent.glob("checkpoint-*")):
        kinds = [" ".join(f"{name} {value}" for name, value in (each or {}).items() if value)
                 for each in (found, facts)]
        print(f"{run.display_name}: its checkpoints are of another launch "
              f"({kinds[0] or 'unknown'}; this one: {kinds[1]}) and were removed: the run starts "
              "anew", flush=True)
    remove_checkpoints(folder)
    write_json(path, facts)


def _facts(run: RunConfig, plan: Plan, taught: Taught, course: Course,
           measured: dict[str, object]) -> dict[str, object]:
    """manifest.json, of which `measured` is what training alone can tell."""
    total = len(taught.labels)
    tokens, flops = work(run, plan, course, measured["steps"])
    pairs = count_kept(total, course.kept)
    return {
        "identity": run.identity,
        "name": run.display_name,
        "pairs": pairs,
        **({"dropped_pairs": total - pairs} if pairs < total else {}),
        "tokens": tokens,
        "flops": flops,
        **measured,
        "seconds": round(measured["seconds"], 3),
        "commit": commit(),
        **base_facts(run, plan),
        **({"notes": taught.notes} if taught.notes else {}),
    }


def base_facts(run: RunConfig, plan: Plan) -> dict[str, object]:
    """What of a manifest tells where the run's base model and data come from."""
    base = plan.bases[run.model].config
    rounded = dequantised_from(base)
    return {"base": {"checkpoint": "" if base.is_local else base.checkpoint,
                     "revision": base.revision, "license": base.license,
                     "layers": plan.bases[run.model].layers,
                     **({"dequantised_from": rounded} if rounded else {})},
            "data_source": plan.data.source}


def _write_facts(folder: Path, log: str, facts: dict[str, object]) -> None:
    """log.jsonl, manifest.json and the model card."""
    write_text(folder / "log.jsonl", log)
    write_json(folder / "manifest.json", facts)
    write_model_card(folder)


def log_lines(trainer: PairTrainer) -> str:
    """The run's log, a line of JSON an entry: the same however often the run was resumed, which
    reorders keys, and on any machine, whose speed manifest.json tells."""
    entries = [{key: value for key, value in entry.items() if not key.endswith(SPEED)}
               for entry in trainer.state.log_history if "train_runtime" not in entry]
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)


def hardware(trainer: PairTrainer) -> dict[str, object]:
    """What a run was trained on, and proof of how far it was distributed; every rank calls it."""
    accelerator = trainer.accelerator
    tensors = list(trainer.model.parameters())
    return {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "distributed_type": str(accelerator.distributed_type.value),
        "engine": type(trainer.model_wrapped).__name__,
        "precision": used(trainer.train_config.precision),
        "tensors": len(tensors),
        "compiled_layers": trainer.layer_graphs.layers if trainer.layer_graphs else 0,
        "partitioned_tensors": sum(tensor.numel() == 0 for tensor in tensors),
        "gradients": trainer.gradient_types(),
        "first_batch_of_rank": distributed.gather(trainer.first_batch),
        "torch": torch.__version__,
    }
