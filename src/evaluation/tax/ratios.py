"""Ratios of an adaptive average, learned as those of an average that is a run, and in memory."""

import dataclasses
import functools

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.averaging import PREFIX, Recipe
from src.common.precision import computing
from src.evaluation.tax.averaged import Arrays, Averaged
from src.runs.averages import average_of
from src.scoring.pairs import precision_of
from src.training.averaging.average_run import SPLIT, labels_of
from src.training.averaging.learn import learn
from src.training.averaging.objective import Pairs, spread


def with_ratios(averaged: Averaged, recipe: Recipe) -> Recipe:
    """The recipe with a share for each block, learned on the weak labels of pairs that did not
    train the run; the recipe itself where nothing is left to learn."""
    if recipe.adaptive is None:
        return recipe
    found = averaged.known("ratios", recipe, averaged.run.identity,
                           lambda: _learned(averaged, recipe))
    return dataclasses.replace(recipe, alphas=tuple(map(float, found["alphas"])), adaptive=None)


def _learned(averaged: Averaged, recipe: Recipe) -> Arrays:
    run, plan = average_of(averaged.run, recipe), averaged.plan
    split, (base, tuned) = plan.split(run, SPLIT), averaged.models
    pairs = Pairs(split, spread(len(split), recipe.adaptive.pairs),
                  labels_of(run, plan, averaged.runs_dir), plan.experiment.runtime,
                  tuned.config.pad_token_id)
    bar = functools.partial(tqdm, desc=run.display_name, unit="step", leave=False)
    _freeze_what_is_equal(base, tuned)
    with computing(precision_of(run), weights_change=True):
        learned = learn(recipe, base, tuned, pairs, run.seed, bar)
    return {"alphas": np.array(learned.recipe.alphas)}


def _freeze_what_is_equal(base: PreTrainedModel, tuned: PreTrainedModel) -> None:
    """Tensors that did not train are the same in every average: no gradient need reach them."""
    of_base = {PREFIX.sub("", name): value for name, value in base.state_dict().items()}
    for name, value in tuned.named_parameters():
        value.requires_grad_(not torch.equal(value, of_base[PREFIX.sub("", name)]))
