"""A pointwise record: one answer and its label, the side picked by a coin and by nothing else."""

import math
from dataclasses import replace

import numpy as np

from configs.schema import DataConfig
from data.pairs.compare import one_side
from data.pairs.splits import CONTRADICTORY, DUPLICATE, REASONS, PairIndex, assign_splits, id_to_int
from data.records import ABSENT, Pair, left_is_chosen

N = 2_000
FOUR_DEVIATIONS = 4 * math.sqrt(N * 0.25)


def pair(number: int, chosen: str = "right", rejected: str = "wrong") -> Pair:
    prompt = ({"role": "user", "content": f"Question {number}?"},)
    return Pair(prompt, chosen, rejected, 2.0, 1.0, f"a.jsonl:{number}", "part", 1500.0)


def is_right(record: Pair) -> bool:
    return record.rejected == ABSENT


def split_reasons(records: list[Pair]) -> list[str]:
    """Why each record is dropped, or "" where it is kept."""
    index = PairIndex(np.array([id_to_int(r.pair_id) for r in records], np.uint64),
                      np.array([id_to_int(r.prompt_id) for r in records], np.uint64),
                      np.array([r.chosen < r.rejected for r in records]),
                      np.array([""] * len(records)), np.zeros(len(records), np.uint16),
                      np.zeros(len(records), np.int8))
    reason = assign_splits(index, DataConfig(name="t", path="a.jsonl")).reason
    return [REASONS[code] if code >= 0 else "" for code in reason]


def test_one_side_stays_as_it_was_and_the_other_is_absent():
    for number in range(50):
        whole = pair(number)
        record = one_side(whole)
        if is_right(record):
            assert record == replace(whole, rejected=ABSENT, score_rejected=None)
        else:
            assert record == replace(whole, chosen=ABSENT, score_chosen=None)


def test_classes_are_balanced_whichever_text_sorts_first():
    for chosen, rejected in (("a", "b"), ("b", "a")):
        right = sum(is_right(one_side(pair(i, chosen, rejected))) for i in range(N))
        assert abs(right - N / 2) < FOUR_DEVIATIONS


def test_the_batch_side_is_a_fair_coin_within_each_class():
    records = [one_side(pair(i)) for i in range(N)]
    left = np.array([left_is_chosen(r.pair_id) for r in records])
    right = np.array([is_right(r) for r in records])
    for label in (True, False):
        assert abs(left[right == label].sum() - (right == label).sum() / 2) < FOUR_DEVIATIONS


def test_copies_of_a_pair_give_copies_of_one_record():
    assert one_side(pair(1)) == one_side(pair(1))
    assert split_reasons([one_side(pair(1)), one_side(pair(1)), one_side(pair(2))]) == [
        "", DUPLICATE, ""]


def test_opposite_preferences_for_the_same_answers_are_contradictory():
    for number in range(20):
        ways = [one_side(pair(number)), one_side(pair(number, "wrong", "right"))]
        assert ways[0].pair_id == ways[1].pair_id
        assert split_reasons(ways) == [CONTRADICTORY, CONTRADICTORY]
