"""Trees: what pairs share is found by their tokens, costs once, and comes back as it was."""

import numpy as np
import pytest

from src.batches.packing import Budget
from src.batches.steps import (
    ALL_PAIRS,
    Course,
    StepSampler,
    course_steps,
    epoch_steps,
    tokens_trained,
)
from src.batches.trees import Trees, trees_of
from src.common.hashing import content_hash
from tests.tiny_pairs import MemorySplit, random_pairs, tree_pairs


def pair(number, prompt, chosen, rejected, prompt_id="p"):
    return {"pair_id": content_hash(number), "prompt_id": prompt_id, "prompt_ids": prompt,
            "chosen_ids": chosen, "rejected_ids": rejected}


SHARED = MemorySplit([
    pair(0, [7, 8], [1], [2, 3]), pair(1, [9], [4], [5], "q"), pair(2, [7, 8], [2, 3], [4, 4, 4]),
    pair(3, [7, 8], [1], [4, 4, 4])])
"""Three pairs among three responses to one prompt, and a pair of another."""


def lengths_of(split):
    """Tokens of a split without a tree: every distinct prompt, and each prompt's responses."""
    prompts = {tuple(row["prompt_ids"]) for row in split.rows(range(len(split)))}
    responses = {(tuple(row["prompt_ids"]), tuple(row[side]))
                 for row in split.rows(range(len(split)))
                 for side in ("chosen_ids", "rejected_ids")}
    return sum(map(len, prompts)) + sum(len(response) for _, response in responses)


def test_prompts_and_responses_are_found_by_their_tokens():
    trees = Trees(SHARED)
    assert sorted(trees.prompt_tokens) == [1, 2] and len(trees.prompt_of) == 5
    assert trees.chosen[0] == trees.chosen[3] and trees.rejected[0] == trees.chosen[2]
    assert trees.rejected[2] == trees.rejected[3]
    assert len({trees.prompt_of[trees.chosen[i]] for i in (0, 2, 3)}) == 1
    assert (np.diff(trees.prompt_of) >= 0).all()


def test_a_prompt_cut_on_the_left_is_another_tree_in_the_same_shuffle_group():
    trees = Trees(MemorySplit([pair(0, [6, 7, 8], [1], [2]), pair(1, [7, 8], [1], [2])]))
    assert len(trees.prompt_tokens) == 2 and len(trees.response_tokens) == 4
    assert trees.group.tolist() == [0, 0]


def test_groups_are_numbered_by_first_occurrence():
    split = MemorySplit([pair(i, [i], [1], [2], name) for i, name in enumerate("zaazbz")])
    assert Trees(split).group.tolist() == [0, 1, 1, 0, 2, 0]


@pytest.mark.parametrize("share", [True, False])
def test_tokens_come_back_as_they_were(share):
    split = tree_pairs(5, 4)
    trees = Trees(split, share)
    responses = np.arange(len(trees.prompt_of))
    ids = trees.read(responses, trees.prompt_of)
    assert len(ids.responses) == 20 and len(ids.prompts) == (5 if share else 20)
    for row in range(len(split)):
        for side, number in (("chosen_ids", trees.chosen), ("rejected_ids", trees.rejected)):
            assert ids.responses[number[row]].tolist() == split[row][side]
            assert ids.prompts[ids.tree[number[row]]].tolist() == split[row]["prompt_ids"]


def test_six_pairs_over_four_responses_cost_one_prompt_and_four_responses():
    split = tree_pairs(1, 4)
    trees = Trees(split)
    assert len(split) == 6 and (len(trees.prompt_tokens), len(trees.response_tokens)) == (1, 4)
    sizes = trees.sizes(np.arange(4), np.zeros(4, int))
    assert sizes.tokens == sizes.longest == lengths_of(split) and sizes.trees == 1
    assert trees.tokens(np.arange(6), np.zeros(6, int)) == lengths_of(split)
    alone = [trees.tokens(np.array([i]), np.zeros(1, int)) for i in range(6)]
    assert alone == split.lengths().sum(axis=1).tolist()
    assert trees.tokens(np.arange(6), np.arange(6)) == sum(alone)


def test_without_a_shared_prompt_every_response_has_its_own():
    trees = Trees(tree_pairs(3, 4), share_prompt=False)
    sizes = trees.sizes(np.arange(12), trees.prompt_of)
    prompt, answers = trees.prompt_tokens, trees.response_tokens.reshape(3, 4)
    assert sizes.trees.tolist() == [4, 4, 4]
    assert sizes.tokens.tolist() == (4 * prompt + answers.sum(axis=1)).tolist()
    assert sizes.longest.tolist() == (prompt + answers.max(axis=1)).tolist()
    assert trees.tokens(np.arange(18), np.zeros(18, int)) == sizes.tokens.sum()


def test_responses_are_numbered_whichever_was_preferred():
    split = tree_pairs(6, 4)
    turned = MemorySplit([{**row, "chosen_ids": row["rejected_ids"],
                           "rejected_ids": row["chosen_ids"]} for row in split.rows(range(36))])
    there, back = Trees(split), Trees(turned)
    assert there.chosen.tolist() == back.rejected.tolist()
    assert there.rejected.tolist() == back.chosen.tolist()
    first = np.minimum(there.chosen, there.rejected)
    assert 0 < (first == there.chosen).mean() < 1


def test_a_split_s_trees_are_found_once():
    split = random_pairs(4)
    assert trees_of(split, True) is trees_of(split, True)
    assert trees_of(split, False) is not trees_of(split, True)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("epochs", [0.1, 1, 2, 1.5])
def test_the_tokens_of_a_training_are_those_of_its_steps(together, epochs):
    trees = Trees(tree_pairs(7, 3))  # 21 pairs: six steps of about 4
    steps = [step for epoch in range(2) for step in epoch_steps(trees, 4, 3, epoch, together)]
    expected = sum(trees.tokens(step, np.zeros(len(step), int))
                   for step in steps[:int(np.ceil(epochs * 6))])
    assert tokens_trained(trees, 4, epochs, 3, together) == expected


def test_the_tokens_of_a_training_that_stopped_are_those_of_the_steps_that_it_took():
    trees = Trees(tree_pairs(7, 3))
    steps = [step for epoch in range(2) for step in epoch_steps(trees, 4, 3, epoch, True)]
    for taken in (0, 1, 6, 8, 12):
        expected = sum(trees.tokens(step, np.zeros(len(step), int)) for step in steps[:taken])
        assert tokens_trained(trees, 4, 2, 3, True, steps=taken) == expected


TREES = Trees(tree_pairs(7, 3))  # 21 pairs
SOME = np.random.default_rng(0).random(21) < 0.6
FEW = SOME & (np.random.default_rng(1).random(21) < 0.5)


@pytest.mark.parametrize("together", [True, False])
def test_dropped_pairs_are_in_no_step_and_the_others_keep_their_order(together):
    whole = np.concatenate(course_steps(TREES, 4, 3, 1, together, ALL_PAIRS))
    steps = course_steps(TREES, 4, 3, 1, together, Course(SOME))
    assert np.concatenate(steps).tolist() == whole[SOME[whole]].tolist()
    assert len(steps) == -(-SOME.sum() // 4)
    budget = Budget(10**6, True)
    assert len(StepSampler(TREES, 4, budget, 0, 1, 3, together, Course(SOME))) == len(steps)


@pytest.mark.parametrize("first_steps", [1, 3, 5, 7, 12])
def test_a_course_goes_through_its_first_pairs_by_epochs_of_their_own_and_then_goes_on(first_steps):
    course = Course(SOME, FEW, first_steps)
    found = [step.tolist() for epoch in range(3)
             for step in course_steps(TREES, 4, 3, epoch, False, course)]
    own = [step.tolist() for epoch in range(12)
           for step in epoch_steps(TREES, 4, 3, epoch, False, FEW)]
    usual = [step.tolist() for epoch in range(3)
             for step in epoch_steps(TREES, 4, 3, epoch, False, SOME)]
    assert found == (own[:first_steps] + usual[first_steps:])[:len(usual)]
    assert tokens_trained(TREES, 4, 3, 3, False, course) == sum(
        TREES.tokens(np.array(step), np.zeros(len(step), int)) for step in found)


def test_a_course_whose_first_pairs_are_all_is_none():
    course = Course(None, np.ones(21, bool), 7)
    for epoch in range(3):
        for found, usual in zip(course_steps(TREES, 4, 3, epoch, True, course),
                                epoch_steps(TREES, 4, 3, epoch, True), strict=True):
            assert found.tolist() == usual.tolist()


def test_prompts_that_travel_together_cost_less():
    trees = Trees(tree_pairs(40, 4))
    together, alone = (tokens_trained(trees, 12, 1, 0, choice) for choice in (True, False))
    assert together < 1.2 * lengths_of(trees.split) < 0.6 * alone
