"""Scores: those of the library's own classifier, written once, and never read from a wrong file."""

import dataclasses
import gc
import os
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import RuntimeConfig, TrainConfig
from model.base.trunk import begin_above
from model.base.weights import base_fingerprint, weights_fingerprint
from model.reward_model import build_reward_model
from src.batches.trees import trees_of
from src.common.errors import UserError
from src.scoring import pairs
from src.scoring.pairs import score, scores_of
from tests.families import PAD
from tests.tiny_pairs import MemorySplit, random_pairs, tree_pairs

RUNTIME = RuntimeConfig(score_batch_tokens=40)
RUN = RunConfig(
    experiment="e", kind="ceiling", name="m-L2", model="m", base="", kept=(1, 4), data="d",
    data_hash="", tokenizer="", split="train_2", labels=GROUND_TRUTH, teacher="",
    method=GROUND_TRUTH_METHOD, train=TrainConfig(), seed=0)
SPLIT = MemorySplit(random_pairs(5).rows(range(5)) + tree_pairs(1, 4).rows(range(6)))
"""Eleven pairs; six of them are among four responses to one prompt."""


@pytest.fixture
def run(base, tmp_path):
    """Folder of a finished reward model, as far as scoring looks at it."""
    build_reward_model(base("llama"), (1, 4), 0, pad_token_id=PAD).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def passes(monkeypatch):
    """Counts the times that a model is asked."""
    titles = []

    def counted(model, split, runtime, title, cache):
        titles.append(title)
        return score(model, split, runtime, title, cache)

    monkeypatch.setattr(pairs, "score", counted)
    return titles


def ask(folder, seed=0, split=SPLIT, name="test", runtime=RUNTIME, precision="fp32"):
    run = dataclasses.replace(RUN, seed=seed, train=TrainConfig(precision=precision))
    return scores_of(folder, run, split, name, runtime)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_scores_are_those_of_the_library_s_classifier_one_sequence_at_a_time(base, tmp_path,
                                                                             family):
    build_reward_model(base(family), (1, 4), 0, pad_token_id=PAD).save_pretrained(tmp_path / "run")
    table = ask(tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run", dtype=torch.float32, attn_implementation="eager").eval()
    for row in range(len(SPLIT)):
        pair = SPLIT[row]
        for side in ("chosen", "rejected"):
            ids = torch.tensor([pair["prompt_ids"] + pair[f"{side}_ids"]])
            with torch.no_grad():
                plain = model(ids, attention_mask=torch.ones_like(ids)).logits.item()
            assert table[f"reward_{side}"][row] == pytest.approx(plain, abs=1e-5)
    assert table.pair_id.tolist() == SPLIT.pair_ids.tolist()


@pytest.mark.parametrize("changes", [
    {"score_batch_tokens": 1}, {"score_batch_tokens": 10_000}, {"share_prompt": False},
    {"pack": False}, {"share_prompt": False, "pack": False}], ids=str)
def test_scores_do_not_depend_on_the_batch_or_the_layout(run, changes):
    first = ask(run)
    other = ask(run, name="again", runtime=dataclasses.replace(RUNTIME, **changes))
    for side in ("reward_chosen", "reward_rejected"):
        np.testing.assert_allclose(other[side], first[side], atol=1e-5)


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_each_response_is_scored_once(run, monkeypatch, budget):
    model, sizes = pairs.load_reward_model(run), []
    forward = model.forward

    def counted(**inputs):
        sizes.append((inputs["last_index"] >= 0).sum().item())
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", counted)
    score(model, SPLIT, dataclasses.replace(RUNTIME, score_batch_tokens=budget), "")
    assert sum(sizes) == 5 * 2 + 4
    assert len(sizes) == {1: 14, 10_000: 1}.get(budget, len(sizes))


@pytest.mark.parametrize("world", [2, 3, 20])
def test_ranks_share_the_forwards_and_agree_on_the_scores(run, monkeypatch, world):
    model, parts = pairs.load_reward_model(run), []
    monkeypatch.setattr(pairs, "_merge", lambda trees, *part: parts.append(part))
    monkeypatch.setattr("src.common.distributed.world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr("src.common.distributed.rank", lambda rank=rank: rank)
        score(model, SPLIT, RUNTIME, "")
    monkeypatch.undo()
    assert sorted(np.concatenate([numbers for numbers, _ in parts])) == list(range(14))
    monkeypatch.setattr("src.common.distributed.gather", lambda part: parts)
    merged = pairs._merge(trees_of(SPLIT, True), *parts[0])
    monkeypatch.undo()
    np.testing.assert_allclose(merged, score(model, SPLIT, RUNTIME, ""), atol=1e-5)


def test_a_run_and_split_are_scored_once(run, passes):
    first = ask(run)
    pd.testing.assert_frame_equal(ask(run), first, check_exact=True)
    assert passes == ["run on test"]
    ask(run, name="val")
    assert passes == ["run on test", "run on val"]
    assert sorted(os.listdir(run / "scores")) == ["test.parquet", "val.parquet"]


@pytest.mark.parametrize("changes", [
    {"seed": 1}, {"split": random_pairs(11, seed=1)}], ids=["run", "pairs"])
def test_scores_of_another_run_or_other_pairs_are_made_again(run, passes, changes):
    if "split" in changes:
        changes["split"].data_hash = "prepared anew"
    ask(run)
    table = ask(run, **changes)
    assert len(passes) == 2
    assert table.pair_id.tolist() == changes.get("split", SPLIT).pair_ids.tolist()


def test_scores_of_weights_replaced_at_the_same_size_are_made_again(run, base, passes):
    first, size = ask(run), (run / "model.safetensors").stat().st_size
    build_reward_model(base("llama"), (1, 4), 1, pad_token_id=PAD).save_pretrained(run)
    assert (run / "model.safetensors").stat().st_size == size
    second = ask(run)
    assert len(passes) == 2 and (second.reward_chosen != first.reward_chosen).all()
    alone = score(pairs.load_reward_model(run), SPLIT, RUNTIME, "")
    np.testing.assert_array_equal(second.reward_chosen, alone[:, 0])


def test_weights_that_differ_in_the_middle_of_a_large_file_have_another_fingerprint(
        run, monkeypatch):
    monkeypatch.setattr("model.base.weights.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("model.base.weights.EDGE_BYTES", 100)
    base_before, before = base_fingerprint(run), weights_fingerprint(run)
    content = bytearray((run / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "model.safetensors").write_bytes(content)
    assert base_fingerprint(run) == base_before and weights_fingerprint(run) != before


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_file_and_tensor(run, value):
    state = load_file(run / "model.safetensors")
    state["model.embed_tokens.weight"][-1, 0] = value  # of a token that no pair holds
    save_file(state, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="model.safetensors: model.embed_tokens.weight holds NaN"):
        ask(run)
    assert not list(run.glob("scores/*"))


def test_an_infinite_reward_is_an_error(run, monkeypatch):
    model = pairs.load_reward_model(run)
    with torch.no_grad():
        model.score.weight[0, 0] = torch.inf
    with pytest.raises(UserError, match="11 of 11 pairs have no finite reward"):
        score(model, SPLIT, RUNTIME, "")


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_file_cut_short_is_made_again(run, passes, keep):
    first = ask(run)
    path = run / "scores" / "test.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    pd.testing.assert_frame_equal(ask(run), first)
    assert len(passes) == 2 and path.stat().st_size == len(whole)


def test_weights_that_give_no_finite_reward_are_an_error_and_leave_no_file(run, monkeypatch):
    model = pairs.load_reward_model(run)
    with torch.no_grad():
        model.score.weight[0, 0] = torch.nan
    monkeypatch.setattr(pairs, "load_reward_model", lambda folder, **options: model)
    with pytest.raises(UserError, match="11 of 11 pairs have no finite reward"):
        ask(run)
    assert not (run / "scores" / "test.parquet").exists()


def test_a_folder_without_whole_weights_is_refused(run):
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        ask(run)


def test_scoring_leaves_dropout_off_and_draws_nothing_random(run):
    state = torch.random.get_rng_state()
    ask(run)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_is_scored_in_the_type_it_was_read_in_where_that_is_half(run, monkeypatch):
    """As on CUDA: half the memory, and the rewards of fp32 but for bf16's rounding."""
    split = random_pairs(8)
    whole = pairs.load_scorer(run, RUNTIME, None)
    monkeypatch.setattr(pairs, "weights_to_score", lambda precision: torch.bfloat16)
    half = pairs.load_scorer(run, RUNTIME, None)
    assert {tensor.dtype for tensor in whole.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in half.parameters()} == {torch.bfloat16}
    expected = pairs.score(whole, split, RUNTIME, "test")
    found = pairs.score(half, split, RUNTIME, "test")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.1 * expected.std())


def test_a_process_that_scores_run_after_run_holds_one_model_at_a_time(run):
    """Their hooks hold them: by itself Python would not collect them for many runs."""
    gc.disable()
    try:
        first = pairs.load_scorer(run, RUNTIME, None)
        begin_above(first, 1)
        gone = weakref.ref(first)
        del first
        pairs.load_scorer(run, RUNTIME, None)
        assert gone() is None
    finally:
        gc.enable()
