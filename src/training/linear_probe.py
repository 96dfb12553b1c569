"""A student that is a linear probe of its base model: nothing follows a gradient.

    reward = w . h     h: the hidden state at a response's last token, after the final norm

w is a logistic regression of the labels on h of left minus h of right, its penalty cross-validated
on the same labels, and becomes the head of a model whose other weights are the base's. The run's
folder is a checkpoint like any other.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from configs.run import RunConfig
from model.base.residual import compute_in
from model.base.weights import whole_weights
from model.reload_check import Probe
from model.reward_model import build_reward_model
from src.batches.collate import PairDataset, TreeCollator
from src.common import distributed
from src.common.memory import peak_memory_mib
from src.common.precision import computing
from src.methods.label_treatments import Taught
from src.methods.linear_probe import cross_entropy, fit, out_of_fold, scaled
from src.runs.plan import Plan
from src.scoring.hidden_states import differences
from src.scoring.labels import prompt_numbers
from src.training.probe import few_responses


def fit_and_save(run: RunConfig, plan: Plan, taught: Taught,
                 folder: Path) -> tuple[Probe, str, dict[str, object]]:
    """Fit the head and save the model into `folder`: what to hold the saved one against, the log,
    what was measured. Every rank calls it; they share the forwards of the base, if there are any.
    """
    assert taught.first is None, "check_treatments knows an order by an option first_frac"
    states = differences(run, plan, run.split, folder.parents[2])
    return distributed.on_main(lambda: _fitted(run, plan, taught, states, folder))


def head_of(states: np.ndarray, taught: Taught, prompt: np.ndarray,
            seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """w (d,) float32, of states (n, d) of chosen minus rejected, and what the log says of it.

    Args:
        prompt: (n,) number of each pair's prompt.
    """
    kept = np.ones(len(states), bool) if taught.kept is None else taught.kept
    weights = np.ones(len(states)) if taught.weights is None else taught.weights
    (x, size), labels, weights = scaled(states[kept]), taught.labels[kept], weights[kept]
    margins, strength = out_of_fold(states[kept], labels, prompt[kept], seed, weights)
    head = fit(x, labels, strength, weights) / size
    return head.astype(np.float32), {
        "strength": strength, "held_out_loss": cross_entropy(margins, labels, weights)}


def _fitted(run: RunConfig, plan: Plan, taught: Taught, states: np.ndarray,
            folder: Path) -> tuple[Probe, str, dict[str, object]]:
    started, pairs = time.perf_counter(), plan.split(run, run.split)
    head, said = head_of(states, taught, prompt_numbers(pairs), run.seed)
    seconds = time.perf_counter() - started
    runtime, base = plan.experiment.runtime, plan.bases[run.model]
    with whole_weights():
        model = build_reward_model(
            base.path, run.kept, run.seed, pad_token_id=base.tokenizer.pad_token_id,
            attention=runtime.attention, last_layer_shortcut=runtime.last_layer_shortcut)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(head)[None])
    model.save_pretrained(folder)
    data = PairDataset(pairs, taught.labels, runtime.share_prompt)
    proof = _proof(model, data, TreeCollator(base.tokenizer.pad_token_id, runtime.pack),
                   run.train.precision)
    return proof, json.dumps(said, sort_keys=True) + "\n", {
        "steps": 0, "seconds": seconds, "peak_memory_mib": peak_memory_mib(), "hardware": {
            "device": str(distributed.device()), "processes": distributed.world_size(),
            "precision": run.train.precision, "torch": torch.__version__}}


def _proof(model: PreTrainedModel, data: PairDataset, collator: TreeCollator,
           precision: str) -> Probe:
    """What the model says of a few responses, in the precision of the run and in its weights'."""
    batch, place, sequences = few_responses(data, collator)
    model = model.to(distributed.device()).eval()
    compute_in(model, precision)
    inputs = {name: value.to(distributed.device()) for name, value in batch.items()}
    with torch.no_grad():
        with computing(precision):
            trained = model(**inputs).flatten().float().cpu()[place]
        model.attention = "dense"
        stored = model(**inputs).flatten().float().cpu()[place]
    return Probe(sequences, batch, place, trained, stored, torch.float32)
