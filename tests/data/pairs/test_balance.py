"""After balancing, length alone says nothing, and what went depends on no order."""

import json

import numpy as np
import pytest

from configs.data_schema import DataConfig
from data.manifest import read_manifest
from data.pairs.balance import drop_surplus_of_length, surplus
from data.pairs.pair_files import read_pairs
from data.pairs.splits import LENGTH, REASONS, PairIndex, assign_splits, rank_in_group
from data.prepare import prepare
from data.records import SPLITS
from src.common.errors import UserError
from src.measures.baselines import length_margins
from src.measures.metrics import correctness


def kinds(n, seed=0, longer=0.7, equal=0.1):
    return np.random.default_rng(seed).choice([1, 0, -1], n, p=[longer, equal, 1 - longer - equal])


def index(longer, prompt):
    n = len(longer)
    return PairIndex(np.arange(n, dtype=np.uint64), prompt.astype(np.uint64), np.ones(n, bool),
                     np.array([""] * n), np.zeros(n, np.uint16), longer.astype(np.int8))


def balanced(pairs):
    assigned = assign_splits(pairs, DataConfig(name="t", path="x", test_pairs=300, val_pairs=40))
    drop_surplus_of_length(pairs, assigned)
    return assigned


@pytest.mark.parametrize("longer", [0.7, 0.2], ids=["longer wins", "shorter wins"])
def test_every_split_has_as_many_longer_as_shorter_winners_and_keeps_the_rest(longer):
    pairs = index(kinds(1_500, longer=longer),
                  np.random.default_rng(1).integers(0, 400, 1_500))
    before = assign_splits(pairs, DataConfig(name="t", path="x", test_pairs=300, val_pairs=40))
    after = balanced(pairs)
    for code in range(len(SPLITS)):
        was, now = pairs.longer[before.split == code], pairs.longer[after.split == code]
        assert (now == 1).sum() == (now == -1).sum() == min((was == 1).sum(), (was == -1).sum())
        assert (now == 0).sum() == (was == 0).sum()
    moved = before.split != after.split
    assert (after.split[moved] == -1).all()
    assert (after.reason[moved] == REASONS.index(LENGTH)).all() and moved.sum() > 300


def test_which_pairs_go_does_not_depend_on_the_order_of_the_rows():
    pairs = index(kinds(900), np.random.default_rng(2).integers(0, 60, 900))
    order = np.random.default_rng(3).permutation(900)
    other = PairIndex(*(getattr(pairs, name)[order] for name in (
        "pair", "prompt", "chosen_first", "group", "source", "longer")))
    assert (balanced(pairs).split[order] == balanced(other).split).all()


def test_prompts_that_all_lean_one_way_are_each_balanced():
    prompt = np.repeat(np.arange(10), 50).astype(np.uint64)
    longer = kinds(500, longer=0.75)
    kept = np.delete(np.arange(500), surplus(longer, prompt, np.arange(500, dtype=np.uint64)))
    for each in range(10):
        assert longer[kept][prompt[kept] == each].sum() == 0


def test_a_prompt_that_leans_the_other_way_loses_nothing():
    prompt = np.array([1] * 8 + [2] * 3, np.uint64)
    longer = np.array([1] * 7 + [-1] + [1, -1, -1])
    gone = surplus(longer, prompt, np.arange(11, dtype=np.uint64))
    assert len(gone) == 5 == longer.sum()
    assert (prompt[gone] == 1).all() and (longer[gone] == 1).all()


def test_nothing_goes_where_nothing_is_in_surplus():
    ids = np.arange(4, dtype=np.uint64)
    assert not len(surplus(np.array([1, -1, 0, 0]), ids, ids))
    assert not len(surplus(np.zeros(0, np.int8), ids[:0], ids[:0]))


def test_ranks_count_within_each_group_by_the_draw():
    draw, group = np.array([5, 1, 9, 3, 2]), np.array([0, 1, 0, 0, 1])
    assert rank_in_group(draw, group).tolist() == [1, 0, 2, 0, 1]
    assert rank_in_group(draw, group, np.array([0, 0, 1, 0, 0])).tolist() == [1, 0, 0, 0, 1]


def prepared(tmp_path, name, rows, **changes):
    raw = tmp_path / f"{name}.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(name="arguments", path=str(raw), form="prompt_answers", test_pairs=80,
                        val_pairs=20, **changes)
    prepare(config, tmp_path / name, [])
    return tmp_path / name


def test_prepared_splits_are_disjoint_by_topic_and_length_alone_is_right_in_half(tmp_path):
    draw = np.random.default_rng(4)
    rows = []
    for number in range(400):
        short, long = f"No, {number}.", f"No, and that for {number} reasons that anyone can see."
        won = draw.random() < 0.77
        rows.append({"prompt": f"Topic {number % 16}", "chosen": long if won else short,
                     "rejected": short if won else long})
    folder = prepared(tmp_path, "balanced", rows, balance="length")
    manifest = read_manifest(folder)
    topics = {}
    for split in manifest["splits"]:
        pairs = read_pairs(folder, split).to_pandas()
        topics[split] = set(pairs.prompt)
        margins = length_margins(pairs.chosen.str.len().to_numpy(),
                                 pairs.rejected.str.len().to_numpy())
        assert correctness(margins).mean() == 0.5
    assert sum(map(len, topics.values())) == 16 == len(set().union(*topics.values()))
    kept = sum(entry["pairs"] for entry in manifest["splits"].values())
    assert manifest["unused"][LENGTH] == 400 - kept > 100

    again = prepared(tmp_path, "reversed", rows[::-1], balance="length")
    plain = prepared(tmp_path, "plain", rows)
    assert read_manifest(again)["data_hash"] == manifest["data_hash"]
    assert read_manifest(plain)["data_hash"] != manifest["data_hash"]
    assert read_manifest(plain)["unused"][LENGTH] == 0


def test_a_data_set_whose_longer_answers_all_win_is_told_why_nothing_is_left(tmp_path):
    rows = [{"prompt": f"Topic {number}", "chosen": "No, for three reasons.", "rejected": "No."}
            for number in range(300)]
    with pytest.raises(UserError, match=f"no pair is left .*; left out: 300 {LENGTH}$"):
        prepared(tmp_path, "long", rows, balance="length")
