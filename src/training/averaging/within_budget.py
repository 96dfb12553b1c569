"""Ratios of any mean whose average costs no more language than a budget.

    least J over low <= a_k <= high      such that tax(a) <= tax_budget

The tax is measured, not linearised: what the mean of the ratios stands for in the paper, at whose
equal two averages were found to differ by half a nat. Gradients first look for the optimum without
the constraint, which is the answer where it keeps the budget; else once more with a price on the
tax that rises while it is above the budget and falls below (dual ascent; the tax in units of the
first optimum's). The answer is then moved on the line to the first optimum, or back towards the
base, as far as the tax that is measured there allows.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from configs.averaging import Recipe
from src.common.errors import UserError
from src.methods.block_ratios import free, lattice
from src.training.averaging.descent import Learned, Show, descend, line
from src.training.averaging.mixer import Mixer
from src.training.averaging.objective import Pairs, judged
from src.training.averaging.tax import Tax

RISE, PULL = 0.1, 1.0
"""What a tax above the budget by the first optimum's adds to the price in each step, and to what is
paid in the next one alone."""
HALVINGS = 10


def within_budget(recipe: Recipe, mixer: Mixer, pairs: Pairs, tax: Tax, counted: np.ndarray,
                  seed: int, show: Show) -> Learned:
    """The recipe with the best ratios that keep its tax budget, as measured.

    Args:
        counted: (K,) what each block counts in the penalty; they sum to 1.
    Raises:
        UserError: a grid of too many points; not even the most of the base keeps the budget.
    """
    rule, most = recipe.adaptive, np.full(len(counted), recipe.adaptive.high)
    least = tax.of(mixer.mix(most))
    if least > rule.tax_budget:
        raise UserError(f"recipe {recipe.name}: tax_budget {rule.tax_budget}: with {rule.high} of "
                        f"the base in every block the tax is {least:.4f} nats a token: raise "
                        "tax_budget, high, or the shares of embed and final_norm")
    if rule.solver == "grid":
        return _by_grid(recipe, mixer, pairs, tax, counted, show)
    return _by_gradient(recipe, mixer, pairs, tax, counted, seed, show)


def _by_grid(recipe: Recipe, mixer: Mixer, pairs: Pairs, tax: Tax, counted: np.ndarray,
             show: Show) -> Learned:
    rule, log, best = recipe.adaptive, [], None
    points = lattice(len(counted), rule.low, rule.high, rule.grid_steps)
    for number, alphas in enumerate(show(list(points))):
        model = mixer.mix(alphas)
        cost = tax.of(model)
        value, tau = judged(model, pairs)
        value += rule.penalty * float(counted @ np.abs(alphas - recipe.alphas[0]))
        log.append({**line(number, value, alphas), "tax": cost})
        if cost <= rule.tax_budget and (best is None or value < best[0]):
            best = value, tau, alphas, cost
    return Learned(mixer.recipe(best[2]), best[1], log, best[3])


def _by_gradient(recipe: Recipe, mixer: Mixer, pairs: Pairs, tax: Tax, counted: np.ndarray,
                 seed: int, show: Show) -> Learned:
    rule, budget = recipe.adaptive, recipe.adaptive.tax_budget
    ratios = functools.partial(free, start=recipe.alphas[0], low=rule.low, high=rule.high)
    go = functools.partial(descend, recipe, mixer, pairs, ratios, torch.from_numpy(counted), seed,
                           show)
    freely, measured = go(), _measured(mixer, tax)
    best = np.array(freely.recipe.alphas)
    cost = measured(best)
    if cost <= budget:
        return dataclasses.replace(freely, tax=cost)
    held = go(_Price(tax, budget, cost).backward)
    alphas = np.array(held.recipe.alphas)
    inside, outside = ((alphas, best) if measured(alphas) <= budget else
                       (np.full(len(alphas), rule.high), alphas))
    alphas = _furthest(inside, outside, lambda each: measured(each) <= budget)
    _, tau = judged(mixer.mix(alphas), pairs)
    return Learned(mixer.recipe(alphas), tau, [*freely.log, *held.log], measured(alphas))


def _measured(mixer: Mixer, tax: Tax) -> Callable[[np.ndarray], float]:
    return lambda alphas: tax.of(mixer.mix(alphas))


class _Price:
    """Of the tax above the budget, in units of `unit`."""

    def __init__(self, tax: Tax, budget: float, unit: float):
        self.tax, self.budget, self.unit = tax, budget, unit
        self.price = self.paid = 0.0

    def backward(self, model: PreTrainedModel) -> dict[str, float]:
        """Adds the gradient of what is paid; what it costs now is the next step's price."""
        cost = self.tax.backward(model, self.paid / self.unit)
        above = (cost - self.budget) / self.unit
        self.price = max(0.0, self.price + RISE * above)
        self.paid = max(0.0, self.price + PULL * above)
        return {"tax": cost}


def _furthest(inside: np.ndarray, outside: np.ndarray,
              allowed: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The last point allowed on the way from one that is to one that is not, by bisection."""
    good, bad = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (good + bad) / 2
        if allowed(inside + middle * (outside - inside)):
            good = middle
        else:
            bad = middle
    return inside + good * (outside - inside)
