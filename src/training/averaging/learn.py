"""The ratios of an adaptive average, learned: Adam on one number a block, or a grid.

    J = mean over pairs of cross-entropy(q, sigmoid(exp(tau) * margin of the average))
        + penalty * sum m_k |a_k - mean|

q are labels of pairs that did not train the tuned model, never human ones but under the name of an
oracle. tau is learned with the ratios: averaging shrinks rewards, and without it their scale would
be fitted in place of their order. After arXiv 2309.06256, B.1, which maximises a likelihood of the
tuned model's own answers instead.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from transformers import PreTrainedModel

from configs.averaging import PREFIX, Recipe
from model.base.average.mix import averaged_model, mix_into
from src.methods.block_ratios import bounded, grid, published, require_published
from src.methods.linear_probe import cross_entropy
from src.training.averaging.objective import Pairs, inputs_of, shuffled

TEMPERATURES = (-5.0, 5.0)
"""Between which a grid looks for tau."""
Show = Callable[[list], list]


@dataclass(frozen=True)
class Learned:
    """What came out."""

    recipe: Recipe
    """With a ratio for each block, and nothing left to learn."""
    tau: float
    log: list[dict[str, object]]
    """A line a step, or a point of the grid: the objective and the ratios."""


class Mixer:
    """One model that is overwritten with an average of two after the other."""

    def __init__(self, recipe: Recipe, base: PreTrainedModel, tuned: PreTrainedModel):
        self.base, self.tuned = base, tuned
        self.layers = tuned.config.num_hidden_layers
        bounds = recipe.bounds(self.layers)
        self.sizes = np.diff([-1, *bounds])
        self._plain = dataclasses.replace(recipe, blocks=bounds[:-1], adaptive=None)
        self._names = [name for name, _ in tuned.named_parameters()]
        nothing = self.weights(np.zeros(len(bounds)))
        self._slopes = {name: [one[name] - nothing[name] for one in map(
            self.weights, np.eye(len(bounds)))] for name in self._names}
        self.model = averaged_model(base, tuned, nothing).eval()

    def recipe(self, alphas: np.ndarray) -> Recipe:
        """With these ratios of blocks."""
        return dataclasses.replace(self._plain, alphas=tuple(map(float, alphas)))

    def weights(self, alphas: np.ndarray) -> dict[str, float]:
        return self.recipe(alphas).weights(self._names, self.layers)

    def mix(self, alphas: np.ndarray) -> PreTrainedModel:
        """The average with these ratios, until the next one."""
        mix_into(self.model, self.base, self.tuned, self.weights(alphas))
        return self.model

    def slope(self) -> Tensor:
        """(K,) float64: the derivative by each block's ratio, from that by every weight of the
        model: a tensor moves along base - tuned, at the rate that its policy takes of the block."""
        of_base = {PREFIX.sub("", name): value for name, value in self.base.state_dict().items()}
        tuned = dict(self.tuned.named_parameters())
        total = torch.zeros(len(self.sizes), dtype=torch.float64)
        for name, parameter in self.model.named_parameters():
            rates = self._slopes[name]
            if any(rates) and parameter.grad is not None:
                moved = of_base[PREFIX.sub("", name)] - tuned[name]
                total += (parameter.grad * moved).sum().double().cpu() * torch.tensor(
                    rates, dtype=torch.float64)
        return total


def learn(recipe: Recipe, base: PreTrainedModel, tuned: PreTrainedModel, pairs: Pairs,
          seed: int = 0, show: Show = iter) -> Learned:
    """The recipe with ratios that predict the pairs' labels best.

    Args:
        base, tuned: reward models of one shape, on one device.
        seed: of the order that steps take pairs in.
    Raises:
        UserError: a published form that could leave 0 to 1; a grid of too many points.
    """
    rule, mean = recipe.adaptive, recipe.alphas[0]
    mixer = Mixer(recipe, base, tuned)
    equal = rule.counted == "equal" or rule.form == "published"
    counted = np.ones(len(mixer.sizes)) if equal else mixer.sizes
    counted = counted / counted.sum()
    if rule.form == "published":
        require_published(len(counted), mean, rule.eps)
    if len(counted) == 1 or mean in (rule.low, rule.high):  # nothing to choose
        alphas = np.full(len(counted), mean)
        value, tau = _judged(mixer.mix(alphas), pairs)
        return Learned(mixer.recipe(alphas), tau, [_line(0, value, alphas)])
    by = _by_grid if rule.solver == "grid" else _by_gradient
    return by(recipe, mixer, pairs, counted, seed, show)


def _by_grid(recipe: Recipe, mixer: Mixer, pairs: Pairs, counted: np.ndarray, seed: int,
             show: Show) -> Learned:
    rule, mean = recipe.adaptive, recipe.alphas[0]
    points = grid(counted, mean, rule.low, rule.high, rule.grid_steps)
    log, best = [], None
    for number, alphas in enumerate(show(list(points))):
        value, tau = _judged(mixer.mix(alphas), pairs)
        value += rule.penalty * float(counted @ np.abs(alphas - mean))
        log.append(_line(number, value, alphas))
        if best is None or value < best[0]:
            best = value, tau, alphas
    return Learned(mixer.recipe(best[2]), best[1], log)


def _by_gradient(recipe: Recipe, mixer: Mixer, pairs: Pairs, counted: np.ndarray, seed: int,
                 show: Show) -> Learned:
    rule, mean = recipe.adaptive, recipe.alphas[0]
    scores = torch.zeros(len(counted), dtype=torch.float64, requires_grad=True)
    tau = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([scores, tau], lr=rule.learning_rate)
    shares = torch.from_numpy(counted)

    def ratios() -> Tensor:
        return (published(scores, mean, rule.eps) if rule.form == "published" else
                bounded(scores, shares, mean, rule.low, rule.high))

    log = []
    steps = shuffled(pairs.rows, rule.batch_pairs, rule.steps, seed)
    for step, rows in enumerate(show(list(steps))):
        optimiser.zero_grad()
        alphas = ratios()
        model = mixer.mix(alphas.detach().numpy())
        model.zero_grad()
        value = sum(backward(model, batch, tau, len(rows))
                    for batch in pairs.batches(rows, next(model.parameters()).device))
        penalty = rule.penalty * (shares * (alphas - mean).abs()).sum()
        ((alphas * mixer.slope()).sum() + penalty).backward()
        optimiser.step()
        log.append(_line(step, value + penalty.item(), alphas.detach().numpy()))
    return Learned(mixer.recipe(ratios().detach().numpy()), tau.item(), log)


def backward(model: PreTrainedModel, batch: dict[str, Tensor], tau: Tensor, total: int) -> float:
    """The batch's share of the mean cross-entropy, and its gradient in the model and in tau."""
    rewards = model(**inputs_of(batch)).flatten()
    margins = rewards[batch["left"]] - rewards[batch["right"]]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        tau.exp().to(margins.device) * margins, batch["labels"], reduction="sum") / total
    loss.backward()
    return loss.item()


def _judged(model: PreTrainedModel, pairs: Pairs) -> tuple[float, float]:
    """The least cross-entropy over temperatures, and the tau that has it."""
    margins, labels = pairs.read(model).astype(np.float64), pairs.labels.astype(np.float64)
    found = minimize_scalar(lambda tau: cross_entropy(np.exp(tau) * margins, labels),
                            bounds=TEMPERATURES, method="bounded")
    return float(found.fun), float(found.x)


def _line(step: int, value: float, alphas: np.ndarray) -> dict[str, object]:
    return {"step": step, "objective": float(value), "alphas": [float(a) for a in alphas]}
