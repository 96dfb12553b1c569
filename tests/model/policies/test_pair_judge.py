"""PairRM from a folder: the published formula, both orders, and a column of the policies' table."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DebertaV2Config, DebertaV2Model

from configs.schema import EvalConfig
from model.pair_judge import MARKS, PairRM
from src.common.errors import UserError
from src.evaluation.policy_pairs import as_text
from src.measures.policies.tables import policy_table
from tests.measures.test_policies import judged as made_up
from tests.tiny_pairrm import VOCABULARY, save_pairrm

PROMPTS = ["river stone", "lamp", "seven bridge quiet"]
OURS = ["orange window", "river river river", "lamp"]
OTHERS = ["lamp", "stone orange", "window seven river quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_pairrm(tmp_path_factory.mktemp("pairrm"))


def by_hand(folder: Path, prompt: str, left: str, right: str) -> float:
    """The published formula on one row, without padding."""
    ids = VOCABULARY
    row = [ids[word] for mark, text in zip(MARKS.values(), (prompt, left, right), strict=True)
           for word in ("[CLS]", mark, *text.split(), "[SEP]")]
    values = load_file(folder / "model.safetensors")
    trunk = DebertaV2Model(DebertaV2Config.from_pretrained(folder)).eval()
    trunk.load_state_dict({name.removeprefix("pretrained_model."): value for name, value in
                           values.items() if name.startswith("pretrained_model.")})
    with torch.no_grad():
        states = trunk(torch.tensor([row])).last_hidden_state[0]
    source, *sides = (states[row.index(ids[mark])] for mark in MARKS.values())
    scores = []
    for side in sides:
        hidden = torch.tanh(values["head_layer.1.weight"] @ torch.cat([source, side])
                            + values["head_layer.1.bias"])
        scores.append((values["head_layer.4.weight"] @ hidden + values["head_layer.4.bias"]).item())
    return scores[0] - scores[1]


def test_a_comparison_is_the_published_one_in_both_orders(folder):
    found = PairRM(folder).logits(PROMPTS, OURS, OTHERS)
    expected = [(by_hand(folder, *texts) - by_hand(folder, texts[0], texts[2], texts[1])) / 2
                for texts in zip(PROMPTS, OURS, OTHERS, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5) and np.abs(found).min() > 1e-3


def test_swapped_answers_have_the_opposite_log_odds(folder):
    judge = PairRM(folder)
    assert judge.logits(PROMPTS, OTHERS, OURS).tolist() == pytest.approx(
        (-judge.logits(PROMPTS, OURS, OTHERS)).tolist(), abs=1e-6)


def test_a_comparison_is_that_of_the_package(folder):
    spec = importlib.util.find_spec("llm_blender")
    if spec is None:
        pytest.skip("llm-blender is not installed: pip install --no-deps llm-blender==0.0.2")
    file = Path(spec.submodule_search_locations[0]) / "pair_ranker" / "pairrm.py"
    spec = importlib.util.spec_from_file_location("pairrm", file)  # the package itself would fail
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config, judge = DebertaV2Config.from_pretrained(folder), PairRM(folder)
    model = module.DebertaV2PairRM(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    for texts in zip(PROMPTS, OURS, OTHERS, strict=True):
        ids = torch.tensor([judge._ids(*texts)])
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=torch.ones_like(ids),
                             return_dict=True).logits
        assert judge._compared(ids.tolist()).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_what_is_no_pairrm_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        PairRM(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(
        {key: value for key, value in config.items() if key not in MARKS}))
    with pytest.raises(UserError, match="names no source_prefix_id.*llm-blender/PairRM-hf"):
        PairRM(tmp_path)


def test_long_texts_are_cut_where_the_model_was_trained_to(folder):
    ids = PairRM(folder)._ids("river " * 3000, "lamp " * 3000, "stone " * 3000)
    assert len(ids) == 2048 and [ids.count(mark) for mark in range(12, 15)] == [1, 1, 1]


def test_a_prompt_of_several_turns_says_who_spoke():
    assert as_text([{"role": "user", "content": "Hello?"}]) == "Hello?"
    assert as_text([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]) == (
        "USER: a\nASSISTANT: b")


def test_the_table_tells_how_often_the_second_judge_takes_an_answer():
    found, config = made_up(0.5), EvalConfig(bootstrap_samples=200)
    assert "pairrm_rate" not in policy_table(found, config)
    key = next(key for key in found.policies if key != ("sft", "gt"))
    logits = np.full(found.policies[key].rewards.shape, -1.0)
    logits[:, : logits.shape[1] // 4], logits[:, -1] = 2.0, 0.0
    table = policy_table(dataclasses.replace(found, pairrm={key: logits}), config)
    row = table[(table.policy == key[0]) & (table.labels == key[1])].iloc[0]
    expected = (logits.shape[1] // 4 + 0.5) / logits.shape[1]
    assert row.pairrm_rate == pytest.approx(expected)
    assert row.pairrm_rate_low < expected < row.pairrm_rate_high
    assert table.pairrm_rate.isna().sum() == len(table) - 1
