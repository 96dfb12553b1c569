"""Batches: literal tensors, equal rewards in both layouts, and no way in for ground truth."""

import inspect

import numpy as np
import pytest
import torch

from data.records import content_hash, left_is_chosen
from model.reward_model import build_reward_model
from src.batching import (
    NO_LABEL,
    NO_PAIR,
    MicroBatches,
    PairCollator,
    PairDataset,
    collate_rows,
    scoring_batches,
)
from tests.families import PAD
from tests.tiny_pairs import MemorySplit, random_pairs

PAIRS = [{"row": 4, "prompt_ids": [7, 8], "left_ids": [1], "right_ids": [2, 3], "label": 0.25},
         {"row": 9, "prompt_ids": [9], "left_ids": [4], "right_ids": [5], "label": 1.0}]


def test_the_collator_s_docstring_example_holds():
    batch = PairCollator(pad_token_id=0)(PAIRS)
    literal = {
        "input_ids": [[7, 8, 1, 2, 3], [9, 4, 5, 0, 0]],
        "position_ids": [[0, 1, 2, 2, 3], [0, 1, 1, 0, 0]],
        "branch": [[0, 0, 1, 2, 2], [0, 1, 2, -1, -1]],
        "last_index": [[2, 4], [1, 2]],
        "labels": [0.25, 1.0],
        "row": [4, 9],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == literal


def test_without_a_shared_prompt_an_answer_is_a_row():
    batch = PairCollator(pad_token_id=0, share_prompt=False)(PAIRS)
    literal = {
        "input_ids": [[7, 8, 1, 0], [7, 8, 2, 3], [9, 4, 0, 0], [9, 5, 0, 0]],
        "position_ids": [[0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 0, 0], [0, 1, 0, 0]],
        "branch": [[0, 0, 1, -1], [0, 0, 1, 1], [0, 1, -1, -1], [0, 1, -1, -1]],
        "last_index": [[2], [3], [1], [1]],
        "labels": [0.25, 1.0],
        "row": [4, 9],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == literal


def test_rewards_are_read_at_the_last_token_even_where_it_is_the_padding_token():
    batch = collate_rows([([7], ([1, PAD], [PAD])), ([7], ([1], [2]))], PAD)
    assert batch["last_index"].tolist() == [[2, 3], [1, 2]]


def test_tensors_have_the_types_that_the_model_takes():
    types = {name: tensor.dtype for name, tensor in PairCollator(0)(PAIRS).items()}
    assert types.pop("labels") == torch.float32
    assert set(types.values()) == {torch.int64}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neo"])
def test_rewards_are_the_same_with_and_without_a_shared_prompt(base, family):
    model = build_reward_model(base(family), (1, 3, 5), seed=0, pad_token_id=PAD).eval()
    data = PairDataset(random_pairs(7), np.ones(7))
    examples = data.__getitems__(range(7))
    rewards = {}
    for shared in (True, False):
        batch = PairCollator(PAD, shared)(examples)
        with torch.no_grad():
            rewards[shared] = model(**{k: v for k, v in batch.items()
                                       if k not in ("labels", "row")}).view(-1, 2)
    assert rewards[True].std() > 0.01  # a constant would agree as well
    torch.testing.assert_close(rewards[True], rewards[False], atol=1e-5, rtol=1e-5)


def test_the_left_answer_and_its_label_follow_the_pair_s_hash():
    split, labels = random_pairs(40), np.linspace(0, 1, 40)
    data = PairDataset(split, labels)
    for i, example in enumerate(data.__getitems__(range(40))):
        row, chosen_left = split[i], left_is_chosen(split.pair_ids[i])
        left, right = ("chosen_ids", "rejected_ids") if chosen_left else (
            "rejected_ids", "chosen_ids")
        assert (example["left_ids"], example["right_ids"]) == (row[left], row[right])
        assert example["label"] == pytest.approx(labels[i] if chosen_left else 1 - labels[i])
    sides = {left_is_chosen(pair) for pair in split.pair_ids}
    assert sides == {True, False}


def test_human_labels_are_1_where_the_chosen_answer_is_left_and_0_elsewhere():
    split = random_pairs(40)
    expected = [float(left_is_chosen(pair)) for pair in split.pair_ids]
    assert PairDataset(split, np.ones(40)).labels.tolist() == expected


def test_a_student_s_example_holds_ids_and_a_weak_label_and_no_other_column():
    example = PairDataset(random_pairs(3), np.full(3, 0.3))[1]
    assert sorted(example) == ["label", "left_ids", "prompt_ids", "right_ids", "row"]
    batch = PairCollator(PAD)([example])
    assert sorted(batch) == ["branch", "input_ids", "labels", "last_index", "position_ids", "row"]


def test_a_student_s_batch_is_a_function_of_weak_labels_only():
    """With the truth of every pair turned around, and P(chosen > rejected) with it, each answer
    keeps its probability: only the side it stands on may differ."""
    split, weak = random_pairs(30), np.random.default_rng(0).random(30)
    rows = split.rows(range(30))
    turned = MemorySplit([{**row, "chosen_ids": row["rejected_ids"],
                           "rejected_ids": row["chosen_ids"]} for row in rows])

    def beliefs(data):
        """Prompt and answers without their sides, with the first answer's probability."""
        for e in data.__getitems__(range(30)):
            sides = [(e["left_ids"], float(e["label"])), (e["right_ids"], 1 - float(e["label"]))]
            (first, p), (second, _) = sorted(sides)
            yield e["prompt_ids"], first, second, round(p, 5)

    assert list(beliefs(PairDataset(split, weak))) == list(beliefs(PairDataset(turned, 1 - weak)))


def test_teacher_and_student_read_the_same_sides():
    split = random_pairs(20)
    truth = PairDataset(split, np.ones(20)).__getitems__(range(20))
    weak = PairDataset(split, np.full(20, 0.4)).__getitems__(range(20))
    for a, b in zip(truth, weak, strict=True):
        assert {k: v for k, v in a.items() if k != "label"} == {
            k: v for k, v in b.items() if k != "label"}


def test_labels_of_another_number_are_refused():
    with pytest.raises(ValueError, match="3 labels for 4 pairs"):
        PairDataset(random_pairs(4), np.ones(3))


def test_one_item_is_the_same_as_a_batch_of_one():
    data = PairDataset(random_pairs(5), np.linspace(0, 1, 5))
    assert [data[i] for i in range(5)] == data.__getitems__(range(5))
    assert len(data) == 5


def micro_batches(world, micro, batch_pairs, lengths, seed=0, epoch=0):
    """Every rank's micro batches."""
    ranks = [MicroBatches(lengths, batch_pairs, micro, rank, world, seed) for rank in range(world)]
    for rank in ranks:
        rank.set_epoch(epoch)
    assert all(len(list(rank)) == len(rank) for rank in ranks)
    return [list(rank) for rank in ranks]


def test_the_micro_batches_docstring_example_holds(monkeypatch):
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.tensor([5, 1, 6, 0, 3, 4, 2]))
    assert micro_batches(2, 1, 4, np.arange(7)) == [[[6], [1], [4], [2]],
                                                    [[5], [0], [3], [NO_PAIR]]]


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2)])
def test_every_step_takes_the_same_pairs_however_it_is_shared(world, micro):
    lengths = random_pairs(21).lengths().sum(axis=1)
    whole = [set(step) for step in micro_batches(1, 8, 8, lengths)[0]]
    ranks = micro_batches(world, micro, 8, lengths)
    per_step = 8 // (world * micro)
    steps = [[i for rank in ranks for batch in rank[n:n + per_step] for i in batch if i != NO_PAIR]
             for n in range(0, len(ranks[0]), per_step)]
    assert [set(step) for step in steps] == whole
    assert sorted(sum(steps, [])) == list(range(21))
    assert len({tuple(len(batch) for batch in rank) for rank in ranks}) == 1


def test_no_epoch_of_a_seed_is_shuffled_like_one_of_another():
    lengths = np.arange(40)
    orders = {str(micro_batches(1, 4, 4, lengths, seed, epoch))
              for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12


def test_a_pair_that_only_fills_a_batch_has_a_label_that_is_not_counted():
    filler = PairDataset(random_pairs(3), np.ones(3)).__getitems__([NO_PAIR])[0]
    assert filler["label"] == NO_LABEL == -100 and filler["row"] == NO_PAIR


@pytest.mark.parametrize("batch_pairs", [1, 4, 11, 100])
def test_scoring_covers_every_pair_once_longest_first(batch_pairs):
    split = random_pairs(11)
    wanted = [10, 3, 0, 7, 5, 2, 9]
    chunks = list(scoring_batches(split, wanted, batch_pairs, PairCollator(PAD)))
    seen = np.concatenate([indices for indices, _ in chunks])
    assert sorted(seen) == sorted(wanted)
    lengths = split.lengths().sum(axis=1)[seen]
    assert (np.diff(lengths) <= 0).all()
    assert all(len(indices) <= batch_pairs for indices, _ in chunks)
    assert [batch["row"].tolist() for _, batch in chunks] == [i.tolist() for i, _ in chunks]


def test_scoring_keeps_the_order_chosen_rejected():
    split = random_pairs(6)
    for indices, batch in scoring_batches(split, range(6), 2, PairCollator(PAD)):
        for i, ids, last in zip(indices, batch["input_ids"], batch["last_index"], strict=True):
            row = split[i]
            assert [ids[at].item() for at in last] == [row["chosen_ids"][-1],
                                                       row["rejected_ids"][-1]]


def test_no_function_of_batching_takes_scores_or_sources():
    for thing in (PairDataset.__init__, PairCollator.__call__, collate_rows, scoring_batches):
        assert not {"score_chosen", "score_rejected", "source"} & set(
            inspect.signature(thing).parameters)


def test_random_pairs_have_ids_of_their_own():
    split = random_pairs(50)
    assert len(set(split.pair_ids)) == 50 and split.pair_ids[0] == content_hash([0, 0])
