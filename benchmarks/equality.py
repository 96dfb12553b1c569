"""Whether the systems compute the same thing: rewards of the library's own class, and ours."""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.mixes import Row, write_split
from benchmarks.peers import pad_pairs, sides_of
from benchmarks.shapes import load_classifier
from configs.schema import RuntimeConfig
from model.reward_model import load_reward_model
from src.distributed import device, half_precision
from src.scoring import score

TOLERANCE = {"cpu": 1e-5, "cuda": 0.1}
"""fp32 on a CPU; bf16 compute on CUDA, where a reward's own step is 2^-7."""


def reward_difference(model: Path, rows: list[Row], batch_pairs: int, runtime: RuntimeConfig,
                      folder: Path) -> float:
    """The largest difference between padded rewards, two rows a pair, and ours, same weights.

    Raises:
        AssertionError: above the tolerance; nothing that was measured then means anything.
    """
    ours = score(load_reward_model(model, attention=runtime.attention,
                                   last_layer_shortcut=runtime.last_layer_shortcut),
                 write_split(rows, folder / "equality.arrow"), runtime, "equality")
    classifier = load_classifier(model).to(device()).eval()
    difference = float(np.abs(ours - padded_rewards(classifier, sides_of(rows), batch_pairs)).max())
    limit = TOLERANCE[device().type]
    assert difference <= limit, f"rewards differ by {difference}, above {limit}"
    return difference


def padded_rewards(classifier: PreTrainedModel, examples: list[dict[str, list[int]]],
                   batch_pairs: int) -> np.ndarray:
    """(n, 2) float32: chosen, rejected, two rows a pair, padded to the longest of a batch."""
    found = [np.zeros((0, 2), np.float32)]
    with torch.inference_mode(), half_precision():
        for start in range(0, len(examples), batch_pairs):
            batch = pad_pairs(examples[start : start + batch_pairs],
                              pad=classifier.config.pad_token_id)
            rewards = classifier(**{key: value.to(device()) for key, value in batch.items()}).logits
            found.append(rewards.float().view(2, -1).T.cpu().numpy())
    return np.concatenate(found)
