"""The back ends of attention on the same weights and the same packed row: rewards and gradients."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.reward_model import build_reward_model
from speed.mixes import MIXES, draw, write_split
from speed.shapes import Shape, write_model
from src.batches.collate import PairDataset, TreeCollator
from src.batches.packing import Budget, micro_batches
from src.common.distributed import device
from src.common.precision import computing

BACKENDS = ("dense", "flex", "varlen")
PAIRS = 8


class Gap(NamedTuple):
    """Of one back end to dense attention in the same precision."""

    backend: str
    rewards: float
    """The largest difference."""
    gradients: float
    """The norm of the difference over that of dense's, all parameters together."""


def gaps(shape: Shape, tokens: int, precision: str, folder: Path) -> list[Gap]:
    """Every other back end's.

    Args:
        tokens: of the row at most.
        folder: empty; for the model and the pairs.
    """
    base = write_model(shape, folder / "base", 0)
    split = write_split(draw(MIXES["multi_turn"], PAIRS, 0, shape.vocab), folder / "pairs.arrow")
    data = PairDataset(split, np.ones(len(split)))
    first = micro_batches(data.trees, np.arange(PAIRS), Budget(tokens, True), 0, 1)[0]
    batch = TreeCollator(shape.pad).collate(data.read(*first))
    found = {}
    with _backward_of_flex():
        for backend in BACKENDS:
            model = build_reward_model(base, tuple(range(shape.layers)), 0, pad_token_id=shape.pad,
                                       attention=backend, device=device())
            found[backend] = _rewards_and_gradients(model, batch, precision)
            del model
    rewards, gradients = found.pop("dense")
    return [Gap(backend, (other - rewards).abs().max().item(),
                ((own - gradients).norm() / gradients.norm()).item())
            for backend, (other, own) in found.items()]


def _rewards_and_gradients(model, batch: dict, precision: str) -> tuple[Tensor, Tensor]:
    """(R,) of the row, and (N,) of a pair's loss summed over the row, both on the CPU."""
    inputs = {name: batch[name].to(device()) for name in (
        "input_ids", "position_ids", "tree", "branch", "last_index", "host")}
    with computing(precision):
        rewards = model(**inputs).flatten()
    left, right = batch["left"].to(device()), batch["right"].to(device())
    torch.nn.functional.softplus(rewards[right] - rewards[left]).sum().backward()
    gradients = [parameter.grad.float().flatten().cpu() for parameter in model.parameters()
                 if parameter.grad is not None]
    return rewards.detach().float().cpu(), torch.cat(gradients)


@contextmanager
def _backward_of_flex() -> Iterator[None]:
    """Inside, FlexAttention has a backward on a CPU too: torch refuses it there, but uncompiled it
    is made of operations that have one."""
    module = sys.modules["torch.nn.attention.flex_attention"]
    asked = module._validate_device
    if device().type == "cpu":
        module._validate_device = lambda *given: None
    try:
        yield
    finally:
        module._validate_device = asked
