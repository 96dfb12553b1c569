"""Tasks with right and wrong answers: files of every shape become rows, and rows become pairs."""

import csv
import json
import zipfile

import pytest

from configs.schema import DataConfig, load_config
from data.chess_documents import documents
from data.files import raw_json
from data.files.raw_files import read_file
from data.pairs.compare import compared_pairs
from data.pairs.pair_files import read_pairs as read_split
from data.prepare import prepare
from data.read.sources import as_fixture, open_source
from data.records import ABSENT
from src.common.errors import UserError
from tests.tiny_data import write_jsonl

ROWS = {"0": {"question": "One?", "nested": {"a": [1, "}"]}}, "b \"c\"": {"question": "Tw\u00f6?"}}
EXPECTED = [(1, ROWS["0"]), (2, ROWS["b \"c\""])]
TASKS = ("sciq", "sciq_local", "boolq", "cosmos_qa", "amazon_polarity", "sentence_polarity",
         "anthropic_hh")


def fixture_pairs(name):
    """The usable pairs and records of a config's made rows."""
    config = as_fixture(load_config(DataConfig, name))
    rows = compared_pairs(open_source(config.path, config), config.form, config)
    return [item for _, item in rows if not isinstance(item, str)]


def by_question(name):
    """What a prompt says after `Question: ` -> the pair."""
    return {pair.prompt[0]["content"].partition("Question: ")[2]: pair
            for pair in fixture_pairs(name)}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_the_values_of_an_object_of_objects_are_its_rows(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(raw_json, "CHUNK_CHARS", chunk)
    (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n")
    assert list(read_file(tmp_path / "a.json")) == EXPECTED


def test_rows_a_line_stay_rows_even_where_a_row_begins_with_an_object(tmp_path):
    rows = [{"meta": {"a": 1}, "text": "x"}, {"meta": {"a": 2}, "text": "y"}]
    for count in (1, 2):
        write_jsonl(tmp_path / "a.json", rows[:count])
        assert [row for _, row in read_file(tmp_path / "a.json")] == rows[:count]


def test_what_is_no_object_in_an_object_is_a_reason_and_a_cut_file_an_error(tmp_path):
    whole = json.dumps({**ROWS, "z": 5}, indent=1)
    (tmp_path / "a.json").write_text(whole)
    assert list(read_file(tmp_path / "a.json")) == [*EXPECTED, (3, raw_json.NOT_OBJECT)]
    (tmp_path / "a.json").write_text(whole[:-20])
    with pytest.raises(UserError, match="after item 1: cut short"):
        list(read_file(tmp_path / "a.json"))


def test_a_csv_file_without_a_header_has_the_columns_that_the_config_names(tmp_path):
    (tmp_path / "a.csv").write_bytes("caf\u00e9,1\nt\u00e9,2\n".encode("latin-1"))
    rows = list(read_file(tmp_path / "a.csv", ("drink", "price"), "latin-1"))
    assert rows == [(1, {"drink": "caf\u00e9", "price": "1"}),
                    (2, {"drink": "t\u00e9", "price": "2"})]
    with pytest.raises(UserError, match="encoding 'latin-99': unknown"):
        list(read_file(tmp_path / "a.csv", encoding="latin-99"))


def test_each_line_of_the_text_files_in_a_zip_is_a_row_with_its_file_s_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/README.txt", "about\n")
        archive.writestr("a/b.neg", "caf\u00e9 \n\nnext\x85line\n".encode("latin-1"))
        archive.writestr("a/c.pos", "good")
    assert list(read_file(tmp_path / "a.zip", encoding="latin-1")) == [
        (1, {"text": "caf\u00e9", "file": "b.neg"}), (3, {"text": "next\x85line", "file": "b.neg"}),
        (4, {"text": "good", "file": "c.pos"})]


def test_a_zip_that_is_none_or_is_damaged_is_an_error(tmp_path):
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(UserError, match="not a zip file"):
        read_file(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="not a whole zip"):
        list(read_file(tmp_path / "b.zip"))


def test_sciq_prefers_the_true_answer_to_one_distractor_of_its_own():
    pairs = {pair.prompt[0]["content"]: pair for pair in fixture_pairs("sciq")}
    heart = pairs["Which organ pumps blood?"]
    assert heart.chosen == "heart" and heart.rejected in ("liver", "lung", "spleen")
    local = {pair.prompt[0]["content"]: pair.chosen for pair in fixture_pairs("sciq_local")}
    assert {question: pairs[question].chosen for question in local} == local


def test_labels_name_the_right_answer_of_each_task():
    boolq = by_question("boolq")
    assert (boolq["can a penguin fly"].chosen, boolq["can a penguin fly"].rejected) == ("No", "Yes")
    assert boolq["do owls hunt at night"].chosen == "Yes"
    assert by_question("cosmos_qa")["What was wrong?"].chosen == "A pipe leaked."
    for name, review, answer in (("amazon_polarity", "Broken\nIt came in", "negative"),
                                 ("amazon_polarity", "No\nDo not buy {this}:", "negative"),
                                 ("sentence_polarity", "the caf\u00e9 scene alone", "positive"),
                                 ("sentence_polarity", "a clich\u00e9 in every", "negative")):
        found = [p for p in fixture_pairs(name) if p.prompt[0]["content"].startswith(review)]
        assert [pair.chosen for pair in found] == [answer], name


@pytest.mark.parametrize("name", TASKS)
def test_pointwise_records_are_the_task_s_pairs_with_one_side_absent(name):
    pairs, records = fixture_pairs(name), fixture_pairs(f"{name}_pointwise")
    assert len(records) == len(pairs) >= 12
    for pair, record in zip(pairs, records, strict=True):
        assert record.prompt == pair.prompt
        assert (record.chosen, record.rejected) in ((pair.chosen, ABSENT), (ABSENT, pair.rejected))
    assert {record.chosen == ABSENT for record in records} == {True, False}


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory):
    """The made puzzles, prepared."""
    folder = tmp_path_factory.mktemp("puzzles") / "chess"
    prepare(as_fixture(load_config(DataConfig, "chess")), folder, [])
    return folder


def test_a_puzzle_s_rating_is_its_difficulty(puzzles):
    config = as_fixture(load_config(DataConfig, "chess"))
    with open(open_source(config.path, config).path, newline="") as file:
        ratings = [row[2] for row in csv.reader(file)]
    for split in ("train_1", "test"):
        for pair in read_split(puzzles, split).to_pylist():
            assert pair["difficulty"] == float(ratings[int(pair["source"].split(":")[1]) - 1])


def test_documents_are_the_training_puzzles_as_the_model_sees_them_and_no_others(puzzles):
    texts = list(documents(puzzles))
    for split in ("train_1", "train_2", "test"):
        for pair in read_split(puzzles, split).to_pylist():
            prompt = json.loads(pair["prompt"])[0]["content"]
            asked = [text for text in texts if text.startswith(f"{prompt} ")]
            assert asked == ([f"{prompt} {pair['chosen']}"] if split != "test" else [])
    assert all(text == " ".join(text.split()) for text in texts)


def test_documents_of_other_data_are_refused(tmp_path):
    prepare(as_fixture(load_config(DataConfig, "sciq")), tmp_path / "sciq", [])
    with pytest.raises(UserError, match="expected chess puzzles"):
        list(documents(tmp_path / "sciq"))
