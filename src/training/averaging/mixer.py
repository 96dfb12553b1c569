"""One model in memory that is many averages of two after the other, and its slope in each ratio."""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.averaging import PREFIX, Recipe
from model.base.average.mix import averaged_model, mix_into


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
