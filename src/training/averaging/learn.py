"""The ratios of an adaptive average, learned: Adam on one number a block, or a grid.

    J = mean over pairs of cross-entropy(q, sigmoid(exp(tau) * margin of the average))
        + penalty * sum m_k |a_k - mean|

q are labels of pairs that did not train the tuned model, never human ones but under the name of an
oracle. tau is learned with the ratios: averaging shrinks rewards, and without it their scale would
be fitted in place of their order. After arXiv 2309.06256, B.1, which maximises a likelihood of the
tuned model's own answers instead, at a fixed mean; see within_budget.py for a fixed tax.
"""

import functools

import numpy as np
import torch
from transformers import PreTrainedModel

from configs.averaging import Recipe
from src.methods.block_ratios import bounded, grid, published, require_published
from src.training.averaging.descent import Learned, Show, descend, line
from src.training.averaging.mixer import Mixer
from src.training.averaging.objective import Pairs, judged
from src.training.averaging.tax import Tax
from src.training.averaging.within_budget import within_budget


def learn(recipe: Recipe, base: PreTrainedModel, tuned: PreTrainedModel, pairs: Pairs,
          seed: int = 0, show: Show = iter, tax: Tax | None = None) -> Learned:
    """The recipe with ratios that predict the pairs' labels best.

    Args:
        base, tuned: reward models of one shape, on one device.
        seed: of the order that steps take pairs in.
        tax: what measures it, for a recipe with a tax budget.
    Raises:
        UserError: a published form that could leave 0 to 1; a grid of too many points; a tax budget
            that not even the most of the base keeps.
    """
    rule, mean = recipe.adaptive, recipe.alphas[0]
    mixer = Mixer(recipe, base, tuned)
    equal = rule.counted == "equal" or rule.form == "published"
    counted = np.ones(len(mixer.sizes)) if equal else mixer.sizes
    counted = counted / counted.sum()
    if rule.tax_budget is not None:
        return within_budget(recipe, mixer, pairs, tax, counted, seed, show)
    if rule.form == "published":
        require_published(len(counted), mean, rule.eps)
    if len(counted) == 1 or mean in (0, 1, rule.low, rule.high):  # nothing to choose
        alphas = np.full(len(counted), mean)
        value, tau = judged(mixer.mix(alphas), pairs)
        return Learned(mixer.recipe(alphas), tau, [line(0, value, alphas)])
    if rule.solver == "grid":
        return _by_grid(recipe, mixer, pairs, counted, show)
    shares = torch.from_numpy(counted)
    ratios = (functools.partial(published, mean=mean, eps=rule.eps) if rule.form == "published" else
              functools.partial(bounded, counted=shares, mean=mean, low=rule.low, high=rule.high))
    return descend(recipe, mixer, pairs, ratios, shares, seed, show)


def _by_grid(recipe: Recipe, mixer: Mixer, pairs: Pairs, counted: np.ndarray,
             show: Show) -> Learned:
    rule, mean = recipe.adaptive, recipe.alphas[0]
    points = grid(counted, mean, rule.low, rule.high, rule.grid_steps)
    log, best = [], None
    for number, alphas in enumerate(show(list(points))):
        value, tau = judged(mixer.mix(alphas), pairs)
        value += rule.penalty * float(counted @ np.abs(alphas - mean))
        log.append(line(number, value, alphas))
        if best is None or value < best[0]:
            best = value, tau, alphas
    return Learned(mixer.recipe(best[2]), best[1], log)
