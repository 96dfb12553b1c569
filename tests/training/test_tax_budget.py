"""Adaptive averages under a tax budget: it is kept as measured, and binds only where it must."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from configs.averaging import Adaptive, Recipe
from configs.schema import AverageConfig, RuntimeConfig
from configs.strict_yaml import from_dict
from model.base.language_head import language_head
from model.base.truncate import decoder_layers
from model.reward_model import build_reward_model
from src.common.errors import UserError
from src.methods.block_ratios import free
from src.methods.log_odds import sigmoid
from src.runs.averages import recipes_of
from src.training.averaging.learn import learn
from src.training.averaging.mixer import Mixer
from src.training.averaging.objective import Pairs, judged
from src.training.averaging.tax import Tax, training_texts
from tests.families import LAYERS, PAD, save_base
from tests.tiny_experiment import make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.tiny_pairs import random_pairs

RUNTIME = RuntimeConfig(micro_batch_tokens=512, last_layer_shortcut=False)
RULE = Adaptive(steps=80, learning_rate=0.2, tax_budget=0.0)
RECIPE = Recipe("held", blocks=3, alphas=(0.5,), adaptive=RULE)


def under(budget: float, **changes) -> Recipe:
    return dataclasses.replace(RECIPE, adaptive=dataclasses.replace(
        RULE, tax_budget=budget, **changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base that can foretell its texts, a model tuned away from it in each layer, labels of the
    tuned model, and what measures the tax."""
    path = save_base(tmp_path_factory.mktemp("held"), "llama", noise=0.1)
    split = random_pairs(24)
    texts = training_texts(split)
    _learn_by_heart(path, texts)
    base, tuned = (build_reward_model(path, tuple(range(LAYERS)), 0, pad_token_id=PAD,
                                      last_layer_shortcut=False).eval() for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in decoder_layers(tuned):
            for own in layer.parameters():
                own.add_(0.05 * torch.randn(own.shape, generator=generator))
    margins = Pairs(split, np.arange(24), np.ones(24), RUNTIME, PAD).read(tuned)
    pairs = Pairs(split, np.arange(24), np.ones(24), RUNTIME, PAD)
    left = sigmoid(3 * margins / margins.std())
    pairs = Pairs(split, np.arange(24), np.where(pairs.data.left_is_chosen, left, 1 - left),
                  RUNTIME, PAD)
    return path, base, tuned, pairs, Tax(texts, language_head(path), base, RUNTIME)


def _learn_by_heart(path, texts) -> None:
    """The language model of the folder, trained on the texts until there is something to lose."""
    model = AutoModelForCausalLM.from_pretrained(path)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    rows = [torch.tensor(np.concatenate(texts.ids([row] * 2, [0, 1])))
            for row in range(len(texts))]
    for _ in range(12):
        for start in range(0, len(rows), 16):
            own = rows[start : start + 16]
            ids = torch.nn.utils.rnn.pad_sequence(own, True, PAD).long()
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in own], True)
            model(input_ids=ids, attention_mask=mask.long(),
                  labels=ids.masked_fill(mask == 0, -100)).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    model.save_pretrained(path)


def test_the_tax_is_that_of_the_library_s_own_language_model(world):
    path, base, tuned, _, tax = world
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    found = {}
    for name, trunk in (("base", base), ("tuned", tuned)):
        model.model.load_state_dict(trunk.model.state_dict())
        nats, tokens = 0.0, 0
        for row in range(len(tax._texts)):
            ids = torch.tensor(np.concatenate(tax._texts.ids([row] * 2, [0, 1]))).long()[None]
            with torch.no_grad():
                nats += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
        found[name] = nats / tokens
    assert tax.tokens == tokens and tax.base == pytest.approx(found["base"], abs=1e-5)
    assert tax.of(tuned) == pytest.approx(found["tuned"] - found["base"], abs=1e-5)
    assert tax.of(tuned) > 0.1 and tax.of(base) == 0


def test_its_gradient_is_that_of_finite_differences(world):
    _, base, tuned, _, tax = world
    mixer, at, step = Mixer(RECIPE, base, tuned), np.array([0.3, 0.6, 0.5]), 2e-3
    model = mixer.mix(at)
    model.zero_grad()
    assert tax.backward(model, 1.0) == pytest.approx(tax.of(model), abs=1e-6)
    found = mixer.slope().tolist()
    expected = [(tax.of(mixer.mix(at + step * one)) - tax.of(mixer.mix(at - step * one)))
                / (2 * step) for one in np.eye(3)]
    assert found == pytest.approx(expected, rel=0.02, abs=1e-3) and max(found) < 0


@pytest.mark.parametrize("solver", ["gradient", "grid"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_budget_is_kept_as_measured_and_used(world, solver, share):
    _, base, tuned, pairs, tax = world
    budget = share * tax.of(tuned)
    learned = learn(under(budget, solver=solver, grid_steps=6), base, tuned, pairs, tax=tax)
    measured = tax.of(Mixer(RECIPE, base, tuned).mix(np.array(learned.recipe.alphas)))
    assert learned.tax == measured <= budget
    assert measured > (0.95 if solver == "gradient" else 0.5) * budget
    assert learned.recipe.adaptive is None and all(0 <= a <= 1 for a in learned.recipe.alphas)


def test_gradients_find_what_a_grid_finds(world):
    _, base, tuned, pairs, tax = world
    mixer, budget = Mixer(RECIPE, base, tuned), 0.3 * tax.of(tuned)

    def objective(learned):
        return judged(mixer.mix(np.array(learned.recipe.alphas)), pairs)[0]

    by_gradient = learn(under(budget), base, tuned, pairs, tax=tax)
    by_grid = learn(under(budget, solver="grid", grid_steps=10), base, tuned, pairs, tax=tax)
    allowed = [each for each in by_grid.log if each["tax"] <= budget]
    best, worst = (pick(each["objective"] for each in allowed) for pick in (min, max))
    assert objective(by_grid) == best
    assert objective(by_gradient) - best < 0.05 * (worst - best)


@pytest.mark.parametrize("solver", ["gradient", "grid"])
def test_a_budget_of_the_students_own_tax_leaves_the_optimum_alone(world, solver):
    _, base, tuned, pairs, tax = world
    at_all, own = (learn(under(budget, solver=solver, grid_steps=5), base, tuned, pairs, tax=tax)
                   for budget in (1e9, tax.of(tuned)))
    assert own.recipe.alphas == at_all.recipe.alphas and own.tau == at_all.tau
    assert max(own.recipe.alphas) < 0.2  # the labels are the tuned model's own


@pytest.mark.parametrize("solver", ["gradient", "grid"])
def test_a_budget_of_nothing_is_the_base(world, solver):
    _, base, tuned, pairs, tax = world
    learned = learn(under(0.0, solver=solver, grid_steps=4), base, tuned, pairs, tax=tax)
    assert learned.tax <= 0 and min(learned.recipe.alphas) > 0.95


def test_a_budget_that_not_even_the_most_of_the_base_keeps_is_refused(world):
    _, base, tuned, pairs, tax = world
    with pytest.raises(UserError, match="tax_budget 0.001: with 0.6 of the base in every block"):
        learn(under(0.001, high=0.6), base, tuned, pairs, tax=tax)


def test_a_base_without_its_language_head_is_refused_before_anything_is_trained(tmp_path):
    recipe = tmp_path / "held.yaml"
    recipe.write_text("{alphas: [0.4], adaptive: {tax_budget: 0.1}}")
    tiny = make_experiment(tmp_path, averages=[{"recipe": str(recipe)}])
    prepare_data(tiny)
    sweep_of(tiny)
    AutoModel.from_pretrained(tiny.model).save_pretrained(tiny.model)  # the trunk alone
    with pytest.raises(UserError, match="no language head, so the tax that recipe held holds"):
        sweep_of(tiny)


def test_a_budget_is_not_swept_by_means(tmp_path):
    recipe = tmp_path / "held.yaml"
    recipe.write_text("{alphas: [0.4], adaptive: {tax_budget: 0.1}}")
    with pytest.raises(UserError, match="write a recipe for each budget"):
        recipes_of([AverageConfig(str(recipe), alphas=(0.2, 0.4))], "experiments/x")


def test_no_label_says_which_texts_are_read():
    split = random_pairs(6)
    texts = training_texts(split, most=3)
    found = sorted(np.concatenate(texts.ids([row] * 2, [0, 1])).tolist()
                   for row in range(len(texts)))
    expected = sorted([*split.ids([row], [0])[0], *split.ids([row], [side])[0]]
                      for row in (0, 2, 5) for side in (1, 2))
    assert found == expected


def test_scores_of_nothing_are_where_learning_begins():
    assert free(torch.zeros(3, dtype=torch.float64), 0.3, 0.1, 0.6).tolist() == pytest.approx(
        [0.3] * 3)


@pytest.mark.parametrize("changes, words", [
    ({"adaptive": {"tax_budget": -0.1}}, "tax_budget"),
    ({"adaptive": {"tax_budget": 0.1, "form": "published"}}, "tax_budget 0.1 takes the place"),
    ({"alphas": [0.0], "adaptive": {"tax_budget": 0.1}}, "learning begins there"),
])
def test_what_cannot_be_held_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        from_dict(Recipe, {"name": "held", "alphas": [0.5], **changes}, "held.yaml")
