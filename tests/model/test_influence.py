"""Block influence: the library's own hidden states say the same, and it is measured once."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from configs.schema import ExperimentConfig, load_config
from model.base import influence
from model.base.influence import block_influence
from src.runs.cards import model_card
from src.runs.plan import Plan
from tests.families import FAMILIES, LAYERS

TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5]]


@pytest.fixture
def llama(base, tmp_path):
    return shutil.copytree(base("llama"), tmp_path / "base")


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_that_of_the_library_s_hidden_states(base, tmp_path, family):
    folder = shutil.copytree(base(family), tmp_path / "base")
    found = block_influence(folder, {}, TEXTS)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = torch.zeros(LAYERS - 1)
    for text in TEXTS:
        states = model(torch.tensor([text]), output_hidden_states=True).hidden_states
        for i in range(LAYERS - 1):  # behind the last one, the library's are normed
            a, b = states[i][0], states[i + 1][0]
            wanted[i] += (1 - (a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).sum()
    assert len(found) == LAYERS
    torch.testing.assert_close(torch.tensor(found[:-1]), wanted / 11, rtol=1e-4, atol=1e-6)


def test_a_layer_that_adds_nothing_has_none(llama):
    tensors = load_file(llama / "model.safetensors")
    for name in tensors:
        if ".layers.5." in name and name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name].zero_()
    save_file(tensors, llama / "model.safetensors", {"format": "pt"})
    found = block_influence(llama, {}, TEXTS)
    assert found[5] == pytest.approx(0, abs=1e-6) and min(found[:5]) > 1e-4


def test_it_is_measured_once_for_each_set_of_texts(llama, monkeypatch):
    first = block_influence(llama, {"data": "1"}, TEXTS)
    other = block_influence(llama, {"data": "2"}, TEXTS[:1])
    assert other != first
    monkeypatch.setattr(influence, "_measure", lambda *args: pytest.fail("measured again"))
    assert block_influence(llama, {"data": "2"}, TEXTS) == other
    assert block_influence(llama, {"data": "1"}, TEXTS) == first


@pytest.mark.parametrize("held", [
    {}, {"facts": {}}, {"influence": [0.1] * LAYERS}, {"facts": {}, "influence": None},
    {"facts": {}, "influence": {"0": 0.1}}, {"facts": {}, "influence": [0.1] * (LAYERS - 1)},
    {"facts": {}, "influence": ["0.1"] * LAYERS}, {"facts": {}, "influence": [None] * LAYERS},
    {"facts": {}, "influence": [float("nan")] * LAYERS},
    {"facts": {}, "influence": [10 ** 400] * LAYERS}, "text", [], "half"], ids=str)
def test_a_file_that_holds_something_else_is_measured_anew(llama, held):
    path = llama / "block_influence.json"
    path.write_text('{"measured": [{' if held == "half" else json.dumps({"measured": [held]}))
    found = block_influence(llama, {}, TEXTS[1:])
    assert len(found) == LAYERS and json.loads(path.read_text()) == {
        "measured": [{"facts": {}, "influence": found}]}


@pytest.mark.parametrize("held", [{}, {"measured": None}, {"measured": {"facts": {}}}, "text", []],
                         ids=str)
def test_a_file_of_another_shape_is_measured_anew(llama, held):
    (llama / "block_influence.json").write_text(json.dumps(held))
    assert len(block_influence(llama, {}, TEXTS[1:])) == LAYERS


def test_an_experiment_keeps_the_most_influential_layers_and_its_cards_say_so(finished, tmp_path):
    shutil.copytree(finished.model, tmp_path / "base")
    (tmp_path / "copy.yaml").write_text(f"checkpoint: {tmp_path / 'base'}\nfamily: llama\n")
    model = {"model": str(tmp_path / "copy.yaml")}
    tiny = finished.copy("influence", teachers=[{**model, "layers": [2], "keep": "block_influence"},
                                                {**model, "layers": [2], "keep": "first_and_last"}])
    plan = Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)
    both, ends = plan.stage("teachers")[:2]
    facts = {"base": both.base, "data": plan.data_hash, "texts": "32"}
    measured = block_influence(tmp_path / "base", facts, [])  # read: there are no texts
    weakest = sorted(range(4), key=measured.__getitem__)[:2]
    assert set(both.kept) == {0, 1, 2, 3} - set(weakest) and ends.kept == (0, 3)
    assert (both.name, ends.name) == ("copy-I2", "copy-B2")
    folder = finished.finished("teachers")[0]
    assert "(evenly spaced) |" in model_card(folder)
