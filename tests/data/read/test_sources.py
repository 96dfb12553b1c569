"""Raw data of every form and format becomes the same pairs; bad rows are counted by reason."""

import csv
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import DataConfig
from data.files import raw_json
from data.pairs.compare import compared_pairs
from data.read.sources import as_fixture, find_form, open_source
from data.records import Pair
from src.common.errors import UserError
from tests.tiny_data import messages_row, text_rows, write_jsonl

PROMPT = ({"role": "user", "content": "Hi?"},)
FORMS = {
    "messages": messages_row("Hi?", "Good.", "Bad."),
    "transcript": {"chosen": "\n\nHuman: Hi?\n\nAssistant: Good.",
                   "rejected": "\n\nHuman: Hi?\n\nAssistant: Bad."},
    "prompt_answers": {"prompt": "Hi?", "chosen": "Good.", "rejected": "Bad."},
    "scored_answers": {"prompt": "Hi?", "response_a": "Bad.", "response_b": "Good.",
                       "score_a": 1, "score_b": 2.5},
}


def read(path, **changes):
    """(form, rows as read) of a file."""
    config = DataConfig(name="test", path=str(path), **changes)
    source = open_source(config.path, config)
    form = find_form(source, config)
    return form, list(compared_pairs(source, form, config))


def content(rows):
    """What the rows hold, or their reasons, without names and scores."""
    return [item if isinstance(item, str) else (item.prompt, item.chosen, item.rejected)
            for _, item in rows]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_detected_and_gives_the_same_pair(tmp_path, form):
    found, rows = read(write_jsonl(tmp_path / "a.jsonl", [FORMS[form]]))
    assert found == form
    assert content(rows) == [(PROMPT, "Good.", "Bad.")]


def test_higher_score_is_chosen_whichever_side_it_is_on(tmp_path):
    row = FORMS["scored_answers"]
    swapped = {"prompt": "Hi?", "response_a": "Good.", "response_b": "Bad.", "score_a": 2.5,
               "score_b": 1}
    _, rows = read(write_jsonl(tmp_path / "a.jsonl", [row, swapped]))
    assert [(item.chosen, item.score_chosen, item.score_rejected) for _, item in rows] == [
        ("Good.", 2.5, 1.0)] * 2


def test_prompt_is_the_common_prefix_of_several_turns(tmp_path):
    talk = "\n\nHuman: One\n\nAssistant: Two\n\nHuman: Three\n\nAssistant:"
    _, rows = read(write_jsonl(tmp_path / "a.jsonl",
                               [{"chosen": f"{talk} Good\n", "rejected": f"{talk} Bad"}]))
    assert content(rows) == [((
        {"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"}), "Good", "Bad")]


def test_prompt_beside_whole_conversations_is_not_doubled(tmp_path):
    row = {"prompt": "Hi?", **messages_row("Hi?", "Good.", "Bad.")}
    only_answers = {"prompt": "Hi?", "chosen": [{"role": "assistant", "content": "Good."}],
                    "rejected": [{"role": "assistant", "content": "Bad."}]}
    for i, case in enumerate((row, only_answers)):
        _, rows = read(write_jsonl(tmp_path / f"{i}.jsonl", [case]))
        assert content(rows) == [(PROMPT, "Good.", "Bad.")]


def test_other_column_names_and_nested_ones_come_from_keys(tmp_path):
    row = {"question": "Hi?", "good": "Good.", "bad": "Bad.", "meta": {"high": 9, "low": 3}}
    keys = {"prompt": "question", "chosen": "good", "rejected": "bad",
            "score_chosen": "meta.high", "score_rejected": "meta.low"}
    _, rows = read(write_jsonl(tmp_path / "a.jsonl", [row]), keys=keys)
    assert rows == [(1, Pair(PROMPT, "Good.", "Bad.", 9.0, 3.0, "a.jsonl:1"))]


def test_every_format_gives_the_same_pairs(tmp_path):
    rows = text_rows(2_500)
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_jsonl(tmp_path / "lines.json", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(
        str(tmp_path / "several"))
    expected = content(read(tmp_path / "a.jsonl")[1])
    assert len(expected) == 2_500
    for name in ("lines.json", "a.json", "a.parquet", "a.csv", "one", "several"):
        form, found = read(tmp_path / name)
        assert (form, content(found)) == ("prompt_answers", expected), name
        assert [number for number, _ in found] == list(range(1, 2_501)), name


def test_json_array_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_json, "CHUNK_CHARS", 7)
    (tmp_path / "a.json").write_text(json.dumps(text_rows(20)))
    write_jsonl(tmp_path / "a.jsonl", text_rows(20))
    assert content(read(tmp_path / "a.json")[1]) == content(read(tmp_path / "a.jsonl")[1])


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_what_follows_the_first_json_value_is_refused_not_left_out(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(raw_json, "CHUNK_CHARS", chunk)
    rows = text_rows(3)
    array, keyed = (json.dumps(each, indent=1) for each in (rows, dict(enumerate(rows))))
    for text in (array, keyed):
        (tmp_path / "a.json").write_text(text + "\r\n" * 20)
        assert len(read(tmp_path / "a.json")[1]) == 3
    for text in (f"{array}\n{array}", f"{keyed}\n{keyed}", array + " " * 20 + ",", array + "]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError, match="a.json: not readable as JSON after item 3.* follows"):
            read(tmp_path / "a.json")


def test_csv_may_carry_message_lists_as_json(tmp_path):
    row = FORMS["messages"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["chosen", "rejected"])
        writer.writerow([json.dumps(row["chosen"]), json.dumps(row["rejected"])])
    assert content(read(tmp_path / "a.csv")[1]) == [(PROMPT, "Good.", "Bad.")]


def test_a_csv_row_of_more_cells_than_columns_is_a_bad_one_not_one_with_its_texts_shifted(tmp_path):
    lines = ["prompt,chosen,rejected", "Hi?,Good.,Bad.", "Hi, you?,Good.,Bad.", "Hi?,Good.,Bad.,",
             '"Hi, you?",Good.,Bad.']
    (tmp_path / "a.csv").write_text("\n".join(lines))
    first, *shifted, quoted = content(read(tmp_path / "a.csv")[1])
    assert (first, shifted) == ((PROMPT, "Good.", "Bad."), ["more cells than columns"] * 2)
    assert quoted[0][0]["content"] == "Hi, you?"
    (tmp_path / "b.csv").write_text("\n".join([lines[0], *lines[2:4]]))
    with pytest.raises(UserError, match=r"found columns none \(row 1: more cells than columns\)"):
        read(tmp_path / "b.csv")


ROW_OF_QUOTES = '"Hi, you?","Say ""hi"".",Bad.\n'


@pytest.mark.parametrize(("last", "line"), [
    ('"Hi?,Good.,Bad.\n' + 9 * "Hi?,Good.,Bad.\n", 14), ('"Hi?,Good.,Bad.\n' + ROW_OF_QUOTES, 6),
    ('Hi?,"Good \\"one\\".",Bad.\n', 5), ('Hi?,Good.,"Ba', 5)],
    ids=["never closed", "closed by the next", "backslashes", "cut short"])
def test_a_csv_whose_quotes_do_not_match_is_refused_not_read_as_fewer_rows(tmp_path, last, line):
    path = tmp_path / "a.csv"
    path.write_text("prompt,chosen,rejected\n" + 3 * ROW_OF_QUOTES)
    assert [chosen for _, chosen, _ in content(read(path)[1])] == ['Say "hi".'] * 3
    path.write_text(path.read_text() + last)
    with pytest.raises(UserError, match=f"a.csv: not readable as csv, line {line}: .* doubled"):
        read(path)


def turns(*pairs):
    return [{"role": role, "content": text} for role, text in pairs]


BAD_ROWS = [
    ("prompt_answers", {"prompt": "Hi?", "chosen": "Good."}, "missing key rejected"),
    ("prompt_answers", {"prompt": "Hi?", "chosen": "Good.", "rejected": None},
     "missing key rejected"),
    ("prompt_answers", {"prompt": "Hi?", "chosen": "Good.", "rejected": 3},
     "wrong type of rejected"),
    ("prompt_answers", {"prompt": 7, "chosen": "Good.", "rejected": "Bad."},
     "wrong type of prompt"),
    ("prompt_answers", {"prompt": "Hi?", "chosen": " \n", "rejected": "Bad."}, "empty side"),
    ("prompt_answers", {"prompt": " ", "chosen": "Good.", "rejected": "Bad."}, "empty prompt"),
    ("prompt_answers", {"prompt": "Hi?", "chosen": "Same.", "rejected": "Same. "},
     "identical sides"),
    ("prompt_answers", {"prompt": "Hi?", "chosen": "\ud800", "rejected": "Bad."}, "not UTF-8"),
    ("messages", {"chosen": turns(("user", "a"), ("assistant", "b")),
                  "rejected": turns(("user", "x"), ("assistant", "c"))},
     "prompts are not a common prefix"),
    ("messages", {"chosen": turns(("user", "a"), ("assistant", "b"), ("user", "c")),
                  "rejected": turns(("user", "a"), ("assistant", "b"), ("user", "d"))},
     "last turn is not the assistant's"),
    ("messages", {"chosen": turns(("user", "a"), ("narrator", "b")),
                  "rejected": turns(("user", "a"), ("narrator", "c"))}, "unknown role"),
    ("messages", {"chosen": [{"role": "user"}], "rejected": [{"role": "user"}]},
     "missing key content in chosen"),
    ("messages", {"chosen": [], "rejected": []}, "empty side"),
    ("messages", {"chosen": ["Good."], "rejected": ["Bad."]}, "wrong type of chosen"),
    ("messages", {"chosen": turns(("assistant", "b")), "rejected": turns(("assistant", "c"))},
     "empty prompt"),
    ("messages", {"chosen": turns(("user", "q"), ("assistant", "a"), ("assistant", "b")),
                  "rejected": turns(("user", "q"), ("assistant", "a"), ("assistant", "c"))},
     "prompt ends with the assistant"),
    ("transcript", {"chosen": "Hello", "rejected": "Bye"}, "not a Human / Assistant transcript"),
    ("scored_answers", {**FORMS["scored_answers"], "score_a": 2.5}, "equal scores"),
    ("scored_answers", {**FORMS["scored_answers"], "score_a": "high"}, "wrong type of score_a"),
    ("scored_answers", {**FORMS["scored_answers"], "score_a": float("nan")},
     "score_a is not a finite number"),
    ("prompt_answers", b'{"prompt": "Hi?", "chosen": "\xff\xfe", "rejected": "Bad."}',
     "not UTF-8"),
    ("prompt_answers", b'{"prompt": "Hi?", "chosen": "Go', "not readable as JSON"),
    ("prompt_answers", b'["Hi?", "Good.", "Bad."]', "not a JSON object"),
]


@pytest.mark.parametrize(("form", "row", "reason"), BAD_ROWS)
def test_bad_row_is_counted_with_its_number_and_the_rows_around_it_are_kept(tmp_path, form, row,
                                                                            reason):
    good = FORMS[form]
    _, rows = read(write_jsonl(tmp_path / "a.jsonl", [good, good, row, good]), form=form)
    assert [number for number, _ in rows] == [1, 2, 3, 4]
    assert [item for _, item in rows if isinstance(item, str)] == [reason]
    assert rows[2][1] == reason


def test_bytes_that_are_not_utf8_are_found_in_every_format(tmp_path):
    row = b'{"prompt": "Hi?", "chosen": "\xff", "rejected": "Bad."}'
    good = json.dumps(FORMS["prompt_answers"]).encode()
    (tmp_path / "a.json").write_bytes(b"[" + good + b"," + row + b"]")
    (tmp_path / "a.csv").write_bytes(b"prompt,chosen,rejected\nHi?,Good.,Bad.\nHi?,\xff,Bad.\n")
    text = pa.array([b"Good.", b"\xff"], pa.binary()).view(pa.string())
    same = pa.array(["Hi?", "Hi?"])
    pq.write_table(pa.table({"prompt": same, "chosen": text, "rejected": same}),
                   tmp_path / "a.parquet")
    for name in ("a.json", "a.csv", "a.parquet"):
        assert content(read(tmp_path / name)[1])[1] == "not UTF-8", name


OTHER_FORMATS = {
    "array.jsonl": b'[\n{"prompt": "a"}\n]', "text.jsonl": b"Hello\nworld\n",
    "table.csv": b'{"prompt": "a"}\n', "binary.csv": b"a\0b", "text.json": b"prompt,chosen\n",
    "text.parquet": b"prompt,chosen\n", "short.parquet": b"PAR1 and no end",
    "zipped.jsonl": gzip.compress(b'{"prompt": "a"}'), "empty.jsonl": b" \n",
    "cut.json": b'[{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prom', "notes.txt": b"a",
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_file_of_another_format_is_refused_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(OTHER_FORMATS[name])
    with pytest.raises(UserError, match=name):
        read(path)


def test_missing_file_and_foreign_folder_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="save_to_disk"):
        read(tmp_path / "folder")
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "missing.jsonl")


def test_raw_dir_comes_from_the_environment(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "a.jsonl", text_rows(1))
    monkeypatch.setenv("RAW_DIR", str(tmp_path))
    assert len(read("${RAW_DIR}/a.jsonl")[1]) == 1
    monkeypatch.setenv("RAW_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="set RAW_DIR"):
        read("${RAW_DIR}/a.jsonl")


def test_unreachable_hub_data_set_is_a_user_error(monkeypatch):
    def unreachable(*_args, **_named):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="nobody/nothing.*local copy"):
        read("nobody/nothing")


def test_hub_data_set_is_read_like_a_file(tmp_path, monkeypatch):
    data = datasets.Dataset.from_list([FORMS["messages"]])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_named: data)
    form, rows = read("someone/pairs")
    assert form == "messages"
    assert rows[0][1].source == "someone/pairs:1"


def test_hub_config_folder_and_split_reach_the_hub(monkeypatch):
    asked = []

    def load(*args, **named):
        asked.append((args, named))
        return datasets.Dataset.from_list([FORMS["messages"]])

    monkeypatch.setattr(datasets, "load_dataset", load)
    read("someone/pairs", hub_config="preference", hub_dir="helpful-base", hub_split="validation")
    read("someone/pairs", form="messages")
    assert set(map(str, asked)) == {
        "(('someone/pairs', 'preference'), {'data_dir': 'helpful-base', 'split': 'validation'})",
        "(('someone/pairs', None), {'data_dir': None, 'split': 'train'})"}


def test_fixture_stands_in_for_every_file_and_must_be_there():
    split = as_fixture(DataConfig(name="hh_single_turn", files={"train": "a", "test": "b"}))
    assert (split.files, open_source(split.path, split).name) == ({}, "hh_single_turn.jsonl")
    only_test = as_fixture(DataConfig(name="reward_bench", files={"test": "some/hub"}))
    assert list(only_test.files) == ["test"]
    assert open_source(only_test.files["test"], only_test).name == "reward_bench.jsonl"
    variant = as_fixture(DataConfig(name="shp_of_my_own", path="a"))
    assert open_source(variant.path, variant).name == "shp.jsonl"
    with pytest.raises(UserError, match="no fixture"):
        as_fixture(DataConfig(name="unheard_of", path="a"))


def test_unknown_columns_are_named_in_the_error(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Hi?", "answer": "Good."}])
    with pytest.raises(UserError, match="found columns question, answer"):
        read(path)
    with pytest.raises(UserError, match="keys query"):
        read(path, keys={"query": "question"})
