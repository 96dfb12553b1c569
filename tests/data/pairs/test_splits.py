"""Splits are disjoint by prompt, complete, of the asked size, and independent of row order."""

import hashlib

import numpy as np
import pytest

from configs.data_schema import CompareConfig, DataConfig
from data.pairs.splits import (
    BENCHMARK,
    CONTRADICTORY,
    DUPLICATE,
    EARLIER,
    FRACTION,
    OVERLAP,
    PER_PROMPT,
    REASONS,
    TRAIN_PAIRS,
    PairIndex,
    assign_splits,
)
from data.records import SPLITS


def config(**changes):
    return DataConfig(**{"name": "test", "path": "x.jsonl", "test_pairs": 100, "val_pairs": 20,
                         **changes})


def index(prompts, pairs=None, chosen_first=None, group="", source=0, longer=0):
    """A PairIndex of distinct pairs over the given prompts, unless said otherwise."""
    n = len(prompts)
    return PairIndex(np.arange(n, dtype=np.uint64) if pairs is None else np.array(pairs, np.uint64),
                     np.array(prompts, np.uint64),
                     np.ones(n, bool) if chosen_first is None else np.array(chosen_first, bool),
                     np.broadcast_to(np.array(group), n).copy(),
                     np.broadcast_to(np.array(source, np.uint16), n).copy(),
                     np.broadcast_to(np.array(longer, np.int8), n).copy())


def members(pairs, assigned, name):
    return set(pairs.pair[assigned.split == SPLITS.index(name)].tolist())


def why(assigned, reason):
    return np.flatnonzero(assigned.reason == REASONS.index(reason)).tolist()


def random_index(n=2_000, n_prompts=700):
    random = np.random.default_rng(0)
    return index(random.integers(0, n_prompts, n))


def test_no_prompt_is_in_two_splits_and_every_pair_is_in_one():
    pairs = random_index()
    assigned = assign_splits(pairs, config())
    assert (assigned.split >= 0).all()
    prompts = [set(pairs.prompt[assigned.split == code].tolist()) for code in range(4)]
    assert sum(map(len, prompts)) == len(set(pairs.prompt.tolist()))


def test_splits_do_not_depend_on_the_order_of_the_rows():
    pairs = random_index()
    shuffled = np.random.default_rng(1).permutation(len(pairs.pair))
    other = PairIndex(pairs.pair[shuffled], pairs.prompt[shuffled], pairs.chosen_first[shuffled],
                      pairs.group[shuffled], pairs.source[shuffled], pairs.longer[shuffled])
    for changes in ({}, {"fraction": 0.5}, {"train_pairs": 111}):
        first = assign_splits(pairs, config(**changes))
        second = assign_splits(other, config(**changes))
        assert (first.split[shuffled] == second.split).all()
        assert (first.order[shuffled] == second.order).all()


def test_splits_follow_from_sha256_alone_so_any_machine_repeats_them():
    assigned = assign_splits(index(range(40)), config(test_pairs=3, val_pairs=2, seed=7))
    ranked = sorted(range(40), key=lambda p: hashlib.sha256(f"split:7:{p:016x}".encode()).digest())
    expected = {"test": ranked[:3], "val": ranked[3:5], "train_1": ranked[5:22],
                "train_2": ranked[22:]}
    for name, prompts in expected.items():
        assert members(index(range(40)), assigned, name) == set(prompts)


def test_another_seed_gives_other_splits():
    pairs = random_index()
    first, second = (assign_splits(pairs, config(seed=seed)) for seed in (0, 1))
    assert members(pairs, first, "test") != members(pairs, second, "test")


@pytest.mark.parametrize(("n", "test", "val"), [(2_000, 100, 20), (200, 50, 10), (40, 10, 2)])
def test_sizes_are_those_asked_for_or_a_quarter_and_a_twentieth(n, test, val):
    pairs = index(range(n))
    assigned = assign_splits(pairs, config())
    sizes = [len(members(pairs, assigned, name)) for name in SPLITS]
    left = n - test - val
    assert sizes == [left // 2, left - left // 2, val, test]


def test_test_is_filled_by_whole_prompts():
    pairs = index(np.repeat(range(300), 7))
    assigned = assign_splits(pairs, config(test_pairs=100))
    assert len(members(pairs, assigned, "test")) == 105


def test_train_pairs_caps_both_halves_exactly_and_smaller_budgets_are_nested():
    pairs = index(np.repeat(range(300), 7))
    small, large = (assign_splits(pairs, config(train_pairs=n)) for n in (50, 200))
    for name in ("train_1", "train_2"):
        assert len(members(pairs, small, name)) == 50
        assert members(pairs, small, name) < members(pairs, large, name)
    assert members(pairs, small, "test") == members(pairs, large, "test")
    assert len(why(small, TRAIN_PAIRS)) + (small.split >= 0).sum() == 2_100


def test_fraction_keeps_that_share_of_the_prompts_whole_and_nested():
    pairs = index(np.repeat(range(4_000), 2))
    eighth, half = (assign_splits(pairs, config(fraction=f)) for f in (0.125, 0.5))
    kept = [set(pairs.prompt[a.split >= 0].tolist()) for a in (eighth, half)]
    assert abs(len(kept[0]) / 4_000 - 0.125) < 0.02
    assert kept[0] < kept[1]
    assert (eighth.split >= 0).sum() == 2 * len(kept[0])
    assert len(why(eighth, FRACTION)) == 8_000 - 2 * len(kept[0])


def test_a_copy_is_dropped_and_the_first_row_stays():
    assigned = assign_splits(index([1, 2, 1, 3], pairs=[10, 20, 10, 30]), config())
    assert why(assigned, DUPLICATE) == [2]
    assert assigned.split[0] >= 0


def test_the_same_answers_preferred_both_ways_are_dropped_altogether():
    assigned = assign_splits(index([1, 1, 1, 2], pairs=[10, 10, 10, 20],
                                   chosen_first=[True, False, True, True]), config())
    assert why(assigned, CONTRADICTORY) == [0, 1, 2]


def test_files_keep_a_shared_prompt_only_in_test_then_val_then_train_2():
    files = ["train_1"] * 4 + ["train_2"] * 3 + ["val"] * 2 + ["test"]
    prompts = [1, 2, 3, 4, 1, 2, 3, 1, 2, 1]
    assigned = assign_splits(index(prompts, group=files), config(path="", files={"test": "x"}))
    names = [SPLITS[code] if code >= 0 else "" for code in assigned.split]
    assert names == ["", "", "", "train_1", "", "", "train_2", "", "val", "test"]
    assert why(assigned, OVERLAP.format("test")) == [0, 4, 7]
    assert why(assigned, OVERLAP.format("val")) == [1, 5]
    assert why(assigned, OVERLAP.format("train_2")) == [2]


def test_val_is_carved_out_of_train_2_by_prompt():
    files = ["train_1"] * 200 + ["train_2"] * 400 + ["test"] * 50
    pairs = index([*range(200), *np.repeat(range(1_000, 1_200), 2), *range(2_000, 2_050)],
                  group=files)
    assigned = assign_splits(pairs, config(path="", files={"test": "x"}))
    sizes = {name: len(members(pairs, assigned, name)) for name in SPLITS}
    assert sizes == {"train_1": 200, "train_2": 380, "val": 20, "test": 50}
    val = pairs.prompt[assigned.split == SPLITS.index("val")]
    assert (val >= 1_000).all()
    assert not set(val) & set(pairs.prompt[assigned.split == SPLITS.index("train_2")])


def test_one_training_file_is_halved_beside_a_test_file():
    pairs = index([*range(200), *range(190, 240)], group=["train"] * 200 + ["test"] * 50)
    assigned = assign_splits(pairs, config(path="", files={"test": "x"}, val_pairs=0))
    assert {name: len(members(pairs, assigned, name)) for name in SPLITS} == {
        "train_1": 95, "train_2": 95, "val": 0, "test": 50}


def test_a_training_budget_leaves_more_than_a_quarter_to_test():
    assigned = assign_splits(index(range(1_000)), config(test_pairs=600, train_pairs=150))
    sizes = [len(members(index(range(1_000)), assigned, name)) for name in SPLITS]
    assert sizes == [150, 150, 20, 600]


def expected_surplus(pairs, limit):
    """By hand: of each prompt the pairs with the smallest hashes stay."""
    def draw(row):
        return hashlib.sha256(f"pairs_per_prompt:{int(pairs.pair[row]):016x}".encode()).digest()

    rows = {prompt: np.flatnonzero(pairs.prompt == prompt) for prompt in set(pairs.prompt.tolist())}
    return sorted(row for of_prompt in rows.values() for row in sorted(of_prompt, key=draw)[limit:])


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_pairs_per_prompt_keeps_so_many_of_each_prompt_by_hash_of_the_pair(limit):
    pairs = random_index()
    assigned = assign_splits(pairs, config(compare=CompareConfig(pairs_per_prompt=limit)))
    counts = np.bincount(pairs.prompt[assigned.split >= 0].astype(int))
    assert counts.tolist() == np.minimum(np.bincount(pairs.prompt.astype(int)), limit).tolist()
    assert why(assigned, PER_PROMPT) == expected_surplus(pairs, limit)


def test_a_smaller_pairs_per_prompt_keeps_a_part_and_a_copy_takes_no_place():
    pairs = index([1, 1, 1, 1, 2], pairs=[10, 10, 11, 12, 20])
    kept = [set(np.flatnonzero(assign_splits(pairs, config(
        test_pairs=1, compare=CompareConfig(pairs_per_prompt=n))).split >= 0)) for n in (1, 2, 3)]
    assert kept[0] < kept[1] < kept[2] == {0, 2, 3, 4}


def test_pairs_per_prompt_counts_each_file_and_each_source_by_itself():
    limited = config(compare=CompareConfig(pairs_per_prompt=1))
    files = index([1, 1, 2, 2, 3], group=["train_1", "train_1", "test", "test", "train_2"])
    assert len(why(assign_splits(files, limited), PER_PROMPT)) == 2
    sources = index([1, 1, 1, 2, 2, 2], source=[0, 0, 0, 1, 1, 1])
    assigned = assign_splits(sources, config(test_pairs=1), [config(), limited])
    assert len(why(assigned, PER_PROMPT)) == 2
    assert set(why(assigned, PER_PROMPT)) < {3, 4, 5}


def test_a_prompt_stays_with_the_first_of_a_mixture_s_sources_that_still_has_it():
    pairs = index([1, 2, 2, 1, 2, 3, 3, 1], pairs=[10, 20, 20, 11, 21, 30, 31, 10],
                  chosen_first=[1, 1, 0, 1, 1, 1, 1, 1], source=[0, 0, 0, 1, 1, 1, 2, 2])
    assigned = assign_splits(pairs, config(test_pairs=1), [config()] * 3)
    assert why(assigned, CONTRADICTORY) == [1, 2]
    assert why(assigned, EARLIER) == [3, 6, 7]
    assert (assigned.split[[0, 4, 5]] >= 0).all()


def test_training_is_cut_to_its_budget_after_cleaning():
    pairs = index(range(1_000))

    def clean(split, reason):
        contaminated = (pairs.pair % 3 == 0) & (split >= 0)
        split[contaminated], reason[contaminated] = -1, REASONS.index(BENCHMARK)

    assigned = assign_splits(pairs, config(train_pairs=100), clean=clean)
    assert [len(members(pairs, assigned, name)) for name in ("train_1", "train_2")] == [100, 100]
    assert why(assigned, BENCHMARK) == list(range(0, 1_000, 3))
