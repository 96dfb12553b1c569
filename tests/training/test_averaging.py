"""Adaptive averages: noise goes back to the base, what is needed stays, a grid says the same."""

import dataclasses

import numpy as np
import pytest
import torch

from configs.averaging import Adaptive, Recipe
from configs.schema import RuntimeConfig
from model.base.truncate import decoder_layers
from model.reward_model import build_reward_model
from src.common.errors import UserError
from src.methods.log_odds import sigmoid
from src.scoring import labels
from src.training.averaging.average_run import labels_of
from src.training.averaging.learn import learn
from src.training.averaging.mixer import Mixer
from src.training.averaging.objective import Pairs, backward, shuffled
from tests.families import LAYERS, PAD, save_base
from tests.tiny_experiment import make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.tiny_pairs import random_pairs

ADAPTIVE = Recipe("adaptive", blocks=3, alphas=(1 / 3,), adaptive=Adaptive(
    steps=80, learning_rate=0.2))
RUNTIME = RuntimeConfig(micro_batch_tokens=512)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, and what was tuned from it: the lowest of three blocks moved by noise, the others to
    where the labels come from."""
    base_path = save_base(tmp_path_factory.mktemp("planted"), "llama", noise=0.1)
    base, tuned, truth = (build_reward_model(base_path, tuple(range(LAYERS)), 0, pad_token_id=PAD)
                          .eval() for _ in range(3))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for number, layer in enumerate(decoder_layers(tuned)):
            other = decoder_layers(truth)[number]
            for own, same in zip(layer.parameters(), other.parameters(), strict=True):
                if number < 2:
                    own.add_(0.05 * torch.randn(own.shape, generator=generator))
                else:
                    own.add_(0.05 * torch.randn(own.shape, generator=generator))
                    same.copy_(own)
    split = random_pairs(60)
    rows = np.arange(60)
    margins = Pairs(split, rows, np.ones(60), RUNTIME, PAD).read(truth)
    pairs = Pairs(split, rows, np.ones(60), RUNTIME, PAD)
    left = sigmoid(3 * margins / margins.std())
    pairs = Pairs(split, rows, np.where(pairs.data.left_is_chosen, left, 1 - left), RUNTIME, PAD)
    return base, tuned, pairs


def test_a_block_of_noise_goes_back_to_the_base_and_those_that_are_needed_stay(models):
    """The labels are those of (1, 0, 0), which has the mean: no ratios can be better."""
    base, tuned, pairs = models
    learned = learn(ADAPTIVE, base, tuned, pairs)
    noise, *needed = learned.recipe.alphas
    assert noise > 0.8 and max(needed) < 0.2
    assert np.mean(learned.recipe.alphas) == pytest.approx(1 / 3, abs=1e-9)
    assert learned.log[0]["alphas"] == pytest.approx([1 / 3] * 3, abs=1e-12)


def test_a_grid_finds_what_gradients_find(models):
    base, tuned, pairs = models
    rule = dataclasses.replace(ADAPTIVE.adaptive, solver="grid", grid_steps=6)
    by_grid = learn(dataclasses.replace(ADAPTIVE, adaptive=rule), base, tuned, pairs)
    assert by_grid.recipe.alphas == pytest.approx([1, 0, 0], abs=1e-12)
    by_gradient = learn(ADAPTIVE, base, tuned, pairs)
    uniform, best = by_grid.log[0]["objective"], min(each["objective"] for each in by_grid.log)
    assert uniform - by_gradient.log[-1]["objective"] > 0.9 * (uniform - best) > 0


def test_the_derivative_by_a_blocks_ratio_is_that_of_finite_differences(models):
    base, tuned, pairs = models
    recipe = dataclasses.replace(ADAPTIVE, embed="first")
    mixer, at = Mixer(recipe, base, tuned), np.array([0.3, 0.6, 0.5])

    def objective(alphas):
        margins = pairs.read(mixer.mix(alphas)).astype(np.float64)
        return float(np.mean(np.logaddexp(0, margins) - pairs.labels * margins))

    tau = torch.zeros((), requires_grad=True)
    model = mixer.mix(at)
    model.zero_grad()
    for batch in pairs.batches(pairs.rows, torch.device("cpu")):
        backward(model, batch, tau, len(pairs))
    step = 2e-3
    expected = [(objective(at + step * one) - objective(at - step * one)) / (2 * step)
                for one in np.eye(3)]
    assert mixer.slope().tolist() == pytest.approx(expected, rel=0.02, abs=2e-4)


def test_swapped_sides_and_labels_learn_the_same_ratios(models):
    base, tuned, pairs = models
    recipe = dataclasses.replace(ADAPTIVE, adaptive=Adaptive(steps=3))
    before = learn(recipe, base, tuned, pairs)
    other = Pairs(pairs.data.split, pairs.rows, np.ones(len(pairs)), RUNTIME, PAD)
    other.data.left_is_chosen = ~pairs.data.left_is_chosen
    other.data.labels = 1 - pairs.data.labels
    other.labels = 1 - pairs.labels
    after = learn(recipe, base, tuned, other)
    assert after.recipe.alphas == pytest.approx(before.recipe.alphas, abs=1e-6)
    assert after.tau == pytest.approx(before.tau, abs=1e-5)


def test_nothing_is_learned_where_the_mean_leaves_no_choice(models):
    base, tuned, pairs = models
    for mean in (0.0, 1.0):
        for rule in (ADAPTIVE.adaptive, Adaptive(steps=2, low=0.2, high=0.8)):
            recipe = dataclasses.replace(ADAPTIVE, alphas=(mean,), adaptive=rule)
            assert learn(recipe, base, tuned, pairs).recipe.alphas == (mean,) * 3


def test_a_published_form_that_could_extrapolate_is_refused(models):
    base, tuned, pairs = models
    rule = Adaptive(form="published", steps=2)
    learned = learn(dataclasses.replace(ADAPTIVE, alphas=(0.2,), adaptive=rule), base, tuned, pairs)
    assert np.mean(learned.recipe.alphas) == pytest.approx(0.2, abs=1e-9)
    with pytest.raises(UserError, match="above 1"):
        learn(dataclasses.replace(ADAPTIVE, alphas=(0.5,), adaptive=rule), base, tuned, pairs)


def test_an_average_is_labelled_by_whoever_taught_its_student(tmp_path, monkeypatch):
    """In a chain by the link before it: the student itself would agree with itself."""
    recipe, asked = tmp_path / "learned.yaml", []
    recipe.write_text("{alphas: [0.3], blocks: 2, adaptive: {target: weak}}")
    tiny = make_experiment(
        tmp_path, rows=120, train_pairs=32, layers=([1], [4]), averages=[{"recipe": str(recipe)}],
        methods=[{"name": "soft"}, {"name": "second", "after": "soft", "treatment": "relabel"},
                 {"name": "chain", "through": [{"model": str(tmp_path / "llama.yaml"),
                                                "layers": [2]}]}])
    prepare_data(tiny)
    plan = sweep_of(tiny)
    monkeypatch.setattr(labels.folders, "require_finished", lambda *_: tmp_path)
    monkeypatch.setattr(labels, "weak_labels_of", lambda folder, other, split, *_: (
        asked.append((other.kind, len(other.kept))), np.full(len(split), 0.7))[1])
    for run in plan.runs:
        if run.kind == "average":
            assert labels_of(run, plan, tiny.runs_dir) == pytest.approx(0.7)
    assert asked == [("teacher", 1), ("teacher", 1), ("student", 2)]


def test_steps_take_every_row_once_before_any_again():
    taken = list(shuffled(np.arange(10), 4, 5, seed=0))
    assert sorted(np.concatenate(taken).tolist()) == sorted([*range(10)] * 2)
    assert [rows.tolist() for rows in taken] == [
        rows.tolist() for rows in shuffled(np.arange(10), 4, 5, seed=0)]
