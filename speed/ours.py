"""This project's training and scoring, with its tricks added one after the other by config keys."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.trainer_utils import SaveStrategy

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import RuntimeConfig, TrainConfig
from data.tokens.tokenised import TokenisedSplit
from model.reward_model import load_reward_model
from speed.measure import Round, System
from speed.mixes import Row, rounds_of, write_split
from speed.peers.padded import pad_pairs, sides_of
from speed.peers.peer import LEARNING_RATE, Task, timed_training
from speed.shapes import load_classifier
from src.batches.collate import PairDataset
from src.common.distributed import device
from src.common.precision import computing
from src.scoring.pairs import score
from src.training.arguments import training_arguments
from src.training.trainer import PairTrainer, build_trainer

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


def used_by_peers() -> str:
    """The precision that every system is measured in: bf16 on CUDA, fp32 on CPUs."""
    return "bf16" if device().type == "cuda" else "fp32"


def steps_of_tricks(*, last_only: bool, **changes) -> dict[str, RuntimeConfig]:
    """Name -> config, from everything off to everything on, or with `last_only` everything on
    alone; `changes` (budgets, back end) hold for all of them."""
    configs, runtime = {}, dataclasses.replace(PLAIN, **changes)
    for name, keys in TRICKS.items():
        configs[name] = runtime = dataclasses.replace(runtime, **keys)
    return {ALL: runtime} if last_only else configs


def training_systems(task: Task, configs: dict[str, RuntimeConfig], folder: Path,
                     bf16: bool = False) -> list[System]:
    """PairTrainer under each of the configs, and with `bf16` under the last once more in bf16;
    `folder` keeps the pairs."""
    splits = [write_split(rows, folder / f"part-{number}.arrow")
              for number, rows in enumerate(rounds_of(task.rows, task.rounds))]
    return [System(name, lambda number, how=how: _train(task, splits[number], *how))
            for name, how in in_precisions(configs, bf16).items()]


def in_precisions(configs: dict[str, RuntimeConfig],
                  bf16: bool) -> dict[str, tuple[RuntimeConfig, str]]:
    """Each config with the peers' precision; with `bf16` the last of them once more in that."""
    found = {name: (runtime, used_by_peers()) for name, runtime in configs.items()}
    if bf16:
        found["+ bf16 products"] = list(configs.values())[-1], "bf16"
    return found


def _train(task: Task, split: TokenisedSplit, runtime: RuntimeConfig, precision: str) -> Round:
    """One epoch over the split."""
    with trainer_of(task, split, runtime, precision) as trainer:
        return timed_training(trainer)


@contextmanager
def trainer_of(task: Task, split: TokenisedSplit, runtime: RuntimeConfig,
               precision: str) -> Iterator[PairTrainer]:
    """PairTrainer over the split, for one epoch."""
    run = run_config(task)
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, precision=precision))
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(run, runtime, Path(folder), len(split))
        args.save_strategy = SaveStrategy.NO
        trainer = build_trainer(
            run, runtime, lambda: load_reward_model(
                task.model, attention=runtime.attention,
                last_layer_shortcut=runtime.last_layer_shortcut),
            args, PairDataset(split, np.ones(len(split)), runtime.share_prompt), None, task.pad)
        yield trainer
        trainer.release()


def run_config(task: Task) -> RunConfig:
    """One epoch with the peers' batch, optimiser and schedule."""
    return RunConfig(
        experiment="benchmark", kind="teacher", name="benchmark", model=str(task.model), base="",
        kept=(), data="benchmark", data_hash="", tokenizer="", split="train_1",
        labels=GROUND_TRUTH, teacher="", method=GROUND_TRUTH_METHOD,
        seed=task.seed,
        train=TrainConfig(epochs=1, batch_pairs=task.batch_pairs, learning_rate=LEARNING_RATE,
                          schedule="constant", lr_warmup_frac=0.0, weight_decay=0.0,
                          precision=used_by_peers()))


TOLERANCE = {"cpu": 1e-5, "cuda": 0.1}
"""fp32 on a CPU; bf16 compute on CUDA, where a reward's own step is 2^-7."""


def reward_difference(model: Path, rows: list[Row], batch_pairs: int, runtime: RuntimeConfig,
                      folder: Path) -> float:
    """The largest difference between padded rewards, two rows a pair, and ours, same weights.

    Raises:
        AssertionError: above the tolerance; nothing that was measured then means anything.
    """
    scorer = load_reward_model(model, attention=runtime.attention,
                               last_layer_shortcut=runtime.last_layer_shortcut)
    scorer.precision = used_by_peers()
    ours = score(scorer, write_split(rows, folder / "equality.arrow"), runtime, "equality")
    classifier = load_classifier(model).to(device()).eval()
    difference = float(np.abs(ours - padded_rewards(classifier, sides_of(rows), batch_pairs)).max())
    limit = TOLERANCE[device().type]
    assert difference <= limit, f"rewards differ by {difference}, above {limit}"
    return difference


def padded_rewards(classifier: PreTrainedModel, examples: list[dict[str, list[int]]],
                   batch_pairs: int) -> np.ndarray:
    """(n, 2) float32: chosen, rejected, two rows a pair, padded to the longest of a batch."""
    found = [np.zeros((0, 2), np.float32)]
    with torch.inference_mode(), computing(used_by_peers()):
        for start in range(0, len(examples), batch_pairs):
            batch = pad_pairs(examples[start : start + batch_pairs],
                              pad=classifier.config.pad_token_id)
            rewards = classifier(**{key: value.to(device()) for key, value in batch.items()}).logits
            found.append(rewards.float().view(2, -1).T.cpu().numpy())
    return np.concatenate(found)
