"""This project's training and scoring, with its tricks added one after the other by config keys."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from transformers.trainer_utils import SaveStrategy

from benchmarks.measure import Round, System
from benchmarks.mixes import rounds_of, write_split
from benchmarks.peers import LEARNING_RATE, Task, timed_training
from configs.schema import (
    GROUND_TRUTH,
    GROUND_TRUTH_METHOD,
    RunConfig,
    RuntimeConfig,
    TrainConfig,
)
from data.tokenised import TokenisedSplit
from model.reward_model import load_reward_model
from src.batching import PairDataset
from src.trainer import build_trainer
from src.training_arguments import training_arguments

NEVER = 10**9
PLAIN = RuntimeConfig(share_prompt=False, pack=False, last_layer_shortcut=False, trunk_cache_gb=0.0,
                      save_steps=NEVER, logging_steps=NEVER, report_to="none")
TRICKS = {
    "ours, a padded row a response": {},
    "+ one prompt for its responses": {"share_prompt": True},
    "+ packed rows": {"pack": True},
    "+ last layer, last token": {"last_layer_shortcut": True},
}
"""Name -> the keys of RuntimeConfig that it sets beside those of all before it."""
ALL = list(TRICKS)[-1]


def steps_of_tricks(**changes) -> dict[str, RuntimeConfig]:
    """Name -> config, from everything off to everything on; `changes` (budgets, back end) hold for
    all of them."""
    configs, runtime = {}, dataclasses.replace(PLAIN, **changes)
    for name, keys in TRICKS.items():
        configs[name] = runtime = dataclasses.replace(runtime, **keys)
    return configs


def training_systems(task: Task, configs: dict[str, RuntimeConfig], folder: Path) -> list[System]:
    """PairTrainer under each of the configs; `folder` keeps the pairs."""
    splits = [write_split(rows, folder / f"part-{number}.arrow")
              for number, rows in enumerate(rounds_of(task.rows, task.rounds))]
    return [System(name, lambda number, runtime=runtime: _train(task, splits[number], runtime))
            for name, runtime in configs.items()]


def _train(task: Task, split: TokenisedSplit, runtime: RuntimeConfig) -> Round:
    """One epoch over the split."""
    run = run_config(task)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(run, runtime, Path(folder), len(split))
        args.save_strategy = SaveStrategy.NO
        trainer = build_trainer(
            run, runtime, lambda: load_reward_model(
                task.model, attention=runtime.attention,
                last_layer_shortcut=runtime.last_layer_shortcut),
            args, PairDataset(split, np.ones(len(split)), runtime.share_prompt), None, task.pad)
        result = timed_training(trainer)
        trainer.release()
    return result


def run_config(task: Task) -> RunConfig:
    """One epoch with the peers' batch, optimiser and schedule."""
    return RunConfig(
        experiment="benchmark", role="teacher", name="benchmark", model=str(task.model), base="",
        kept=(), data="benchmark", data_hash="", tokenizer="", split="train_1",
        labels=GROUND_TRUTH, teacher="", method=GROUND_TRUTH_METHOD,
        seed=task.seed,
        train=TrainConfig(epochs=1, batch_pairs=task.batch_pairs, learning_rate=LEARNING_RATE,
                          schedule="constant", lr_warmup_frac=0.0, weight_decay=0.0))
