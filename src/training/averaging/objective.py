"""What averages of two models are judged by while their ratios are learned: labels of pairs."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from transformers import PreTrainedModel

from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from src.batches.collate import PairDataset, TreeCollator
from src.batches.packing import Budget, fewest_tokens, micro_batches
from src.methods.linear_probe import cross_entropy

TEMPERATURES = (-5.0, 5.0)
"""Between which tau is looked for where no gradient leads to it."""


class Pairs:
    """Pairs with labels, as a model takes them.

    Args:
        split: of which the `rows` are taken.
        labels: (n,) P(chosen preferred to rejected) of every pair of the split.
    """

    def __init__(self, split: TokenisedSplit, rows: np.ndarray, labels: np.ndarray,
                 runtime: RuntimeConfig, pad_token_id: int):
        self.rows = rows
        self.data = PairDataset(split, labels, runtime.share_prompt)
        self.collator = TreeCollator(pad_token_id, runtime.pack)
        self._budget = Budget(fewest_tokens(runtime), runtime.pack)
        self.labels = self.data.labels[rows]
        """(m,) P(left preferred to right)."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, rows: np.ndarray, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The rows of the split in as few forwards as their tokens allow."""
        for micro in micro_batches(self.data.trees, rows, self._budget, 0, 1):
            batch = self.collator.collate(self.data.read(*micro))
            yield {name: value.to(device) for name, value in batch.items()}

    @torch.no_grad()
    def read(self, model: PreTrainedModel, states: bool = False) -> np.ndarray:
        """(m,) margins of left over right, or with `states` (m, d) what they are read from."""
        device = next(model.parameters()).device
        found = {}
        for batch in self.batches(self.rows, device):
            values = model(**inputs_of(batch), with_states=states)
            values = (values[1] if states else values).flatten(0, 1)
            differences = values[batch["left"]] - values[batch["right"]]
            found |= dict(zip(batch["row"].tolist(), differences.cpu().numpy(), strict=True))
        return np.stack([found[row] for row in self.rows.tolist()])


EXTRA = ("left", "right", "labels", "weights", "row")


def inputs_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a batch the model's forward takes."""
    return {name: value for name, value in batch.items() if name not in EXTRA}


def backward(model: PreTrainedModel, batch: dict[str, Tensor], tau: Tensor, total: int) -> float:
    """The batch's share of the mean cross-entropy, and its gradient in the model and in tau."""
    rewards = model(**inputs_of(batch)).flatten()
    margins = rewards[batch["left"]] - rewards[batch["right"]]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        tau.exp().to(margins.device) * margins, batch["labels"], reduction="sum") / total
    loss.backward()
    return loss.item()


def judged(model: PreTrainedModel, pairs: Pairs) -> tuple[float, float]:
    """The least cross-entropy over temperatures, and the tau that has it."""
    margins, labels = pairs.read(model).astype(np.float64), pairs.labels.astype(np.float64)
    found = minimize_scalar(lambda tau: cross_entropy(np.exp(tau) * margins, labels),
                            bounds=TEMPERATURES, method="bounded")
    return float(found.fun), float(found.x)


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of `count` rows, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def shuffled(rows: np.ndarray, size: int, steps: int, seed: int) -> Iterator[Sequence[int]]:
    """`size` rows for each of so many steps: every row once before any comes again."""
    draw, queue = np.random.default_rng(seed), np.zeros(0, int)
    size = min(size, len(rows))
    for _ in range(steps):
        if len(queue) < size:
            queue = np.concatenate([queue, draw.permutation(rows)])
        taken, queue = queue[:size], queue[size:]
        yield np.unique(taken)
