"""Whole experiments in a folder of their own, for sweep_cost: prepared data, and stages run as
src.train runs them, in this process."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from configs.run import STAGES, RunConfig
from configs.schema import (
    DataConfig,
    ExperimentConfig,
    LadderConfig,
    RuntimeConfig,
    TrainConfig,
    load_config,
)
from data.prepare import TokenizerSpec, prepare
from data.tokens.formatting import load_tokenizer
from model.reward_model import RewardForward
from speed.mixes import Mix as LengthMix
from speed.mixes import Row, draw
from speed.shapes import Shape, write_model
from src.common.files import REPO_ROOT
from src.methods.label_treatments import Taught
from src.runs.folders import WEIGHTS, remove_checkpoints
from src.runs.plan import Plan
from src.scoring.pairs import scores_of
from src.scoring.trunk_cache import trunk_of
from src.scoring.weak_labels import weak_labels_of
from src.training.finish import finish
from src.training.train_run import train_run

DEMO = REPO_ROOT / "model" / "demo"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def demo_experiment(folder: Path, pairs: int, runtime: RuntimeConfig) -> ExperimentConfig:
    """The demo's grid, one seed and one epoch, over `pairs` pairs of each training split."""
    raw = folder / "raw"
    if not raw.is_dir():
        subprocess.run([sys.executable, REPO_ROOT / "data" / "demo.py", "--output_dir", raw],
                       check=True, stdout=subprocess.DEVNULL)
    demo = load_config(ExperimentConfig, "demo")
    data = _prepared(folder, raw / "pairs.jsonl", pairs, DEMO, test_pairs=4 * pairs, max_length=64)
    train = TrainConfig(epochs=1, batch_pairs=demo.train.batch_pairs)
    return ExperimentConfig("demo", data, demo.teachers, demo.students, demo.methods, train=train,
                            runtime=runtime)


def deep_experiment(folder: Path, shape: Shape, mix: LengthMix, pairs: tuple[int, int],
                    seeds: tuple[int, ...], trainable: int, teachers: int,
                    runtime: RuntimeConfig) -> ExperimentConfig:
    """Students of which only the top layers train, taught by some teachers, for two epochs.

    The base model has random weights and the demo's tokenizer; pairs are random words in the
    lengths of `mix`, as many to train on and as many to test on as `pairs` says.
    """
    base = folder / "base"
    if not base.is_dir():
        write_model(shape, base, seed=0)
        for name in TOKENIZER_FILES:
            shutil.copy(DEMO / name, base)
        _write_pairs(folder / "raw.jsonl", draw(mix, 3 * pairs[0] + pairs[1], 0, shape.vocab))
    model = folder / "base.yaml"
    model.write_text(yaml.safe_dump({"checkpoint": str(base), "family": "llama"}))
    data = _prepared(folder, folder / "raw.jsonl", pairs[0], base, test_pairs=pairs[1],
                     max_length=8192)
    rungs = tuple(range(trainable, trainable + teachers))
    return ExperimentConfig(
        "deep", data, (LadderConfig(str(model), rungs, "first"),),
        (LadderConfig(str(model), (shape.layers,), "first"),), seeds=seeds, runtime=runtime,
        train=TrainConfig(epochs=2, batch_pairs=16, learning_rate=1e-3,
                          trainable_layers=trainable))


def vocabulary() -> int:
    """Tokens of the demo's tokenizer."""
    return len(load_tokenizer(DEMO))


def _write_pairs(path: Path, rows: list[Row]) -> None:
    """Raw pairs of random words, as many in each text as the row has tokens."""
    vocab = load_tokenizer(DEMO).get_vocab()
    words = sorted(word for word in vocab if word.isalpha())

    def text(ids: list[int]) -> str:
        return " ".join(words[i % len(words)] for i in ids)

    path.write_text("".join(json.dumps({
        "prompt": text(row["prompt_ids"]), "chosen": text(row["chosen_ids"]),
        "rejected": text(row["rejected_ids"])}) + "\n" for row in rows))


def _prepared(folder: Path, raw: Path, pairs: int, tokenizer: Path, **limits: int) -> str:
    """Prepare the pairs of a file under `folder`/processed; the path of their data config."""
    values = {"path": str(raw), "val_pairs": 0, "train_pairs": pairs, **limits}
    path = folder / "pairs.yaml"
    path.write_text(yaml.safe_dump(values))
    prepare(load_config(DataConfig, str(path)), folder / "processed" / "pairs",
            [TokenizerSpec("benchmark", str(tokenizer))])
    return str(path)


def run_grid(plan: Plan, runs_dir: Path, labels_once: bool) -> None:
    """Train every run of every stage and score it on test.

    Args:
        labels_once: each teacher labels once; otherwise again for each of its students.
    """
    for stage in STAGES:
        for run in plan.stage(stage):
            _train_and_score(run, plan, runs_dir, _labels_for(run, plan, runs_dir, labels_once))


def _labels_for(run: RunConfig, plan: Plan, runs_dir: Path, labels_once: bool) -> np.ndarray:
    if run.kind != "student":
        return np.ones(len(plan.split(run, run.split)))
    teacher, = plan.needed(run)
    folder = folder_of(teacher, runs_dir)
    if not labels_once:
        shutil.rmtree(folder / "weak_labels", ignore_errors=True)
        (folder / "scores" / f"{run.split}.parquet").unlink(missing_ok=True)
    return weak_labels_of(folder, teacher, plan.split(teacher, run.split),
                          run.split, plan.experiment.runtime)


def train_students(plan: Plan, runs_dir: Path) -> None:
    """Train the students on random labels, others for each teacher and seed, and score them on
    test."""
    for run in plan.stage("students"):
        draw_labels = np.random.default_rng(int(run.labels[:8], 16))
        _train_and_score(run, plan, runs_dir,
                         draw_labels.random(len(plan.split(run, run.split))))


def run_comparison(plan: Plan, runs_dir: Path) -> None:
    """Every run of every stage as a sweep has it, with all that they share, scored on test."""
    for stage in STAGES:
        for run in plan.stage(stage):
            _finish_and_score(run, plan, runs_dir)


def run_from_scratch(plan: Plan, runs_dir: Path) -> None:
    """Each student in a folder of its own, with its teacher, its labels and its ceiling; the folder
    goes before the next begins: a student's three models take a gigabyte."""
    ceilings = {(run.name, run.seed): run for run in plan.stage("ceilings")}
    for run in plan.stage("students"):
        for each in (*plan.needed(run), ceilings[run.name, run.seed], run):
            _finish_and_score(each, plan, runs_dir / run.identity)
        shutil.rmtree(runs_dir / run.identity)


def _finish_and_score(run: RunConfig, plan: Plan, runs_dir: Path) -> None:
    finish(run, plan, runs_dir)
    scores_of(folder_of(run, runs_dir), run, plan.split(run, "test"), "test",
              plan.experiment.runtime, lambda: trunk_of(run, plan, "test", runs_dir))


def train_ceiling(plan: Plan, runs_dir: Path) -> None:
    """Train the first ceiling and score it on test: a sweep does so before its students."""
    run = plan.stage("ceilings")[0]
    _train_and_score(run, plan, runs_dir, np.ones(len(plan.split(run, run.split))))


def _train_and_score(run: RunConfig, plan: Plan, runs_dir: Path, labels: np.ndarray) -> None:
    train_run(run, plan, Taught(labels), None, folder_of(run, runs_dir))
    remove_checkpoints(folder_of(run, runs_dir))
    scores_of(folder_of(run, runs_dir), run, plan.split(run, "test"), "test",
              plan.experiment.runtime, lambda: trunk_of(run, plan, "test", runs_dir))


def folder_of(run: RunConfig, runs_dir: Path) -> Path:
    return runs_dir / run.experiment / run.stage / run.folder_name


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference of any weight between the same runs under two folders."""
    def between(path: Path) -> float:
        mine, yours = load_file(path), load_file(other / path.relative_to(one))
        return max(float((mine[name].float() - yours[name].float()).abs().max()) for name in mine)

    return max(between(path) for path in sorted(one.rglob(WEIGHTS)))


@contextmanager
def all_counted() -> Iterator[list[int]]:
    """Inside, a list of the sizes (rows x width) of what goes through any reward model of ours."""
    sizes: list[int] = []
    original = RewardForward.forward

    @functools.wraps(original)
    def forward(self, input_ids: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        sizes.append(input_ids.numel())
        return original(self, input_ids, *args, **kwargs)

    RewardForward.forward = forward
    try:
        yield sizes
    finally:
        RewardForward.forward = original
