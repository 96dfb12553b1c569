"""Averages of a base and what was tuned from it: nested, exact at both ends, whole or not made."""

import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.averaging import FOLDER, Recipe, load_recipe, published
from model.base.average import folders
from model.base.average.folders import average_folders
from model.base.average.mix import averaged_model, mixed
from model.base.average.stream import PIECE, places, write_tensors
from model.reward_model import build_reward_model, load_reward_model
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.memory import peak_memory_mib, reset_peak
from tests.families import FAMILIES, LAYERS, PAD, save_base

UNIFORM = Recipe("uniform", alphas=(0.3,))
IDS = torch.arange(12).view(2, 6) % PAD


def save_tuned(folder: Path, base: Path, kept: tuple[int, ...] = tuple(range(LAYERS)),
               noise: float = 0.05) -> Path:
    """A reward model as training would leave it: the base's kept layers, moved a little."""
    model = build_reward_model(base, kept, 0, pad_token_id=PAD)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("llama")
    base = save_base(folder / "base", "llama")
    return base, save_tuned(folder / "tuned", base)


def plain(folder: Path) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_of_0_gives_the_tuned_rewards_and_a_of_1_the_bases_tensors_bit_for_bit(family, tmp_path):
    base = save_base(tmp_path / "base", family)
    tuned = save_tuned(tmp_path / "tuned", base)
    average_folders(base, tuned, Recipe("tuned", alphas=(0.0,)), tmp_path / "0")
    assert torch.equal(plain(tmp_path / "0"), plain(tuned))
    average_folders(base, tuned, Recipe("base", alphas=(1.0,)), tmp_path / "1")
    fresh, made = build_reward_model(base, tuple(range(LAYERS)), 0, pad_token_id=PAD), load_file(
        tmp_path / "1" / "model.safetensors")
    head = load_file(tuned / "model.safetensors")["score.weight"]
    expected = fresh.state_dict() | {"score.weight": head}
    assert all(torch.equal(made[name], expected[name]) for name in made)
    assert set(made) == set(expected)


def test_equal_alphas_of_any_blocks_are_uniform_to_the_last_bit(llama, tmp_path):
    base, tuned = llama
    average_folders(base, tuned, UNIFORM, tmp_path / "uniform")
    for name, blocks in (("three", 3), ("each", "each"), ("bounds", (0, 3))):
        recipe = Recipe(name, blocks=blocks, alphas=(0.3,), embed="first", final_norm="last")
        average_folders(base, tuned, recipe, tmp_path / name)
        assert (tmp_path / name / "model.safetensors").read_bytes() == (
            tmp_path / "uniform" / "model.safetensors").read_bytes()


def test_each_tensor_gets_the_share_of_its_block():
    recipe = Recipe("r", blocks=(1, 3), alphas=(0.4, 0.3, 0.2), embed=0.9, final_norm="last")
    names = [f"model.layers.{layer}.input_layernorm.weight" for layer in range(6)]
    found = recipe.weights([*names, "model.embed_tokens.weight", "model.norm.weight",
                            "lm_head.weight", "score.weight"], 6)
    assert [found[name] for name in names] == [0.4, 0.4, 0.3, 0.3, 0.2, 0.2]  # bounds inclusive
    assert list(found.values())[6:] == [0.9, 0.2, pytest.approx(0.3), 0.0]


def test_a_tensor_that_no_rule_knows_is_refused():
    with pytest.raises(UserError, match="model.layers_norm.weight.*has to be decided"):
        UNIFORM.weights(["model.layers_norm.weight"], 2)


def test_the_published_strings_are_read_and_written_as_yaml():
    recipe = published("split|10#20|0.4|0.3|0.2")
    assert recipe.of_layers(26) == (0.4,) * 11 + (0.3,) * 10 + (0.2,) * 5
    assert recipe.weights(["wte.weight"], 26) == {"wte.weight": 0.4}
    for wrong in ("split|10|0.4|0.3|0.2", "split|x|0.4|0.3", "split|10#20", "split|1|0.4|1.3"):
        with pytest.raises(UserError, match=r"split\|"):
            published(wrong)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_every_committed_recipe_is_read(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("facts, told", [
    ({"alphas": [1.2]}, "at most 1"), ({"alphas": [-0.1]}, "at least 0"),
    ({"alphas": [0.1, 0.2], "blocks": 3}, "2 alphas for 3 blocks"),
    ({"alphas": [0.1, 0.2], "blocks": [3, 2]}, "ascending"),
    ({"alphas": [0.1, 0.2], "adaptive": {}}, "an adaptive recipe has one")])
def test_impossible_recipes_are_refused(facts, told):
    with pytest.raises(UserError, match=told):
        Recipe("wrong", **facts)


def test_blocks_that_the_model_has_no_layers_for_are_refused():
    for blocks in (7, (5,), (2, 9)):
        with pytest.raises(UserError, match="recipe r"):
            Recipe("r", blocks=blocks, alphas=(0.1,)).of_layers(6)


def test_a_cut_reward_model_is_averaged_with_the_layers_it_was_cut_from(tmp_path):
    base = save_base(tmp_path / "base", "qwen3")
    tuned = save_tuned(tmp_path / "tuned", base, kept=(1, 3, 5))
    with pytest.raises(UserError, match="3 layers and .* 6: say which"):
        average_folders(base, tuned, UNIFORM, tmp_path / "out")
    average_folders(base, tuned, Recipe("base", alphas=(1.0,)), tmp_path / "out", kept=(1, 3, 5))
    made, whole = load_file(tmp_path / "out" / "model.safetensors"), load_file(
        base / "model.safetensors")
    name = "model.layers.{}.self_attn.q_norm.weight"
    assert all(torch.equal(made[name.format(new)], whole[name.format(old)])
               for new, old in enumerate((1, 3, 5)))
    (tuned / "config.yaml").write_text("kept: [1, 3, 5]\n")  # as a run's folder says
    average_folders(base, tuned, UNIFORM, tmp_path / "again")
    merge = yaml.safe_load((tmp_path / "again" / "mergekit.yaml").read_text())
    assert [each["sources"][0]["layer_range"] for each in merge["slices"]] == [[1, 2], [3, 4],
                                                                              [5, 6]]


def test_an_average_in_memory_is_the_exported_one(llama, tmp_path):
    base, tuned = llama
    recipe = Recipe("r", blocks=3, alphas=(0.9, 0.5, 0.1))
    average_folders(base, tuned, recipe, tmp_path / "out")
    model = load_reward_model(tuned)
    fresh = build_reward_model(base, tuple(range(LAYERS)), 0, pad_token_id=PAD)
    names = [name for name, _ in model.named_parameters()]
    average = averaged_model(fresh, model, recipe.weights(names, LAYERS))
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(made[name], value) for name, value in average.state_dict().items())
    assert not torch.equal(made["model.norm.weight"], model.state_dict()["model.norm.weight"])


@pytest.mark.parametrize("tied", [True, False])
def test_language_models_are_averaged_with_their_heads_tied_or_not(tied, tmp_path):
    folders = [save_base(tmp_path / str(seed), "llama", seed, tie_word_embeddings=tied)
               for seed in (0, 1)]
    average_folders(*folders, UNIFORM, tmp_path / "out")
    made, *models = (AutoModelForCausalLM.from_pretrained(each) for each in
                     (tmp_path / "out", *folders))
    for name, value in made.state_dict().items():
        base, tuned = (model.state_dict()[name] for model in models)
        assert torch.equal(value, mixed(base, tuned, 0.3)), name


def test_other_keys_and_shapes_are_refused(llama, tmp_path):
    base, tuned = llama
    wider = save_base(tmp_path / "wider", "llama", vocab_size=64)
    with pytest.raises(UserError, match="embed_tokens.weight is .*64, 16.* resized"):
        average_folders(wider, tuned, UNIFORM, tmp_path / "out")
    with pytest.raises(UserError, match="model_type 'gemma'"):
        average_folders(save_base(tmp_path / "gemma", "gemma"), tuned, UNIFORM, tmp_path / "out")
    biased = save_base(tmp_path / "biased", "llama", attention_bias=True)
    with pytest.raises(UserError, match="lacks .* tensors of"):
        average_folders(biased, tuned, UNIFORM, tmp_path / "out")
    with pytest.raises(UserError, match="has no tensor"):
        average_folders(base, save_tuned(tmp_path / "bias", biased), UNIFORM, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_a_place_that_holds_something_is_not_touched(llama, tmp_path):
    base, tuned = llama
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not ours"):
        average_folders(base, tuned, UNIFORM, tmp_path / "out")
    average_folders(base, tuned, UNIFORM, tmp_path / "new")
    with pytest.raises(UserError, match="averaged model already"):
        average_folders(base, tuned, UNIFORM, tmp_path / "new")


def test_the_second_of_two_launches_at_one_place_writes_nothing_over(llama, tmp_path, monkeypatch):
    base, tuned = llama
    real = folders.lock

    @contextmanager
    def waited_for(path, *words):
        monkeypatch.setattr(folders, "lock", real)
        average_folders(base, tuned, UNIFORM, tmp_path / "out")
        with real(path, *words):
            yield

    monkeypatch.setattr(folders, "lock", waited_for)
    with pytest.raises(UserError, match="averaged model already"):
        average_folders(base, tuned, UNIFORM, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_weights_that_were_rounded_to_16_bits_are_warned_of(llama, tmp_path):
    base, tuned = llama
    assert average_folders(base, tuned, UNIFORM, tmp_path / "fp32") == ""
    model = AutoModelForSequenceClassification.from_pretrained(tuned, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "bf16")
    warning = average_folders(base, tmp_path / "bf16", UNIFORM, tmp_path / "out")
    before, after = load_file(base / "model.safetensors"), load_file(
        tmp_path / "bf16" / "model.safetensors")
    names = [name for name in after if name in before]
    moved = sum((before[name] - after[name].float()).abs().sum() for name in names)
    steps = sum((2 ** (after[name].float().abs().log2().floor() - 7)).sum() for name in names)
    assert f"is {moved / steps:.2g} of the step" in warning


def test_a_file_in_pieces_is_the_librarys_file(tmp_path):
    tensors = {"long": torch.randn(3, PIECE // 2 + 5), "scalar": torch.tensor(2.0),
               "empty": torch.zeros(0, 4)}
    write_tensors(tmp_path / "ours.safetensors",
                  {name: tuple(value.shape) for name, value in tensors.items()},
                  ([value.flatten()] for value in tensors.values()))
    read = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
    save_file(tensors, tmp_path / "model.safetensors")
    assert {name: place.shape for name, place in places(tmp_path).items()} == {
        name: tuple(value.shape) for name, value in tensors.items()}


def test_of_a_table_of_tokens_only_pieces_are_in_memory(tmp_path):
    model = save_base(tmp_path / "model", "llama", vocab_size=1_200_000, hidden_size=32,
                      num_hidden_layers=1, tie_word_embeddings=True)
    table = max(place.elements for place in places(model).values()) * 4 / 2**20
    gc.collect()
    reset_peak()
    before = peak_memory_mib()
    average_folders(model, model, UNIFORM, tmp_path / "out")
    grown = peak_memory_mib() - before
    assert grown < 8 * PIECE * 4 / 2**20 < table


def test_a_kill_in_the_middle_leaves_nothing_that_loads(llama, tmp_path):
    base, tuned = llama
    script = ("import os, signal, sys; from pathlib import Path\n"
              "from configs.averaging import Recipe\n"
              "from model.base.average import folders\n"
              "def killed(found):\n"
              "    for number, each in enumerate(found):\n"
              "        if number == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
              "        yield each\n"
              "folders.average_folders(*map(Path, sys.argv[1:3]), Recipe('r', alphas=(0.3,)),\n"
              "                        Path(sys.argv[3]), show=killed)\n")
    words = [sys.executable, "-c", script, base, tuned, tmp_path / "out"]
    ended = subprocess.run(words, cwd=REPO_ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    left = list(tmp_path.glob(".out.partial/*"))
    assert left and not (tmp_path / "out").exists()
    assert not any(path.name == "config.json" for path in left)
    average_folders(base, tuned, UNIFORM, tmp_path / "out")  # goes on, and leaves no rest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
