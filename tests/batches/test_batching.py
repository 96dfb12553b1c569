"""Batches: literal tensors, equal rewards in every layout, and no way in for ground truth."""

import inspect
import itertools

import numpy as np
import pytest
import torch

from data.records import left_is_chosen
from model.reward_model import build_reward_model
from src.batches.collate import FILLER, MODEL_INPUTS, PairDataset, TreeCollator
from src.batches.packing import Budget, MicroBatch, scoring_batches
from src.batches.steps import Step, StepSampler
from src.batches.trees import TreeIds, Trees
from src.common.hashing import content_hash
from tests.families import PAD
from tests.tiny_pairs import MemorySplit, random_pairs, tree_pairs

IDS = TreeIds([np.array([7, 8]), np.array([9])],
              [np.array(ids) for ids in ([1], [2, 3], [4], [4], [5])], np.array([0, 0, 0, 1, 1]),
              np.array([0, 2, 3, 4, 6, 7, 8]))
"""The trees of TreeCollator's example."""


def lists(batch):
    return {name: tensor.tolist() for name, tensor in batch.items() if name != "host"}


def whole(split, pairs=None):
    """Pairs as a micro batch, those of a prompt as one unit."""
    trees = Trees(split)
    pairs = np.arange(len(split)) if pairs is None else np.asarray(pairs)
    prompt = trees.prompt_of[trees.chosen[pairs]]
    order = np.argsort(prompt, kind="stable")
    return MicroBatch(pairs[order], np.unique(prompt[order], return_inverse=True)[1])


def decoded(batch):
    """(prompt, left, right, label, row) of each pair, read back from the tensors of a batch."""
    most = batch["last_index"].shape[1]
    for left, right, label, row in zip(*(batch[name].tolist() for name in (
            "left", "right", "labels", "row")), strict=True):
        sides = []
        for place in (left, right):
            at, number = divmod(place, most)
            inside = batch["branch"][at] == number + 1
            tree = batch["tree"][at][inside][0]
            prompt = (batch["branch"][at] == 0) & (batch["tree"][at] == tree)
            sides.append(batch["input_ids"][at][inside].tolist())
        yield batch["input_ids"][at][prompt].tolist(), *sides, label, row


def test_the_collator_s_docstring_example_holds_in_one_row():
    batch, place = TreeCollator(0).lay_out(IDS)
    assert lists(batch) == {
        "input_ids": [[7, 8, 1, 2, 3, 4, 9, 4, 5]], "position_ids": [[0, 1, 2, 2, 3, 2, 0, 1, 1]],
        "tree": [[0, 0, 0, 0, 0, 0, 1, 1, 1]], "branch": [[0, 0, 1, 2, 2, 3, 0, 4, 5]],
        "last_index": [[2, 4, 5, 7, 8]]}
    assert place.tolist() == [0, 1, 2, 3, 4]


def test_the_collator_s_docstring_example_holds_in_a_row_each():
    batch, place = TreeCollator(0, pack=False).lay_out(IDS)
    assert lists(batch) == {
        "input_ids": [[7, 8, 1, 2, 3, 4], [9, 4, 5, 0, 0, 0]],
        "position_ids": [[0, 1, 2, 2, 3, 2], [0, 1, 1, 0, 0, 0]],
        "tree": [[0, 0, 0, 0, 0, 0], [0, 0, 0, -1, -1, -1]],
        "branch": [[0, 0, 1, 2, 2, 3], [0, 1, 2, -1, -1, -1]],
        "last_index": [[2, 4, 5], [1, 2, -1]]}
    assert place.tolist() == [0, 1, 2, 3, 4]


def test_tokens_go_by_the_split_s_numbers_so_that_their_hidden_states_are_found():
    number = {pack: TreeCollator(0, pack).lay_out(IDS, hidden_of=lambda token: token)[0]["hidden"]
              for pack in (True, False)}
    assert number[True].tolist() == [[0, 1, 3, 4, 5, 6, 2, 7, 8]]
    assert number[False].tolist() == [[0, 1, 3, 4, 5, 6], [2, 7, 8, -1, -1, -1]]


@pytest.mark.parametrize("share_prompt", [True, False])
def test_every_token_of_a_split_has_one_number(share_prompt):
    split = MemorySplit(random_pairs(4).rows(range(4)) + tree_pairs(2, 3).rows(range(6)))
    trees = Trees(split, share_prompt)
    found: dict[int, set] = {}
    for responses, unit in scoring_batches(trees, Budget(30, packed=True)):
        batch, _ = TreeCollator(PAD).lay_out(trees.read(responses, unit), lambda token: token)
        for number, *facts in zip(*(batch[name][0].tolist() for name in (
                "hidden", "input_ids", "position_ids")), strict=True):
            found.setdefault(number, set()).add(tuple(facts))
    assert sorted(found) == list(range(trees.total_tokens))
    assert all(len(facts) == 1 for facts in found.values())


def test_pairs_point_at_their_rewards():
    examples = PairDataset(random_pairs(1), np.ones(1)).read(*whole(random_pairs(1)))._replace(
        ids=IDS, left=np.array([0, 1, 3]), right=np.array([1, 2, 4]))
    for pack in (True, False):
        batch = TreeCollator(0, pack).collate(examples)
        assert batch["left"].tolist() == [0, 1, 3] and batch["right"].tolist() == [1, 2, 4]
    _, place = TreeCollator(0, pack=False).lay_out(TreeIds(
        IDS.prompts[::-1], [*IDS.responses[3:], *IDS.responses[:3]], np.array([0, 0, 1, 1, 1]),
        np.zeros(7, int)))
    assert place.tolist() == [0, 1, 3, 4, 5]


def test_rewards_are_read_at_the_last_token_even_where_it_is_the_padding_token():
    ids = TreeIds([np.array([7])], [np.array([1, PAD]), np.array([PAD])], np.array([0, 0]),
                  np.arange(3))
    assert TreeCollator(PAD).lay_out(ids)[0]["last_index"].tolist() == [[2, 3]]


def test_tensors_have_the_types_that_the_model_takes():
    split = random_pairs(3)
    batch = TreeCollator(PAD).collate(PairDataset(split, np.ones(3)).read(*whole(split)))
    types = {name: tensor.dtype for name, tensor in batch.items() if name != "host"}
    assert types.pop("labels") == types.pop("weights") == torch.float32
    assert set(types.values()) == {torch.int64}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neo"])
def test_rewards_are_the_same_in_every_layout(base, family):
    model = build_reward_model(base(family), (1, 3, 5), seed=0, pad_token_id=PAD).eval()
    split, rewards = tree_pairs(4, 3), []
    for shared, pack in itertools.product((True, False), repeat=2):
        data = PairDataset(split, np.ones(12), shared)
        batch = TreeCollator(PAD, pack).collate(data.read(*whole(split)))
        with torch.no_grad():
            found = model(**{name: batch[name] for name in MODEL_INPUTS}).flatten()
        order = torch.argsort(batch["row"])
        rewards.append(torch.stack([found[batch["left"]], found[batch["right"]]])[:, order])
    assert rewards[0].std() > 0.01  # a constant would agree as well
    for other in rewards[1:]:
        torch.testing.assert_close(other, rewards[0], atol=1e-5, rtol=1e-5)


def test_a_filler_is_a_forward_without_a_pair():
    data = PairDataset(random_pairs(3), np.ones(3))
    assert data.read(np.zeros(0, int), np.zeros(0, int)).ids is FILLER.ids
    batch = TreeCollator(PAD).collate(FILLER)
    assert batch["input_ids"].shape == (1, 2) and batch["last_index"].tolist() == [[1]]
    assert all(len(batch[name]) == 0 for name in ("left", "right", "labels", "weights", "row"))


@pytest.mark.parametrize(("shared", "pack"), itertools.product((True, False), repeat=2))
def test_the_left_answer_and_its_label_follow_the_pair_s_hash(shared, pack):
    split, labels = tree_pairs(7, 4), np.linspace(0, 1, 42)
    data = PairDataset(split, labels, shared)
    seen = list(decoded(TreeCollator(PAD, pack).collate(data.read(*whole(split)))))
    assert sorted(row for *_, row in seen) == list(range(42))
    for prompt, left, right, label, i in seen:
        row, chosen_left = split[i], left_is_chosen(split.pair_ids[i])
        sides = ("chosen_ids", "rejected_ids") if chosen_left else ("rejected_ids", "chosen_ids")
        assert (prompt, left, right) == (row["prompt_ids"], row[sides[0]], row[sides[1]])
        assert label == pytest.approx(labels[i] if chosen_left else 1 - labels[i])
    assert {left_is_chosen(pair) for pair in split.pair_ids} == {True, False}


def test_human_labels_are_1_where_the_chosen_answer_is_left_and_0_elsewhere():
    split = random_pairs(40)
    expected = [float(left_is_chosen(pair)) for pair in split.pair_ids]
    assert PairDataset(split, np.ones(40)).labels.tolist() == expected


def test_a_student_s_batch_holds_ids_and_weak_labels_and_no_other_column():
    split = random_pairs(3)
    batch = TreeCollator(PAD).collate(PairDataset(split, np.full(3, 0.3)).read(*whole(split)))
    assert sorted(batch) == sorted([*MODEL_INPUTS, "host", "left", "right", "labels", "weights",
                                    "row"])


@pytest.mark.parametrize("shared", [True, False])
def test_a_student_s_batch_is_a_function_of_weak_labels_only(shared):
    """With the truth of every pair turned around, and P(chosen > rejected) with it, the tokens stay
    where they are, and each answer keeps its probability: only the side it stands on may differ."""
    split, weak = tree_pairs(10, 3), np.random.default_rng(0).random(30)
    rows = split.rows(range(30))
    turned = MemorySplit([{**row, "chosen_ids": row["rejected_ids"],
                           "rejected_ids": row["chosen_ids"]} for row in rows])
    there, back = (TreeCollator(PAD).collate(PairDataset(pairs, labels, shared).read(*whole(pairs)))
                   for pairs, labels in ((split, weak), (turned, 1 - weak)))
    assert all(torch.equal(there[name], back[name]) for name in MODEL_INPUTS)

    def beliefs(batch):
        """Prompt and answers without their sides, with the first answer's probability."""
        for prompt, left, right, label, row in decoded(batch):
            (first, p), (second, _) = sorted([(left, label), (right, 1 - label)])
            yield prompt, first, second, round(p, 5), row

    assert list(beliefs(there)) == list(beliefs(back))


def test_teacher_and_student_read_the_same_sides():
    split = random_pairs(20)
    truth, weak = (list(decoded(TreeCollator(PAD).collate(PairDataset(split, labels).read(
        *whole(split))))) for labels in (np.ones(20), np.full(20, 0.4)))
    assert [(*pair[:3], pair[4]) for pair in truth] == [(*pair[:3], pair[4]) for pair in weak]


def test_labels_of_another_number_are_refused():
    with pytest.raises(ValueError, match="3 labels for 4 pairs"):
        PairDataset(random_pairs(4), np.ones(3))


@pytest.mark.parametrize("world", [1, 2])
def test_a_loader_gives_every_pair_of_a_step_once(world):
    split = tree_pairs(6, 4)
    data, seen = PairDataset(split, np.ones(36)), []
    for rank in range(world):
        steps = StepSampler(data.trees, 10, Budget(60, True), rank, world, seed=0)
        loader = torch.utils.data.DataLoader(data, batch_sampler=steps,
                                             collate_fn=TreeCollator(PAD))
        seen.append([(step["pairs"], [pair for micro in step["micro_batches"]
                                      for pair in decoded(micro)]) for step in loader])
    assert [step[0] for step in seen[0]] == [12, 6, 12, 6]  # no prompt in two of them
    for step in zip(*seen, strict=True):
        assert len({pair[-1] for _, pairs in step for pair in pairs}) == step[0][0]
        assert all(split[row]["prompt_ids"] == prompt for _, pairs in step
                   for prompt, _, _, _, row in pairs)


def test_six_pairs_over_four_responses_are_a_row_of_one_prompt_and_four_responses():
    split = tree_pairs(1, 4)
    data = PairDataset(split, np.ones(6))
    pairs, (micro,) = data.__getitems__(Step(6, [whole(split)]))
    batch = TreeCollator(PAD).collate(micro)
    responses = {tuple(row[side]) for row in split.rows(range(6))
                 for side in ("chosen_ids", "rejected_ids")}
    assert pairs == 6 and len(responses) == 4 and batch["last_index"].shape == (1, 4)
    assert batch["input_ids"].shape[1] == len(split[0]["prompt_ids"]) + sum(map(len, responses))


def test_no_function_of_batching_takes_scores_or_sources():
    for thing in (PairDataset.__init__, TreeCollator.__call__, TreeCollator.lay_out,
                  scoring_batches, StepSampler.__init__):
        assert not {"score_chosen", "score_rejected", "source"} & set(
            inspect.signature(thing).parameters)


def test_random_pairs_have_ids_of_their_own():
    split = random_pairs(50)
    assert len(set(split.pair_ids)) == 50 and split.pair_ids[0] == content_hash([0, 0])
