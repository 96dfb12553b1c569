"""The vocabulary: ids that depend on content alone, and a fair, fixed choice of the left answer."""

import dataclasses
import hashlib

from data.records import Pair, left_is_chosen
from src.common.hashing import content_hash

PROMPT = ({"role": "user", "content": "Where?"},)
PAIR = Pair(PROMPT, chosen="Here.", rejected="There.")


def test_pair_id_has_a_known_value_that_no_machine_changes():
    assert PAIR.prompt_id == content_hash([["user", "Where?"]])
    text = f'["{PAIR.prompt_id}","Here.","There."]'
    assert PAIR.pair_id == hashlib.sha256(text.encode()).hexdigest()[:16] == "f47a34f3f4818e44"


def test_pair_id_does_not_tell_which_answer_was_chosen():
    flipped = dataclasses.replace(PAIR, chosen=PAIR.rejected, rejected=PAIR.chosen)
    assert flipped.pair_id == PAIR.pair_id


def test_pair_id_does_not_depend_on_scores_or_source():
    assert dataclasses.replace(PAIR, score_chosen=1.0, source="other:3").pair_id == PAIR.pair_id


def test_pair_id_depends_on_prompt_role_and_both_answers():
    system = ({"role": "system", "content": "Where?"},)
    others = [dataclasses.replace(PAIR, prompt=system), dataclasses.replace(PAIR, chosen="Here"),
              dataclasses.replace(PAIR, rejected="There"),
              dataclasses.replace(PAIR, prompt=(*PROMPT, *PROMPT))]
    assert len({pair.pair_id for pair in (PAIR, *others)}) == 5


def test_prompt_id_is_shared_by_pairs_with_other_answers():
    assert dataclasses.replace(PAIR, chosen="Yonder.").prompt_id == PAIR.prompt_id


def test_content_hash_ignores_the_order_of_keys_and_takes_broken_unicode():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert len(content_hash("\ud800")) == 16


def test_left_is_chosen_has_known_values():
    known = {f"{i:016x}": hashlib.sha256(f"left:{i:016x}".encode()).digest()[0] % 2 == 0
             for i in range(8)}
    assert {pair: left_is_chosen(pair) for pair in known} == known
    assert list(known.values()) == [True, False, True, True, True, False, False, False]


def test_left_is_chosen_is_a_fair_coin():
    heads = sum(left_is_chosen(content_hash(i)) for i in range(10_000))
    assert abs(heads - 5_000) < 4 * 50  # four standard deviations of a fair coin


def test_left_is_chosen_does_not_follow_the_answers_order():
    pairs = [Pair(PROMPT, f"answer {i}", f"answer {i + 1}") for i in range(2_000)]
    agree = sum(left_is_chosen(p.pair_id) == (p.chosen < p.rejected) for p in pairs)
    assert abs(agree - 1_000) < 4 * 22.4
