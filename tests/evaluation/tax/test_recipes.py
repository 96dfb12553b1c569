"""Which averages a front is made of."""

import dataclasses

import numpy as np
import pytest

from src.evaluation.tax.recipes import REST, averages, block_bounds
from tests.tiny_experiment_parts import sweep_of


@pytest.fixture
def student(finished):
    return next(run for run in sweep_of(finished).stage("students") if len(run.kept) == 4)


def test_blocks_are_of_the_layers_that_train(student):
    assert block_bounds(student) == (0, 1)
    top = dataclasses.replace(student, train=dataclasses.replace(student.train,
                                                                 trainable_layers=2))
    assert block_bounds(top) == (2,)
    assert [one.place for one in averages(top) if one.family == "one_block"] == [
        "layer 3", "layer 4", REST]


def test_ends_are_the_models_and_uniform_has_one_share_everywhere(student):
    names = ["model.embed_tokens.weight", "model.norm.weight", "score.weight",
             *(f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4))]
    for one in [one for one in averages(student) if one.recipe.adaptive is None]:
        shares = one.recipe.weights(names, 4)
        assert shares.pop("score.weight") == 0
        if one.family in ("tuned", "base", "uniform"):
            assert set(shares.values()) == {one.mean}
    assert [one.mean for one in averages(student)][:3] == [0, 1, 0.2]


def test_part_wise_families_have_the_mean_that_they_are_called_by(student):
    for one in averages(student):
        if one.family.startswith("part_wise"):
            lowest, *_, highest = one.recipe.alphas
            assert np.mean(one.recipe.alphas) == pytest.approx(one.mean)
            assert (lowest > highest) == (one.family == "part_wise_bottom")
            assert one.recipe.embed == one.recipe.final_norm == pytest.approx(one.mean)
