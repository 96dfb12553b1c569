"""What training is measured against computes what ours does."""

import functools
import json
import sys

import pytest
import torch

from speed.mixes import MIXES, draw
from speed.ours import ALL, steps_of_tricks
from speed.peers import equality, padded, padding_free, prefix_grouped
from speed.peers.peer import Peer, Task
from speed.shapes import Shape, load_classifier, write_model
from src.common.errors import UserError
from tests.tiny_experiment import in_process

SHAPE = Shape(hidden=16, layers=2, intermediate=32, vocab=64)
RUNTIME = steps_of_tricks(last_only=True)[ALL]

needs_prefix_grouper = pytest.mark.skipif(
    not prefix_grouped.version(),
    reason="prefix-grouper is not installed: pip install -r speed/requirements.txt")


@pytest.fixture
def task(tmp_path) -> Task:
    """One step of two prompts, each with the six pairs of four responses."""
    rows = draw(MIXES["four_responses"].scaled(0.1), 12, 0, SHAPE.vocab)
    return Task(write_model(SHAPE, tmp_path / "model", 0), rows, 1, 12, SHAPE.pad, 0)


PEERS = {
    "padded": lambda task: [padded.padded_peer(task)],
    "padding_free": lambda task: [padding_free.padding_free_peer(task)],
    "TRL": padded.trl_peers,
    "prefix_grouper": prefix_grouped.peers,
}


@pytest.mark.parametrize("name", [
    "padded", "padding_free", "TRL", pytest.param("prefix_grouper", marks=needs_prefix_grouper)])
def test_a_peers_step_has_our_loss_and_gradients(name, task):
    if name == "TRL":
        pytest.importorskip("trl")
    assert equality.step_difference(PEERS[name](task), task, RUNTIME) < 1e-4


def test_a_peer_whose_sides_see_each_other_is_found_out(task, monkeypatch):
    """As a library does that packs rows without telling their boundaries."""
    whole = padding_free.flatten_pairs

    def without_boundaries(examples):
        batch = whole(examples)
        return {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None]}

    monkeypatch.setattr(padding_free, "flatten_pairs", without_boundaries)
    with pytest.raises(AssertionError, match="padding-free: loss or gradients differ from ours"):
        equality.step_difference([padding_free.padding_free_peer(task)], task, RUNTIME)


def test_a_peer_that_learns_from_other_pairs_is_found_out(task):
    peer = padded.padded_peer(task)
    swapped = [{"chosen_ids": pair["rejected_ids"], "rejected_ids": pair["chosen_ids"]}
               for pair in peer.parts[0]]
    with pytest.raises(AssertionError, match="differ from ours"):
        equality.step_difference([Peer(peer.name, [swapped], peer.trainer)], task, RUNTIME)


def test_a_flattened_row_restarts_positions_at_each_side():
    batch = padding_free.flatten_pairs([{"chosen_ids": [1, 2, 3], "rejected_ids": [1, 4]},
                                        {"chosen_ids": [5], "rejected_ids": [5, 6]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 5, 1, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1, 0, 1]]
    assert batch["last"].tolist() == [2, 3, 5, 7]
    assert batch["chosen"].tolist() == [0, 1] and batch["rejected"].tolist() == [2, 3]


def test_a_prompt_has_each_of_its_responses_once(task):
    prompts = prefix_grouped.prompts_of(task.rows)
    assert [len(prompt["responses"]) for prompt in prompts] == [4, 4]
    rebuilt = [(prompt["responses"][i], prompt["responses"][j]) for prompt in prompts
               for i, j in zip(prompt["chosen"], prompt["rejected"], strict=True)]
    assert rebuilt == [(row["chosen_ids"], row["rejected_ids"]) for row in task.rows]


@needs_prefix_grouper
def test_a_grouped_prompt_is_one_padded_row():
    batch = prefix_grouped.group_prompts([
        {"prompt_ids": [1, 2], "responses": [[3], [4, 5]], "chosen": [1], "rejected": [0]},
        {"prompt_ids": [6], "responses": [[7], [8]], "chosen": [0], "rejected": [1]}], pad=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 3], [0, 1, 1, 0, 0]]
    assert batch["chosen"].tolist() == [1, 2] and batch["rejected"].tolist() == [0, 3]
    prompt, response = (batch["grouper"].prefix_attn_mask, batch["grouper"].suffix_attn_mask)
    assert prompt[1, 0].tolist() == [[True, False], [False, True]]  # padded on the left
    assert response[1, 0].tolist() == [[True, True, True, False], [True, True, True, True]]


@needs_prefix_grouper
def test_rewards_of_a_grouped_prompt_are_those_of_its_responses_alone(task):
    prompts = prefix_grouped.prompts_of(task.rows)
    peer = prefix_grouped.peers(task)[0]
    with peer.trainer(prompts) as trainer, torch.no_grad():
        batch = prefix_grouped.group_prompts(prompts, SHAPE.pad)
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "grouper")}
        found = trainer.model.cpu()(**inputs)
    classifier = load_classifier(task.model).eval()
    alone = functools.partial(classifier, use_cache=False)
    with torch.no_grad():
        expected = [alone(torch.tensor([prompt["prompt_ids"] + response])).logits.item()
                    for prompt in prompts for response in prompt["responses"]]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_missing_prefix_grouper_is_told_and_its_rows_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "prefix_grouper", None)
    file = tmp_path / "rows.json"
    in_process("speed.train_throughput", "--hidden", "16", "--layers", "1", "--pairs", "2",
               "--batch_pairs", "2", "--rounds", "1", "--length_scale", "0.05", "--no_trl",
               "--json", str(file))
    assert "pip install -r speed/requirements.txt" in capsys.readouterr().err
    found = json.loads(file.read_text())
    assert {row["prefix_grouper"] for row in found} == {""}
    assert not any("prefix" in row["system"] for row in found)


def test_a_missing_trl_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UserError, match="pip install -r requirements.txt"):
        in_process("speed.train_throughput")
