"""Adam on one number a block and on the temperature: what learns ratios by gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.averaging import Recipe
from src.training.averaging.mixer import Mixer
from src.training.averaging.objective import Pairs, backward, shuffled

Show = Callable[[list], list]


@dataclass(frozen=True)
class Learned:
    """What came out."""

    recipe: Recipe
    """With a ratio for each block, and nothing left to learn."""
    tau: float
    log: list[dict[str, object]]
    """A line a step, or a point of the grid: the objective and the ratios."""
    tax: float | None = None
    """Under a tax budget: nats a token, as measured of this average."""


def descend(recipe: Recipe, mixer: Mixer, pairs: Pairs, ratios: Callable[[Tensor], Tensor],
            shares: Tensor, seed: int, show: Show,
            also: Callable[[PreTrainedModel], dict[str, float]] | None = None) -> Learned:
    """The recipe with the ratios of the last step.

    Args:
        ratios: (K,) float64 free numbers -> (K,) ratios, differentiable.
        shares: (K,) what each block counts in the penalty.
        also: adds the gradient of something else to the model, and gives what its line says of it.
    """
    rule, mean = recipe.adaptive, recipe.alphas[0]
    scores = torch.zeros(len(shares), dtype=torch.float64, requires_grad=True)
    tau = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([scores, tau], lr=rule.learning_rate)
    log, steps = [], shuffled(pairs.rows, rule.batch_pairs, rule.steps, seed)
    for step, rows in enumerate(show(list(steps))):
        optimiser.zero_grad()
        alphas = ratios(scores)
        model = mixer.mix(alphas.detach().numpy())
        model.zero_grad()
        value = sum(backward(model, batch, tau, len(rows))
                    for batch in pairs.batches(rows, next(model.parameters()).device))
        more = also(model) if also else {}
        penalty = rule.penalty * (shares * (alphas - mean).abs()).sum()
        ((alphas * mixer.slope()).sum() + penalty).backward()
        optimiser.step()
        log.append({**line(step, value + penalty.item(), alphas.detach().numpy()), **more})
    return Learned(mixer.recipe(ratios(scores).detach().numpy()), tau.item(), log)


def line(step: int, value: float, alphas: np.ndarray) -> dict[str, object]:
    """Of a log."""
    return {"step": step, "objective": float(value), "alphas": [float(a) for a in alphas]}
