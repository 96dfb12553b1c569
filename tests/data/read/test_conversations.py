"""Conversations in the columns of a file become the turns that they are, however written."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from configs.data_schema import CompareConfig
from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data.files.serialised import MAX_CHARS, parsed
from data.manifest import read_manifest
from data.pairs.compare import compared_pairs
from data.read.response_rows import read_responses
from data.read.row_notes import AS_LIST, OPEN_TRANSCRIPT, TRUE_OR_FALSE
from data.read.sources import as_fixture, find_form, open_source
from data.read.system_column import READ
from data.tokens.formatting import encode_pair
from src.common.errors import UserError
from src.evaluation.benchmark_source import read_rows
from src.evaluation.sets import EvalSet
from src.scoring.file import Summary
from tests.data.read.test_sources import PROMPT, content, read, turns
from tests.tiny_data import TURNS, gpt2_like, llama_like, messages_row, save, text_rows, write_jsonl
from tests.tiny_experiment import in_process

NAMES = sorted(path.stem for path in (CONFIG_ROOT / "data").glob("*.yaml"))
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
    rows = [row, {**row, "responses": ["x"], "response": "[{'role': 'assistant', 'content': 'cut"},
            {"messages": row["messages"]}]
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


ASK_BRIEFLY = ({"role": "system", "content": "Be brief."}, *PROMPT)
SYSTEM_ROWS = {
    "prompt_answers": {"prompt": "Hi?", "chosen": "A", "rejected": "B"},
    "messages": messages_row("Hi?", "A", "B"),
    "transcript": {"chosen": "\n\nHuman: Hi?\n\nAssistant: A",
                   "rejected": "\n\nHuman: Hi?\n\nAssistant: B"},
    "scored_answers": {"prompt": "Hi?", "response_a": "A", "response_b": "B", "score_a": 2,
                       "score_b": 1},
}


@pytest.mark.parametrize("form", SYSTEM_ROWS)
@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
def test_a_system_column_is_the_system_message_in_every_form(tmp_path, form, name):
    rows = [{**SYSTEM_ROWS[form], name: text} for text in ("Be brief.", "Be kind.", " ", None)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    kind = ({"role": "system", "content": "Be kind."}, *PROMPT)
    expected = [(prompt, "A", "B") for prompt in (ASK_BRIEFLY, kind, PROMPT, PROMPT)]
    assert content(read(path)[1]) == as_pairs(scored(path)) == expected
    assert len({pair.prompt_id for _, pair in read(path)[1]}) == 3
    assert content(read(path, keys={"system": ""})[1]) == [(PROMPT, "A", "B")] * 4


def test_responses_and_messages_to_score_get_their_system_column(tmp_path):
    rows = [{"prompt": "Hi?", "responses": ["A", "B"], "system": "Be brief."},
            {"prompt": "Hi?", "response": "A", "system": "Be brief."},
            {"messages": turns(("user", "Hi?"), ("assistant", "A")), "system_prompt": "Be brief."}]
    assert scored(write_jsonl(tmp_path / "a.jsonl", rows)) == [
        (ASK_BRIEFLY, ("A", "B")), (ASK_BRIEFLY, ("A",)), (ASK_BRIEFLY, ("A",))]


def test_a_system_column_that_is_something_else_is_no_message(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "Hi?", "system": "A", "system_prompt": "B",
                                               "system_message": 7}])
    rule = {"form": "answers", "columns": ["system", "system_prompt"],
            "compare": CompareConfig("first_is_better")}
    assert content(read(path, **rule)[1]) == [(PROMPT, "A", "B")]
    filled = read(path, **{**rule, "template": {"prompt": "{system}: {prompt}"}})
    assert content(filled[1]) == [(({"role": "user", "content": "A: Hi?"},), "A", "B")]


def test_one_system_message_is_enough_and_two_are_a_bad_row(tmp_path):
    row = {"chosen": [*ASK_BRIEFLY, {"role": "assistant", "content": "A"}],
           "rejected": [*ASK_BRIEFLY, {"role": "assistant", "content": "B"}]}
    rows = [{**row, "system": "Be brief.\n"}, {**row, "system": "Be kind."}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert content(read(path)[1]) == [(ASK_BRIEFLY, "A", "B"),
                                      "system messages in the conversation and in a column"]


def prepare(tmp_path, rows, *options):
    """The manifest of a file, prepared by the command."""
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    code = in_process("data.preprocess", "--train_path", str(path), "--output_dir",
                      str(tmp_path / "out"), "--val_pairs", "0", *options)
    assert code == 0
    return read_manifest(tmp_path / "out")


def test_rows_that_differ_only_in_the_system_column_are_two_prompts_and_are_told(tmp_path, capsys):
    rows = [{**row, "system": f"You are number {i}." if i % 4 else None}
            for i, row in enumerate(text_rows(40, per_prompt=2))]
    manifest = prepare(tmp_path, rows)
    assert sum(split["prompts"] for split in manifest["splits"].values()) == 40
    note = 'column system read as the system message (keys: {system: ""} leaves it out)'
    assert manifest["notes"] == {note: 30}
    assert f"note: 30 rows: {note}" in capsys.readouterr().out
    assert EvalSet(DataConfig(name="a", path="a"), tmp_path / "out").left_out == f"30 rows: {note}"
    (tmp_path / "b").mkdir()
    misnamed = prepare(tmp_path / "b", rows, "--system_key", "sistem")
    assert misnamed["notes"] == {"no system message in column sistem, which keys name": 40}
    without = prepare(tmp_path / "b", rows, "--system_key", "", "--overwrite", "True")
    assert sum(split["prompts"] for split in without["splits"].values()) == 20
    assert without["notes"] == {}


def test_where_everything_is_dropped_the_reasons_and_counts_are_told(tmp_path):
    empty, same = {"prompt": "Hi?", "chosen": "", "rejected": "B"}, SYSTEM_ROWS["prompt_answers"]
    rows = [empty] * 3 + [{**same, "rejected": "A"}] * 2
    with pytest.raises(UserError, match="no usable pair in .*: 3 empty side, 2 identical sides"):
        prepare(tmp_path, rows, "--max_bad_frac", "0.9")
    with pytest.raises(UserError, match=r"4 of 6 rows .*\(4 empty side; first is row 1"):
        prepare(tmp_path, [empty] * 4 + [same] * 2)
    dropped = "no pair is left for .* dropped: 3 empty side, 1 duplicate"
    with pytest.raises(UserError, match=dropped):
        prepare(tmp_path, [empty] * 3 + [same] * 2, "--max_bad_frac", "0.9")
    assert not (tmp_path / "out").exists()


def with_parts(**parts):
    """A pair whose chosen message has parts beside its text."""
    row = messages_row("Hi?", "A", "B")
    row["chosen"][-1] |= parts
    return row


TEXTS = [{"type": "text", "text": "A"}, {"text": " and", "type": "text", "image_url": None}, " B."]
CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
REFUSED = {
    "tool calls": ({"tool_calls": CALL}, "tool_calls in chosen"),
    "nothing but a tool call": ({"content": None, "tool_calls": CALL}, "tool_calls in chosen"),
    "a function call": ({"function_call": {"name": "f"}}, "function_call in chosen"),
    "images": ({"images": ["a.png"]}, "images in chosen"),
    "audio": ({"audio": {"id": "a"}}, "audio in chosen"),
    "an image in the content": ({"content": [*TEXTS, {"type": "image_url", "image_url": {
        "url": "a"}}]}, "image_url in chosen"),
    "a placeholder of an image": ({"content": [{"type": "image", "text": None}, *TEXTS]},
                                  "image in chosen"),
    "a tool's result": ({"content": [{"type": "tool_result", "content": "a"}]},
                        "tool_result in chosen"),
    "a part of another kind": ({"content": [{"type": "poem", "text": "a"}]},
                               "wrong type of chosen"),
    "a text that is none": ({"content": [{"type": "text", "text": 3}]}, "wrong type of chosen"),
}
LEFT_OUT = {
    "nothing": ({"name": None, "tool_calls": None, "images": [], "audio": {}, "refusal": "",
                 "function_call": float("nan")}, "A", []),
    "a list of texts": ({"content": TEXTS}, "A and B.", []),
    "a name": ({"name": "Ada"}, "A", ["name of a message left out"]),
    "reasoning": ({"reasoning_content": "Hm."}, "A", ["reasoning_content of a message left out"]),
    "thoughts in the content": ({"content": [{"type": "thinking", "thinking": "Hm."}, *TEXTS]},
                                "A and B.", ["thinking of a message left out"]),
    "anything": ({"weight": 1, "id": "x"}, "A", ["id of a message left out",
                                                 "weight of a message left out"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_message_that_is_more_than_its_text_is_a_bad_row_wherever_it_stands(tmp_path, case):
    parts, reason = REFUSED[case]
    row = with_parts(**parts)
    asked = {"prompt": [{**PROMPT[0], **parts}], "chosen": "A", "rejected": "B"}
    path = write_jsonl(tmp_path / "a.jsonl", [row, {"messages": row["chosen"]}, asked])
    assert content(read(path, form="messages")[1])[0] == reason
    assert scored(path) == [reason, reason.replace("chosen", "messages"),
                            reason.replace("chosen", "prompt")]


@pytest.mark.parametrize("case", LEFT_OUT)
def test_other_parts_of_messages_are_left_out_and_counted_by_name(tmp_path, case):
    parts, words, notes = LEFT_OUT[case]
    row = with_parts(**parts)
    path = write_jsonl(tmp_path / "a.jsonl", [row, row, {"messages": row["chosen"]}])
    assert scored(path) == [(PROMPT, (words, "B"))] * 2 + [(PROMPT, (words,))]
    config = DataConfig(name="a", path=str(path), form="messages")
    source = open_source(str(path), config)
    assert content(compared_pairs(source, "messages", config))[:2] == [(PROMPT, words, "B")] * 2
    assert source.notes == dict.fromkeys(notes, 2)


def test_what_a_row_has_beside_its_texts_is_counted(tmp_path):
    rows = [{**SYSTEM_ROWS["prompt_answers"], "images": ["a.png"], "audio": None},
            {"prompt": "\n\nHuman: One\n\nAssistant: Two\n\nHuman: Three", "chosen": True,
             "rejected": "B"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    summary = Summary()
    source = open_source(str(path), DataConfig(name="a", path=str(path)))
    usable = list(summary.usable(read_responses(source.raw_rows(), "a")))
    assert summary.notes == {"column images left out": 1, TRUE_OR_FALSE: 1, OPEN_TRANSCRIPT: 1}
    assert content(read(path)[1])[1] == (
        ({"role": "user", "content": rows[1]["prompt"]},), "true", "B")
    assert usable[1].texts == ("true", "B")


def test_true_and_false_among_the_answers_of_pandalm_are_words(tmp_path):
    row = {"instruction": "Is it?", "input": "", "response1": True, "response2": "Perhaps.",
           "annotator1": 1, "annotator2": 1, "annotator3": 2}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    config = load_config(DataConfig, "pandalm")
    source = open_source(str(path), config)
    (_, pair), = compared_pairs(source, config.form, config)
    assert (pair.chosen, pair.rejected, source.notes[TRUE_OR_FALSE]) == ("true", "Perhaps.", 1)
    rows = read_rows(replace(config, files={"test": str(path)}))
    assert rows.answers[0].texts == ("true", "Perhaps.") and rows.notes == source.notes


@pytest.mark.parametrize("name", NAMES)
def test_known_data_gives_no_note_but_that_of_its_own_system_column(name):
    config = load_config(DataConfig, name)
    if config.sources:
        return
    config = as_fixture(config)
    source = open_source(config.path or next(iter(config.files.values())), config)
    list(compared_pairs(source, find_form(source, config), config))
    assert not source.notes or (name, list(source.notes)) == ("orca_dpo", [READ.format("system")])


def test_texts_that_a_tokenizer_reads_as_control_tokens_are_counted(tmp_path, capsys):
    rows = text_rows(40)
    rows[3]["chosen"] += " <|end|> and <|start|>"
    rows[7]["prompt"] = [{"role": "system", "content": "<|end|>"}, *PROMPT]
    rows[9]["rejected"] = "<|end|><|end|>"
    folders = [save(llama_like(), tmp_path / "llama"), save(gpt2_like(TURNS), tmp_path / "gpt2")]
    manifest = prepare(tmp_path, rows, "--tokenizer_name", *folders)
    found = {entry["name"]: entry["control_tokens"] for entry in manifest["tokenizers"].values()}
    assert found == {folders[0]: {"pairs": 3, "tokens": {"<|end|>": 3, "<|start|>": 1}},
                     folders[1]: {"pairs": 0, "tokens": {}}}
    end = llama_like().convert_tokens_to_ids("<|end|>")
    assert encode_pair(llama_like(), PROMPT, "a", rows[9]["rejected"])[2][:2] == [end, end]
    assert "3 pairs have texts that" in capsys.readouterr().out


def test_lists_of_answers_in_a_csv_are_lists(tmp_path):
    right, wrong = ["It's A.", 'Or "a".'], ["B.", "b", "No."]
    items = [{"answer": "It's A.", "score": 2}, {"answer": "B.", "score": 1}]
    for i, written in enumerate((json.dumps, str, lambda value: str(np.array(value, object)))):
        path = tmp_path / f"{i}.csv"
        pd.DataFrame([{"prompt": "Hi?", "chosen": written(right), "rejected": written(wrong),
                       "answers": written(items)}]).to_csv(path, index=False)
        assert content(read(path, form="lists")[1]) == [(PROMPT, *pair) for pair in
                                                        itertools.product(right, wrong)]
        assert content(read(path, form="answers")[1]) == [(PROMPT, "It's A.", "B.")]
    alone = [{"prompt": "Hi?", "chosen": "['a']", "rejected": "No."}]
    found = read(write_jsonl(tmp_path / "a.jsonl", alone), form="lists")
    assert content(found[1]) == [(PROMPT, "['a']", "No.")]


def test_a_text_written_as_a_list_of_texts_stays_one_and_is_counted(tmp_path):
    rows = [{"prompt": '["Hi?"]', "chosen": '["A"]', "rejected": "B"}, SYSTEM_ROWS["messages"]]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    config = DataConfig(name="a", path=str(path), form="prompt_answers")
    source = open_source(str(path), config)
    (_, pair), _ = compared_pairs(source, "prompt_answers", config)
    assert (pair.prompt[0]["content"], pair.chosen) == ('["Hi?"]', '["A"]')
    assert source.notes[AS_LIST] == 1
