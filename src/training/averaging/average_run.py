"""An average as a run, from its RunConfig to a finished folder; every rank calls it.

The two models are read a piece at a time where the recipe says all; where ratios are learned or a
head is fitted, they are in memory, in the first process alone.
"""

import functools
import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.run import RunConfig
from model.base.average.folders import as_yaml, fill
from model.base.average.match import match
from model.base.average.mix import averaged_model
from model.base.language_head import language_head
from model.base.weights import whole_weights
from model.reload_check import Probe, check_reload
from model.reward_model import build_reward_model, load_reward_model
from src.common import distributed
from src.common.files import write_json, write_text
from src.common.hashing import commit
from src.common.memory import peak_memory_mib, reset_peak
from src.methods.label_treatments import Taught
from src.methods.log_odds import sigmoid
from src.runs.cards import write_model_card
from src.runs.folders import mark_done, require_finished
from src.runs.freed import require_weights
from src.runs.plan import Plan
from src.scoring.labels import SCRIPTS, Given, prompt_numbers
from src.scoring.pairs import margins, scores_of
from src.training.averaging.descent import Learned
from src.training.averaging.learn import learn
from src.training.averaging.objective import Pairs, spread
from src.training.averaging.tax import Tax, training_texts
from src.training.linear_probe import head_of
from src.training.probe import few_responses
from src.training.train_run import base_facts, open_folder

SPLIT = "val"
"""Whose pairs trained neither teachers nor students."""


def average_run(run: RunConfig, plan: Plan, folder: Path, runs_dir: Path) -> None:
    """Average the student that `run` needs with its base into `folder`, and mark it done.

    Raises:
        UserError: the student is not finished or its weights were freed.
        ReloadError: the folder gets no DONE.
    """
    reset_peak()
    labels = labels_of(run, plan, runs_dir) if run.average.needs_labels else None
    distributed.on_main(lambda: _average(run, plan, labels, folder, runs_dir))


def labels_of(run: RunConfig, plan: Plan, runs_dir: Path) -> np.ndarray:
    """(n,) P(chosen > rejected) of the val pairs: by who taught the student, the mean where there
    are several; by the student; or ones, the human labels, for an oracle alone. On every rank."""
    pairs = plan.split(run, SPLIT)
    target = run.average.adaptive.target if run.average.adaptive else "weak"
    if target == "oracle":
        return np.ones(len(pairs))
    student = next(other for other in plan.runs if other.identity == run.earlier)
    if target == "weak":  # the student's: what an average needs is the student itself
        return Given(student, plan, runs_dir).votes(SPLIT).mean(axis=0)
    return sigmoid(margins(scores_of(_student(run, runs_dir), student, pairs, SPLIT,
                                     plan.experiment.runtime)))


def _average(run: RunConfig, plan: Plan, labels: np.ndarray | None, folder: Path,
             runs_dir: Path) -> None:
    open_folder(run, folder)
    started, student, base = time.perf_counter(), _student(run, runs_dir), plan.bases[run.model]
    recipe, log, head, notes = run.average, [], None, {}
    if labels is not None:
        learned, head = _learned(run, plan, labels, student)
        recipe, log = learned.recipe, learned.log
        notes = {"alphas": list(recipe.alphas), "tau": learned.tau,
                 **({} if learned.tax is None else {"tax": learned.tax})}
    warning = fill(folder, base.path, student, recipe,
                   match(base.path, student, recipe, run.kept), head)
    write_text(folder / "recipe.yaml", as_yaml(recipe))
    seconds = time.perf_counter() - started
    check_reload(folder, _proof(run, plan, folder), distributed.device())
    write_text(folder / "log.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n"
                                             for line in log))
    used = 0 if labels is None else len(_rows(run, plan))
    write_json(folder / "manifest.json", {
        "identity": run.identity, "name": run.display_name, "pairs": used, "steps": len(log),
        "seconds": round(seconds, 3), "peak_memory_mib": peak_memory_mib(), "commit": commit(),
        **base_facts(run, plan), **({"notes": notes} if notes else {}),
        **({"warning": warning} if warning else {})})
    write_model_card(folder)
    mark_done(folder, run.identity)


def _student(run: RunConfig, runs_dir: Path) -> Path:
    folder = require_finished(runs_dir, "students", run.earlier, f"the student of {run.name}",
                              f"run ./{SCRIPTS['students']} {run.experiment} first")
    require_weights(folder)
    return folder


def _rows(run: RunConfig, plan: Plan) -> np.ndarray:
    most = run.average.adaptive.pairs if run.average.adaptive else len(plan.split(run, SPLIT))
    return spread(len(plan.split(run, SPLIT)), most)


def _learned(run: RunConfig, plan: Plan, labels: np.ndarray,
             student: Path) -> tuple[Learned, torch.Tensor | None]:
    """The recipe with all its ratios, and the head where one is fitted."""
    recipe, split, rows = run.average, plan.split(run, SPLIT), _rows(run, plan)
    base, tuned = _models(run, plan, student)
    pairs = Pairs(split, rows, labels, plan.experiment.runtime, tuned.config.pad_token_id)
    bar = functools.partial(tqdm, desc=run.display_name, unit="step", disable=None, leave=False)
    tax = _tax(run, plan, base) if recipe.holds_tax else None
    learned = learn(recipe, base, tuned, pairs, run.seed, bar, tax) if recipe.adaptive else Learned(
        recipe, 0.0, [])
    if recipe.head == "keep":
        return learned, None
    names = [name for name, _ in tuned.named_parameters()]
    average = averaged_model(base, tuned, learned.recipe.weights(names, len(run.kept)))
    states = pairs.read(average.eval(), states=True)
    head, _ = head_of(states, Taught(pairs.labels), prompt_numbers(split)[rows], run.seed)
    return learned, torch.from_numpy(head)[None]


def _tax(run: RunConfig, plan: Plan, base: PreTrainedModel) -> Tax:
    return Tax(training_texts(plan.split(run, run.split)),
               language_head(plan.bases[run.model].path), base, plan.experiment.runtime)


def _models(run: RunConfig, plan: Plan,
            student: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Base, cut as the student is, and student; where every token is asked what follows it, without
    the last layer's shortcut."""
    base, device, shortcut = plan.bases[run.model], distributed.device(), not run.average.holds_tax
    with whole_weights():
        cut = build_reward_model(base.path, run.kept, run.seed, last_layer_shortcut=shortcut,
                                 pad_token_id=base.tokenizer.pad_token_id)
    tuned = load_reward_model(student, last_layer_shortcut=shortcut)
    return cut.to(device).eval(), tuned.to(device).eval()


def _proof(run: RunConfig, plan: Plan, folder: Path) -> Probe:
    """What the folder says of a few responses by our own forward, to hold the library's against."""
    model = load_reward_model(folder, attention="dense").to(distributed.device()).eval()
    pairs = Pairs(plan.split(run, run.split), np.zeros(0, int), np.ones(len(
        plan.split(run, run.split))), plan.experiment.runtime, model.config.pad_token_id)
    batch, place, sequences = few_responses(pairs.data, pairs.collator)
    with torch.no_grad():
        rewards = model(**{name: value.to(distributed.device()) for name, value in batch.items()})
    rewards = rewards.flatten().float().cpu()[place]
    return Probe(sequences, batch, place, rewards, rewards, torch.float32)
