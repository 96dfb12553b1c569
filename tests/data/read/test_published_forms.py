"""Forms that data is published in become the pairs that they mean: ShareGPT, grades, KTO,
trees."""

import json
import math
import random
import tracemalloc

import pytest

from configs.schema import DataConfig, from_dict
from data.pairs.compare import compared_pairs
from data.read.response_rows import read_responses, row_to_responses
from data.read.sources import find_form, open_source
from src.common.errors import UserError
from tests.tiny_data import write_jsonl


def config(path, **values):
    return from_dict(DataConfig, {"name": "test", "path": str(path), **values}, "test")


def pairs(tmp_path, rows, **values):
    """(roles of the prompt, its texts, chosen, rejected) of each comparison, or its reason."""
    made = config(write_jsonl(tmp_path / "rows.jsonl", rows), **values)
    source = open_source(made.path, made)
    return [item if isinstance(item, str) else (
        [turn["role"] for turn in item.prompt], [turn["content"] for turn in item.prompt],
        item.chosen, item.rejected)
        for _, item in compared_pairs(source, find_form(source, made), made)]


def said(role, text):
    return {"from": role, "value": text}


TALK = [said("human", "Hi?"), said("gpt", "Hello."), said("human", "And?")]
EXPECTED = (["user", "assistant", "user"], ["Hi?", "Hello.", "And?"], "Good.", "Bad.")
SHAREGPT = {
    "one message each": {"conversations": TALK, "chosen": said("gpt", "Good."),
                         "rejected": said("gpt", "Bad.")},
    "lists of one": {"conversations": TALK, "chosen": [said("bot", "Good.")],
                     "rejected": [said("chatgpt", "Bad.")]},
    "texts": {"conversations": TALK, "chosen": "Good.", "rejected": "Bad."},
    "whole conversations": {"chosen": [*TALK, said("gpt", "Good.")],
                            "rejected": [*TALK, said("gpt", "Bad.")]},
    "whole beside the question": {"conversations": TALK, "chosen": [*TALK, said("gpt", "Good.")],
                                  "rejected": [*TALK, said("gpt", "Bad.")]},
    "json": {"conversations": json.dumps(TALK), "chosen": json.dumps(said("gpt", "Good.")),
             "rejected": json.dumps(said("gpt", "Bad."))},
    "other names": {"conversations": [said("prompter", "Hi?"), said("bot", "Hello."),
                                      said("user", "And?")],
                    "chosen": said("assistant", "Good."), "rejected": said("model", "Bad.")},
    "names of roles alone": {"prompt": [{"role": "human", "content": "Hi?"},
                                        {"role": "gpt", "content": "Hello."},
                                        {"role": "human", "content": "And?"}],
                             "chosen": "Good.", "rejected": "Bad."},
}


@pytest.mark.parametrize("form", SHAREGPT)
def test_sharegpt_rows_are_the_pairs_that_they_mean(tmp_path, form):
    assert pairs(tmp_path, [SHAREGPT[form]]) == [EXPECTED]


def test_a_system_message_of_sharegpt_stands_first_wherever_it_is_kept(tmp_path):
    row = SHAREGPT["one message each"]
    expected = (["system", *EXPECTED[0]], ["Be brief.", *EXPECTED[1]], *EXPECTED[2:])
    assert pairs(tmp_path, [
        {**row, "system": "Be brief."},
        {**row, "conversations": [said("system", "Be brief."), *TALK]},
        {**row, "system": ""}]) == [expected, expected, EXPECTED]


def test_what_is_wrong_with_a_message_of_sharegpt_is_named_in_its_own_words(tmp_path):
    row = SHAREGPT["one message each"]
    assert pairs(tmp_path, [
        row, {**row, "chosen": {"from": "gpt"}}, {**row, "chosen": said("narrator", "Good.")},
        {**row, "conversations": []}, {**row, "chosen": said("human", "Good.")}]) == [
        EXPECTED, "missing key value in chosen", "unknown role", "empty prompt",
        "chosen is not one message of the assistant's"]


def test_a_conversation_of_sharegpt_is_scored_by_its_last_message():
    found = row_to_responses({"conversations": [*TALK, said("gpt", "Good.")]}, "f:1")
    assert ([turn["content"] for turn in found.prompt], found.texts) == (EXPECTED[1], ("Good.",))


GRADED = {"form": "answers", "columns": ["output_1", "output_2"],
          "template": {"prompt": "{instruction}"}, "keys": {"better": "preference"}}


def graded(tmp_path, given, **compare):
    """What each grade makes of answers `one` and `two`: the chosen one, or a reason."""
    rows = [{"instruction": f"Q {i}?", "output_1": "one", "output_2": "two", "preference": grade}
            for i, grade in enumerate(given)]
    return [item if isinstance(item, str) else item[2] for item in pairs(
        tmp_path, rows, **GRADED, compare={"rule": "by_grade", **compare})]


def test_the_answer_that_a_grade_is_nearer_to_is_chosen(tmp_path):
    assert graded(tmp_path, [1, 1.0, "1.2", 1.499, 1.501, 1.8, 2], grades=[1, 2]) == [
        "one"] * 4 + ["two"] * 3
    assert graded(tmp_path, [-3, -1, 0, 2], grades=[-3, 3]) == [
        "one", "one", "no preference", "two"]
    assert graded(tmp_path, [0.9, 0.1], grades=[1, 0]) == ["one", "two"]


def test_a_grade_beyond_the_scale_or_none_is_a_bad_row_and_never_an_answer(tmp_path):
    """An older alpaca_eval writes 0 for a draw: read as below 1.5, it would prefer the first."""
    assert graded(tmp_path, [0, 2.5, math.nan, None, "x", True], grades=[1, 2]) == [
        "better is beyond the grades"] * 2 + [
        "better is not a finite number", "missing key better"] + ["wrong type of better"] * 2
    assert graded(tmp_path, [0, 0.0, 1.4], grades=[1, 2], ties=["0"]) == [
        "no preference", "no preference", "one"]


def test_threshold_and_tie_band_move_what_counts_as_a_preference(tmp_path):
    rng = random.Random(3)
    grades = [round(rng.uniform(1, 2), 2) for _ in range(300)] + [1.4, 1.6, 1.3, 1.7, 1.5]
    for threshold, band in ((None, 0.0), (None, 0.1), (1.4, 0.0), (1.6, 0.25)):
        middle = 150 if threshold is None else round(100 * threshold)
        expected = ["no preference" if abs(round(100 * grade) - middle) <= round(100 * band)
                    else "one" if 100 * grade < middle else "two" for grade in grades]
        assert graded(tmp_path, grades, grades=[1, 2], threshold=threshold,
                      tie_band=band) == expected


@pytest.mark.parametrize("wrong", [
    {"rule": "by_grade"}, {"rule": "by_grade", "grades": [1]}, {"grades": [1, 2]},
    {"rule": "by_grade", "grades": [2, 2]}, {"rule": "by_id", "threshold": 1.5},
    {"rule": "by_grade", "grades": [1, 2], "threshold": 2}, {"rule": "by_id", "tie_band": 0.1},
    {"rule": "by_grade", "grades": [1, 2], "tie_band": 1}, {"rule": "by_score", "ties": ["0"]},
    {"rule": "by_grade", "grades": [1, 2], "tie_band": -0.1}])
def test_grades_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match="compare: "):
        config("x", **GRADED, compare=wrong)


def rated(prompt, text, label):
    return {"prompt": prompt, "completion": text, "label": label}


def test_completions_of_a_prompt_are_compared_wherever_in_the_file_they_stand(tmp_path):
    """Against the pairs that were taken apart, in an order that has nothing to do with them."""
    rng = random.Random(5)
    rows, expected = [], []
    for i in range(400):
        right, wrong = rng.randrange(3), rng.randrange(3)
        rows += [rated(f"Q {i}?", f"right {i}.{k}", True) for k in range(right)]
        rows += [rated(f"Q {i}?", f"wrong {i}.{k}", False) for k in range(wrong)]
        expected += [(f"right {i}.{j}", f"wrong {i}.{k}") for j in range(right)
                     for k in range(wrong)]
    rng.shuffle(rows)
    found = pairs(tmp_path, rows)
    assert sorted(item[2:] for item in found if not isinstance(item, str)) == sorted(expected)
    assert {item for item in found if isinstance(item, str)} == {
        "no preference", "prompt has one answer"}


COMPLETIONS = {
    "texts": [rated("Hi?", "Good.", True), rated("Hi?", "Bad.", False)],
    "messages": [rated(turns, [{"role": "assistant", "content": text}], label)
                 for turns in [[{"role": "user", "content": "Hi?"}]]
                 for text, label in (("Good.", True), ("Bad.", False))],
    "messages beside": [{"messages": [{"role": "user", "content": "Hi?"}], "completion": text,
                         "label": label} for text, label in (("Good.", 1), ("Bad.", 0))],
    "messages alone": [{"messages": [{"role": "user", "content": "Hi?"},
                                     {"role": "assistant", "content": text}], "label": label}
                       for text, label in (("Good.", True), ("Bad.", False))],
    "sharegpt": [{"conversations": [said("human", "Hi?")], "completion": said("gpt", text),
                  "label": label} for text, label in (("Good.", True), ("Bad.", False))],
    "csv": [rated("Hi?", "Good.", "True"), rated("Hi?", "Bad.", "False")],
}


@pytest.mark.parametrize("form", COMPLETIONS)
def test_labelled_completions_are_recognised_paired_and_scored(tmp_path, form):
    rows = COMPLETIONS[form]
    assert pairs(tmp_path, rows) == [(["user"], ["Hi?"], "Good.", "Bad.")]
    assert [row_to_responses(row, "f:1").texts for row in rows] == [("Good.",), ("Bad.",)]


def test_pointwise_each_labelled_completion_is_a_record_of_its_own(tmp_path):
    rows = [rated("Hi?", "Good.", True), rated("Ho?", "Bad.", False), rated("Hi?", " ", True)]
    assert [item if isinstance(item, str) else item[2:] for item in
            pairs(tmp_path, rows, pointwise=True)] == [("Good.", ""), ("", "Bad."), "empty side"]


def test_a_column_called_label_makes_no_other_data_kto(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "Hi?"}], "label": 3},
            {"prompt": "Hi?", "completion": "x", "label": "positive"}]
    for row in rows:
        with pytest.raises(UserError, match="no known form"):
            pairs(tmp_path, [row])


def test_memory_does_not_grow_with_completions_that_wait_for_each_other(tmp_path):
    rows = [rated(f"Q {i % 1500}? {'q' * 4000}", f"{i // 1500} {'a' * 4000}", i < 1500)
            for i in range(3000)]  # 24 MB
    made = config(write_jsonl(tmp_path / "rows.jsonl", rows), form="kto")
    del rows
    tracemalloc.start()
    try:
        assert sum(1 for _ in compared_pairs(open_source(made.path, made), "kto", made)) == 1500
        assert tracemalloc.get_traced_memory()[1] < 1.5e7  # a thousand rows wait to be stored
    finally:
        tracemalloc.stop()


def random_tree(rng, size):
    """(id, parent, role, text, rank) of `size` messages: each replies to an earlier one, and the
    replies to one message are ranked, some of them to nobody's mind."""
    messages = [("m0", None, "prompter", "t0", None)]
    replies = {}
    for i in range(1, size):
        parent = rng.randrange(i)
        role = "assistant" if messages[parent][2] == "prompter" else "prompter"
        rank = replies.get(parent, 0) if role == "assistant" and rng.random() < 0.9 else None
        replies[parent] = replies.get(parent, 0) + 1
        messages.append((f"m{i}", f"m{parent}", role, f"t{i}", rank))
    return messages


def flat(messages, tree="m0"):
    return [{"message_id": own, "parent_id": parent, "message_tree_id": tree, "role": role,
             "text": text, "rank": rank, "lang": "en"}
            for own, parent, role, text, rank in messages]


def nested(messages):
    records = {own: {"message_id": own, "role": role, "text": text, "rank": rank, "lang": "en",
                     "replies": []} for own, _, role, text, rank in messages}
    for own, parent, *_ in messages[1:]:
        records[parent]["replies"].append(records[own])
    return {"message_tree_id": "m0", "tree_state": "ready", "prompt": records["m0"]}


def expected_of(messages):
    """The pairs of a tree by its definition: every two ranked replies to one message of a person's,
    under all that was said before."""
    by_id = {message[0]: message for message in messages}
    found = []
    for own, _, role, _, _ in messages:
        said_before, at = [], own
        while at is not None:
            said_before.insert(0, by_id[at][3])
            at = by_id[at][1]
        ranked = [(rank, text) for _, parent, _, text, rank in messages
                  if role == "prompter" and parent == own and rank is not None]
        found += [(said_before, better[1], worse[1]) for better in ranked for worse in ranked
                  if better[0] < worse[0]]
    return sorted(found)


@pytest.mark.parametrize("seed", range(4))
def test_every_two_ranked_replies_to_one_message_of_a_tree_are_a_pair(tmp_path, seed):
    rng = random.Random(seed)
    messages = random_tree(rng, 120)
    rows = flat(messages)
    rng.shuffle(rows)
    for given in (rows, [nested(messages)]):
        found = pairs(tmp_path, given)
        assert sorted(item[1:] for item in found if not isinstance(item, str)) == (
            expected_of(messages))
        assert {item for item in found if isinstance(item, str)} <= {
            "no score", "prompt has one answer"}


def test_trees_of_one_file_are_kept_apart(tmp_path):
    trees = [random_tree(random.Random(seed), 30) for seed in range(6)]
    rows = [row for i, messages in enumerate(trees) for row in flat(messages, f"tree {i}")]
    found = [item[1:] for item in pairs(tmp_path, rows) if not isinstance(item, str)]
    assert sorted(found) == sorted(pair for messages in trees for pair in expected_of(messages))


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_a_tree_is_read_to_any_depth(tmp_path, form):
    depth = 601 if form == "flat" else 401  # of JSON itself Python reads no deeper than 490
    messages = [("m0", None, "prompter", "t0", None)]
    for i in range(1, depth):
        messages.append((f"m{i}", f"m{i - 1}", "assistant" if i % 2 else "prompter", f"t{i}", None))
    last = messages[-1][0]
    messages += [("a", last, "assistant", "Good.", 0), ("b", last, "assistant", "Bad.", 1)]
    found = pairs(tmp_path, flat(messages) if form == "flat" else [nested(messages)])
    (pair,) = [item for item in found if not isinstance(item, str)]
    assert (len(pair[1]), *pair[2:]) == (depth, "Good.", "Bad.")


def test_what_a_tree_loses_is_counted_by_reason_and_takes_what_hangs_below(tmp_path):
    rows = flat([("m0", None, "prompter", "t0", None), ("m1", "m0", "assistant", "good", 0),
                 ("m2", "m0", "assistant", "bad", 1), ("m3", "m0", "assistant", "gone", 2),
                 ("m4", "m3", "prompter", "below", None), ("m5", "lost", "assistant", "x", 0),
                 ("m6", "m0", "assistant", None, 3), ("m7", "m0", "narrator", "y", None),
                 ("m8", "m1", "assistant", "again", 0)])
    rows[3]["deleted"] = True
    assert sorted(pairs(tmp_path, rows), key=str) == sorted([
        (["user"], ["t0"], "good", "bad"), "deleted message", "missing key text", "unknown role",
        "prompt ends with the assistant", "the message that it replies to is not there"], key=str)


def test_answers_of_a_tree_are_scored_in_their_places():
    messages = random_tree(random.Random(1), 40)
    rows = list(enumerate(flat(messages), 1))
    found = {item.row_id: item for _, item in read_responses(iter(rows), "f")
             if not isinstance(item, str)}
    assert found["m0"].texts == tuple(
        text for _, parent, _, text, _ in messages if parent == "m0")
    assert {text for item in found.values() for text in item.texts} == {
        text for _, _, role, text, _ in messages if role == "assistant"}
