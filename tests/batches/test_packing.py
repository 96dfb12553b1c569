"""Steps and micro batches: no pair lost or seen twice, one step whatever the world and the budget,
equal work for every rank, and no forward above its budget but of what cannot be cut."""

import numpy as np
import pytest
import torch

from configs.schema import RuntimeConfig
from src.batches.packing import Budget, micro_batches, scoring_batches, scoring_budget
from src.batches.steps import SinglePass, StepSampler, epoch_order, epoch_steps
from src.batches.trees import Trees
from tests.tiny_pairs import MemorySplit, random_pairs, tree_pairs

SPLIT = MemorySplit(tree_pairs(12, 4).rows(range(72)) + random_pairs(21).rows(range(21)))
WORLDS = [1, 2, 3, 5]
BUDGETS = [Budget(tokens, packed) for tokens in (1, 40, 150, 10_000) for packed in (True, False)]


def steps_of(trees, batch_pairs, budget, world, seed=0, together=True, epoch=0):
    """Every rank's steps of an epoch."""
    ranks = [StepSampler(trees, batch_pairs, budget, rank, world, seed, together)
             for rank in range(world)]
    for rank in ranks:
        rank.set_epoch(epoch)
    assert all(len(list(rank)) == len(rank) for rank in ranks)
    return [list(rank) for rank in ranks]


def cost(trees, budget, pairs, unit):
    """Tokens of one forward, padding included, counted pair by pair."""
    rows = {}
    for i, number in zip(pairs, unit, strict=True):
        for response in (trees.chosen[i], trees.rejected[i]):
            own = trees.response_tokens[response]
            key = (number,) if trees.share_prompt else (number, response)
            rows.setdefault(key, {"prompt": trees.prompt_tokens[trees.prompt_of[response]]})[
                response] = own
    lengths = [sum(row.values()) for row in rows.values()]
    return sum(lengths) if budget.packed else len(lengths) * max(lengths, default=0)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("world", WORLDS)
def test_a_step_takes_the_same_pairs_whatever_the_world_the_budget_and_the_layout(world, together):
    trees = Trees(SPLIT)
    steps = epoch_steps(trees, 20, 0, 0, together)
    assert sorted(np.concatenate(steps)) == list(range(93)) and len(steps) == 5
    for budget in BUDGETS:
        for step, expected in zip(zip(*steps_of(trees, 20, budget, world, together=together),
                                      strict=True), steps, strict=True):
            pairs = np.concatenate([m.pairs for rank in step for m in rank.micro_batches])
            assert sorted(pairs) == sorted(expected)
            assert {rank.pairs for rank in step} == {len(expected)}
            assert len({len(rank.micro_batches) for rank in step}) == 1


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_micro_batch_keeps_to_the_budget_unless_it_is_a_single_pair(budget, share):
    trees = Trees(SPLIT, share)
    for step in steps_of(trees, 30, budget, 2)[0]:
        for pairs, unit in step.micro_batches:
            assert (np.diff(unit) >= 0).all() and (len(unit) == 0 or unit[0] == 0)
            assert len(pairs) <= 1 or cost(trees, budget, pairs, unit) <= budget.tokens
            for number in np.unique(unit):
                inside = pairs[unit == number]
                assert len({trees.prompt_of[trees.chosen[i]] for i in inside}) == 1


def test_a_tree_that_fits_stays_whole_and_one_that_does_not_is_cut_where_it_must_be():
    trees = Trees(tree_pairs(1, 4))
    whole = trees.tokens(np.arange(6), np.zeros(6, int))
    assert len(micro_batches(trees, np.arange(6), Budget(whole, True), 0, 1)) == 1
    parts = micro_batches(trees, np.arange(6), Budget(whole - 1, True), 0, 1)
    assert len(parts) == 3  # no two triples of four responses hold all six pairs
    assert sorted(np.concatenate([part.pairs for part in parts])) == list(range(6))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_differ_by_no_more_than_one_tree(world, packed):
    trees = Trees(SPLIT)
    longest = trees.sizes(np.arange(len(trees.prompt_of)), trees.prompt_of).tokens.max()
    for step in zip(*steps_of(trees, 60, Budget(10_000, packed), world), strict=True):
        loads = [sum(cost(trees, Budget(0, True), *micro) for micro in rank.micro_batches)
                 for rank in step]
        assert max(loads) - min(loads) <= longest


def test_a_rank_with_nothing_to_do_has_as_many_micro_batches_without_pairs():
    trees = Trees(tree_pairs(1, 4))
    first, second = (micro_batches(trees, np.arange(6), Budget(1, True), rank, 2)
                     for rank in range(2))
    assert len(first) == len(second) == 3
    first, second = (micro_batches(trees, np.arange(6), Budget(100, True), rank, 2)
                     for rank in range(2))
    assert [len(m.pairs) for m in (*first, *second)] == [6, 0]


def test_micro_batches_go_from_long_to_short_trees():
    trees = Trees(SPLIT)
    for step in steps_of(trees, 93, Budget(60, True), 1)[0]:
        longest = [max(cost(trees, Budget(0, True), pairs[unit == n], unit[unit == n])
                       for n in np.unique(unit)) for pairs, unit in step.micro_batches]
        assert longest == sorted(longest, reverse=True) and len(longest) > 5


class TestOrder:
    def test_the_docstring_example_holds(self, monkeypatch):
        rows = [{**row, "prompt_id": name}
                for row, name in zip(random_pairs(7).rows(range(7)), "aaabccc", strict=True)]
        monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.tensor([2, 0, 1]))
        steps = epoch_steps(Trees(MemorySplit(rows)), 4, 0, 0, True)
        assert [step.tolist() for step in steps] == [[4, 5, 6], [0, 1, 2, 3]]

    @pytest.mark.parametrize("batch_pairs", [1, 4, 13, 16, 20, 92, 93, 200])
    def test_a_step_parts_no_prompt_that_half_a_step_holds_and_is_never_empty(self, batch_pairs):
        trees = Trees(SPLIT)
        steps = epoch_steps(trees, batch_pairs, 0, 0, True)
        assert len(steps) == -(-93 // batch_pairs) and all(map(len, steps))
        assert sorted(np.concatenate(steps)) == list(range(93))
        assert max(abs(len(step) - batch_pairs) for step in steps[:-1] or [[0] * batch_pairs]
                   ) <= batch_pairs
        found = [set(trees.group[step].tolist()) for step in steps]
        parted = [a & b for a, b in zip(found, found[1:], strict=False)]
        assert not any(parted) or batch_pairs <= 6  # six pairs a prompt
        alone = epoch_steps(trees, batch_pairs, 0, 0, False)
        assert {len(step) for step in alone[:-1]} <= {batch_pairs}

    def test_the_pairs_of_a_prompt_travel_together_or_each_alone(self):
        trees = Trees(tree_pairs(30, 3))
        together, alone = (trees.group[epoch_order(trees, 0, 0, choice)]
                           for choice in (True, False))
        assert (np.diff(together) != 0).sum() == 29 < 60 < (np.diff(alone) != 0).sum()

    def test_alone_the_order_is_that_of_a_permutation_of_the_pairs(self):
        generator = torch.Generator().manual_seed(3 * 1_000_003 + 2)
        assert (epoch_order(Trees(SPLIT), 3, 2, False).tolist()
                == torch.randperm(93, generator=generator).tolist())

    def test_models_with_different_tokens_take_one_order(self):
        other = MemorySplit([{**row, "prompt_ids": [i]} for i, row in
                             enumerate(SPLIT.rows(range(93)))])
        for together in (True, False):
            assert np.array_equal(*(epoch_order(Trees(split), 1, 1, together)
                                    for split in (SPLIT, other)))

    def test_no_epoch_of_a_seed_is_shuffled_like_one_of_another(self):
        trees = Trees(SPLIT)
        orders = {str(epoch_order(trees, seed, epoch, together)) for seed in range(3)
                  for epoch in range(4) for together in (True, False)}
        assert len(orders) == 24

    def test_an_epoch_is_planned_the_same_again_and_from_its_middle(self):
        budget = Budget(100, True)
        first, again = (steps_of(Trees(SPLIT), 10, budget, 2, seed=4, epoch=3)[1]
                        for _ in range(2))
        assert str(first) == str(again)
        assert str(first) != str(steps_of(Trees(SPLIT), 10, budget, 2, seed=4, epoch=4)[1])


@pytest.mark.parametrize("world", WORLDS)
def test_a_single_pass_sees_every_pair_once_in_as_many_forwards_on_every_rank(world):
    for budget in BUDGETS:
        ranks = [list(SinglePass(Trees(SPLIT), budget, rank, world)) for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1
        assert all(len(step.micro_batches) == 1 for rank in ranks for step in rank)
        pairs = [step.micro_batches[0].pairs for rank in ranks for step in rank]
        assert sorted(np.concatenate(pairs)) == list(range(93))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_scoring_takes_every_response_once_longest_first_within_the_budget(budget, share):
    trees = Trees(SPLIT, share)
    batches = scoring_batches(trees, budget)
    responses = np.concatenate([some for some, _ in batches])
    assert sorted(responses) == list(range(len(trees.prompt_of)))
    tops = []
    for some, unit in batches:
        sizes = trees.sizes(some, unit)
        tops.append(sizes.longest.max())
        total = sizes.tokens.sum() if budget.packed else sizes.trees.sum() * sizes.longest.max()
        assert total <= budget.tokens or len(some) == 1
    assert tops == sorted(tops, reverse=True)


def test_scoring_within_a_wide_budget_computes_each_prompt_once():
    trees = Trees(SPLIT)
    (responses, unit), = scoring_batches(trees, Budget(10_000, True))
    assert trees.sizes(responses, unit).tokens.sum() == (
        trees.prompt_tokens.sum() + trees.response_tokens.sum())


def test_a_cpu_scores_in_smaller_forwards_than_a_gpu_unless_told_otherwise():
    assert scoring_budget(RuntimeConfig(), "cpu", True) == Budget(4_096, True)
    assert scoring_budget(RuntimeConfig(), "cuda", False) == Budget(32_768, False)
    told = RuntimeConfig(score_batch_tokens=7)
    assert {scoring_budget(told, device, True) for device in ("cpu", "cuda")} == {Budget(7, True)}
