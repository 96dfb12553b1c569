"""Conversations in the columns of a file become the turns that they are, however written."""

import json

import numpy as np
import pandas as pd
import pytest

from configs.schema import DataConfig
from data.response_rows import read_responses
from data.serialised import MAX_CHARS, parsed
from data.sources import open_source
from tests.test_sources import PROMPT, content, read, turns
from tests.tiny_data import messages_row, write_jsonl

ANSWERS = {"chosen": [{"role": "assistant", "content": "It's \"good\".\nYes: {a} [b] nan."}],
           "rejected": [{"role": "assistant", "content": "Bad."}]}
PAIR = (PROMPT, ANSWERS["chosen"][0]["content"], "Bad.")
QUESTION = [{"role": "user", "content": "Hi?"}]
WHOLE = {name: [*QUESTION, *answer] for name, answer in ANSWERS.items()}
HOW = {"JSON": json.dumps, "indented JSON": lambda value: json.dumps(value, indent=2),
       "JSON as it is": lambda value: json.dumps(value, ensure_ascii=False), "Python": str,
       "numpy": lambda value: str(np.array(value, dtype=object)),
       "one JSON message": lambda value: json.dumps(value[0] if len(value) == 1 else value)}
"""How a list of messages comes to be text."""


def scored(path):
    """(prompt, responses) of every row as src.scoring reads it, or the reason why there is none."""
    source = open_source(str(path), DataConfig(name="a", path=str(path)))
    rows = read_responses(source.raw_rows(), path.name)
    return [row if isinstance(row, str) else (row.prompt, row.texts) for _, row in rows]


def as_pairs(rows):
    return [item if isinstance(item, str) else (item[0], *item[1]) for item in rows]


@pytest.mark.parametrize("written", HOW.values(), ids=HOW)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_messages_written_as_text_are_turns_and_not_the_answer(tmp_path, written, suffix):
    rows = [{"prompt": "Hi?", **{name: written(side) for name, side in sides.items()}}
            for sides in (ANSWERS, WHOLE)]
    rows.append({**rows[0], "prompt": written(QUESTION)})
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, rows)
    else:
        getattr(pd.DataFrame(rows), f"to_{suffix}")(path, index=False)
    assert content(read(path)[1]) == [PAIR] * 3
    assert as_pairs(scored(path)) == [PAIR] * 3


def test_what_pandas_writes_of_a_parquet_with_message_lists_is_read_as_the_parquet_is(tmp_path):
    parts = [{"type": "text", "text": "Part one, " * 9}, {"type": "text", "text": "and two."}]
    frame = pd.DataFrame([{**WHOLE, "messages": WHOLE["chosen"]},
                          messages_row("Why?", "It's so.", "No \\ idea.")])
    frame.to_parquet(tmp_path / "a.parquet")
    again = pd.read_parquet(tmp_path / "a.parquet")
    assert isinstance(again.chosen[0], np.ndarray)
    again.to_csv(tmp_path / "a.csv", index=False)
    expected = content(read(tmp_path / "a.parquet")[1])
    assert expected[0] == PAIR
    assert content(read(tmp_path / "a.csv")[1]) == expected
    nested = np.array([{"role": "user", "content": np.array(parts, dtype=object),
                        "name": float("nan")}], dtype=object)
    assert parsed(str(nested)) == [{"role": "user", "content": parts, "name": None}]


@pytest.mark.parametrize("answer", [
    "[{'role': 'assistant', 'content': 'cut sho", '[{"role": "assistant", "content": "a"}, ',
    "[{'content': 'a', 'role': 'assistant', 'at': datetime.date(2020, 1, 1)}]",
    "[{'role': 'assistant', 'content': __import__('os').getcwd()}]",
    "[{'role': 'assistant', 'content': " + "[" * 5_000 + "]" * 5_000 + "}]",
    '[{"role": "assistant", "content": ' + "[" * 100_000 + "]" * 100_000 + "}]",
    '[{"role": "assistant", "content": ' + "9" * 5_000 + "}]",
    "[{'role': 'assistant', 'content': '" + "\\'" * (MAX_CHARS // 2) + "'}]",
    "[{'role': 'assistant', 'content': 'bad \\d escape'}]",
    "[{'role': 'assistant', 'content': 'a'}\n ...\n {'role': 'assistant', 'content': 'b'}]"],
    ids=lambda answer: answer[34:64])
def test_a_list_of_messages_that_cannot_be_read_is_a_bad_row(tmp_path, answer):
    rows = [{"prompt": "Hi?", "chosen": answer, "rejected": "Bad."}] * 2
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    reason = "unreadable list of messages in chosen"
    assert content(read(path, form="prompt_answers")[1]) == [reason] * 2
    assert content(read(path)[1]) == scored(path) == [reason] * 2


@pytest.mark.parametrize("answer", [
    "[1] See the notes.", "[INST] Hi [/INST]", '[{"a": 1}]', "{'role': 'a set'}", "[]", "[{}]",
    "[{not a list}]", '{"name": "x", "role": "king", "content": 3}', "['one', 'two']",
    'A request is [{"role": "user", "content": "x"}].', "{'content': 'a'} is a dict"])
def test_a_text_that_only_begins_like_a_list_stays_a_text(tmp_path, answer):
    rows = [{"prompt": answer, "chosen": answer, "rejected": "Bad."}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    expected = [(({"role": "user", "content": answer},), answer, "Bad.")]
    assert content(read(path)[1]) == as_pairs(scored(path)) == expected


@pytest.mark.parametrize("written", HOW.values(), ids=HOW)
def test_answers_of_every_form_and_responses_may_be_written_as_text(tmp_path, written):
    good, bad = (written(ANSWERS[name]) for name in ("chosen", "rejected"))
    cases = {
        "scored_answers": ({"prompt": "Hi?", "response_a": good, "response_b": bad, "score_a": 2,
                            "score_b": 1}, {}),
        "lists": ({"prompt": "Hi?", "chosen": [good], "rejected": bad}, {"form": "lists"}),
        "answers": ({"prompt": "Hi?", "answers": [{"answer": good, "score": 2},
                                                  {"answer": bad, "score": 1}]},
                    {"form": "answers"}),
    }
    for name, (row, changes) in cases.items():
        path = write_jsonl(tmp_path / f"{name}.jsonl", [row])
        assert content(read(path, **changes)[1]) == [PAIR], name
    rows = [{"prompt": written(QUESTION), "responses": str([good, bad])},
            {"prompt": "Hi?", "response": good}, {"messages": written(WHOLE["chosen"])}]
    found = scored(write_jsonl(tmp_path / "scored.jsonl", rows))
    assert found == [(PROMPT, PAIR[1:]), (PROMPT, PAIR[1:2]), (PROMPT, PAIR[1:2])]


def test_responses_as_pandas_writes_a_list_of_texts_are_a_list(tmp_path):
    texts = ["It's so.", 'A "b"', "plain"]
    cells = json.dumps(texts), str(texts), str(np.array(texts, dtype=object))
    for i, written in enumerate(cells):
        path = tmp_path / f"{i}.csv"
        pd.DataFrame([{"prompt": "Hi?", "responses": written}]).to_csv(path, index=False)
        assert scored(path) == [(PROMPT, tuple(texts))]


def test_a_file_of_pairs_that_also_has_messages_is_scored_as_pairs(tmp_path):
    row = {"prompt": "Hi?", "prompt_id": "0f", **WHOLE, "messages": WHOLE["chosen"],
           "score_chosen": 9.0, "score_rejected": 2.0}
    rows = [row, {**row, "responses": ["x"], "response": "x"}, {"messages": row["messages"]}]
    assert scored(write_jsonl(tmp_path / "a.jsonl", rows)) == [
        (PROMPT, PAIR[1:]), (PROMPT, PAIR[1:]), (PROMPT, PAIR[1:2])]


GREETING = ("assistant", "Good day.")
JOINED = {
    "a greeting first": ("Hi?", [GREETING, ("user", "Hi?"), ("assistant", "A")],
                         [GREETING, ("user", "Hi?")]),
    "a greeting, spaces around the prompt": (
        " Hi?\n", [GREETING, ("user", "Hi?"), ("assistant", "A")], [GREETING, ("user", "Hi?")]),
    "a greeting and a prompt with a system message": (
        turns(("system", "Be brief."), ("user", "Hi?")),
        [GREETING, ("user", "Hi?"), ("assistant", "A")],
        [("system", "Be brief."), GREETING, ("user", "Hi?")]),
    "the system message of the prompt alone": (
        turns(("system", "Be brief."), ("user", "Hi?")), [("user", "Hi?"), ("assistant", "A")],
        [("system", "Be brief."), ("user", "Hi?")]),
    "only the last turn of the prompt": (
        turns(("user", "One"), ("assistant", "Two"), ("user", "Hi?")),
        [("user", "Hi?"), ("assistant", "A")],
        [("user", "One"), ("assistant", "Two"), ("user", "Hi?")]),
    "a question asked twice": (
        turns(("user", "Hi?"), ("assistant", "Two"), ("user", "Hi?")),
        [("user", "Hi?"), ("assistant", "Two"), ("user", "Hi?"), ("assistant", "A")],
        [("user", "Hi?"), ("assistant", "Two"), ("user", "Hi?")]),
    "a conversation that goes on": (
        "One", [("assistant", "Two"), ("user", "Hi?"), ("assistant", "A")],
        [("user", "One"), ("assistant", "Two"), ("user", "Hi?")]),
    "a conversation of its own": (
        "an id", [("user", "Hi?"), ("assistant", "A")], [("user", "Hi?")]),
}


@pytest.mark.parametrize("case", JOINED)
def test_no_turn_of_a_prompt_is_written_twice_or_lost(tmp_path, case):
    prompt, chosen, expected = JOINED[case]
    row = {"prompt": prompt, "chosen": turns(*chosen),
           "rejected": turns(*chosen[:-1], ("assistant", "B"))}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert content(read(path)[1]) == as_pairs(scored(path)) == [(tuple(turns(*expected)), "A", "B")]
