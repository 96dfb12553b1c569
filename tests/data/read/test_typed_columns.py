"""Columns of every type that datasets and Arrow have are read as jsonl would hold them."""

import datetime
import uuid
from dataclasses import replace
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Json, LargeList, List, Sequence, Value

from configs.data_schema import CompareConfig
from configs.schema import DataConfig
from data.pairs.compare import compared_pairs
from data.read.row_notes import AS_JSON
from data.read.sources import find_form, open_source
from src.common.errors import UserError
from tests.tiny_data import messages_row


def raw(path):
    """The rows of a file or folder."""
    return [row for _, row in open_source(
        str(path), DataConfig(name="test", path=str(path))).raw_rows()]


def pairs(path):
    config = DataConfig(name="test", path=str(path))
    source = open_source(config.path, config)
    return [item for _, item in compared_pairs(source, find_form(source, config), config)]


def stored(data, folder, way):
    """The data set, saved in one of the ways in which people pass such data on."""
    path = folder / ("rows.parquet" if way == "parquet" else "rows")
    if way == "parquet":
        data.to_parquet(str(path))
    elif way == "folder":
        data.save_to_disk(str(path))
    else:
        datasets.DatasetDict({"train": data}).save_to_disk(str(path))
    return path


both_ways = pytest.mark.parametrize("way", ["folder", "several splits", "parquet"])


@both_ways
def test_a_json_column_gives_no_answer_in_quotes(tmp_path, way):
    rows = [{"prompt": f"Q {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"}
            for i in range(300)]
    rows[299]["chosen"] = 7
    data = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    assert data.features["chosen"] == Json()
    found = pairs(stored(data, tmp_path, way))
    assert found[299] == "wrong type of chosen"
    assert [(pair.chosen, pair.rejected) for pair in found[:299]] == [
        (f"good {i}", f"bad {i}") for i in range(299)]


def test_a_json_column_of_the_hub_gives_no_answer_in_quotes(monkeypatch):
    rows = [{"prompt": "Q?", "chosen": "good", "rejected": text} for text in ("bad", 7)]
    data = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_named: data)
    pair, reason = pairs("someone/pairs")
    assert (pair.chosen, pair.rejected, reason) == ("good", "bad", "wrong type of rejected")


@both_ways
def test_a_json_content_of_messages_is_its_text(tmp_path, way):
    rows = [messages_row("Hi?", "Good.", "Bad."), messages_row("Ho?", "Good.", "Bad.")]
    rows[1]["chosen"][1]["content"] = [{"type": "text", "text": "Good."}]
    data = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    assert data.features["chosen"] == List({"role": Value("string"), "content": Json()})
    assert [(pair.prompt[0]["content"], pair.chosen, pair.rejected)
            for pair in pairs(stored(data, tmp_path, way))] == [
        ("Hi?", "Good.", "Bad."), ("Ho?", "Good.", "Bad.")]


def test_a_csv_of_a_json_column_is_told_where_its_quotes_are_in_the_answers(tmp_path):
    rows = [{"prompt": "Q?", "chosen": text, "rejected": "bad"} for text in ("good", "fine", 7)]
    data = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    data.to_csv(str(tmp_path / "rows.csv"))
    config = DataConfig(name="test", path=str(tmp_path / "rows.csv"))
    source = open_source(config.path, config)
    assert [pair.chosen for _, pair in compared_pairs(source, "prompt_answers", config)] == [
        '"good"', '"fine"', "7"]
    assert source.notes == {AS_JSON.format("chosen"): 2}


TURN = {"role": "user", "content": "Hi"}
MEDIA = {name: getattr(datasets, name)() for name in (
    "Image", "Audio", "Video", "Pdf", "Nifti", "Mesh") if hasattr(datasets, name)}
TYPED = {
    **{kind: (Value(kind), "text") for kind in ("string", "large_string", "string_view")},
    **{kind: (Value(kind), 3) for kind in ("int8", "int16", "int32", "int64", "uint8", "uint64")},
    **{kind: (Value(kind), 1.5) for kind in ("float16", "float32", "float64")},
    "bool": (Value("bool"), True), "null": (Value("null"), None),
    "label": (ClassLabel(names=["first", "second"]), 1),
    "list": (List(Value("string")), ["a", "b"]),
    "large list": (LargeList(Value("string")), ["a", "b"]),
    "fixed list": (List(Value("int64"), length=2), [1, 2]),
    "messages": (List({"role": Value("string"), "content": Value("string")}), [TURN]),
    "record of lists": (Sequence({"role": Value("string")}), {"role": ["user"]}),
    "json": (Json(), {"a": [1, "x"]}), "json text": (Json(), "x"),
    "json list": (List(Json()), ["x", {"a": 1}]),
    "json inside": ({"a": {"b": LargeList(Json())}}, {"a": {"b": ["x", 2, None]}}),
    "grid": (datasets.Array2D((2, 2), "int64"), [[1, 2], [3, 4]]),
    **{name: (kind, {"bytes": b"x", "path": None}) for name, kind in MEDIA.items()},
}


@pytest.mark.parametrize("way", ["folder", "parquet"])
def test_every_type_of_datasets_is_read_as_jsonl_would_hold_it(tmp_path, way):
    features = Features({name: kind for name, (kind, _) in TYPED.items()})
    # media as they are stored: encoding them needs their own libraries
    encoded = Features({name: {"bytes": Value("binary"), "path": Value("string")}
                        if name in MEDIA else kind for name, kind in features.items()})
    row = {name: value for name, (_, value) in TYPED.items()}
    nothing = dict.fromkeys(TYPED)
    data = datasets.Dataset.from_list([row, nothing], features=encoded).cast(features)
    if way == "parquet":
        path = tmp_path / "rows.parquet"
        pq.write_table(data.data.table, path)
    else:
        path = stored(data, tmp_path, way)
    first, second = raw(path)
    assert first == row
    assert {name: value for name, value in second.items() if value is not None} == {
        name: value for name, value in data.with_format(None).data.slice(1).to_pylist()[0].items()
        if value is not None}


@both_ways
def test_classes_mean_what_they_are_called_and_not_their_numbers(tmp_path, way):
    """Whoever makes classes of names sorts them: 0 need not be the first answer."""
    rows = [{"prompt": f"Q {i}?", "new": "new", "base": "base", "better": name}
            for i, name in enumerate(("new", "base", "new"))]
    data = datasets.Dataset.from_list(rows).class_encode_column("better")
    assert data["better"][:] == [1, 0, 1]
    path = stored(data, tmp_path, way)
    config = DataConfig(name="test", path=str(path), form="answers", columns=("new", "base"),
                        compare=CompareConfig(rule="by_id"))
    numbers = replace(config, compare=replace(config.compare, names=(("1",), ("0",))))
    names = replace(config, compare=replace(config.compare, names=(("new",), ("base",))))
    for each in (config, numbers, names):
        found = compared_pairs(open_source(str(path), each), "answers", each)
        assert [pair.chosen for _, pair in found] == ["new", "base", "new"]


def test_labels_of_completions_are_read_by_the_names_of_their_classes(tmp_path):
    for classes, expected in ((["true", "false"], ("good", "bad")),
                              (["false", "true"], ("bad", "good")),
                              (["good", "bad"], "label is neither true nor false")):
        features = Features({"prompt": Value("string"), "completion": Value("string"),
                             "label": ClassLabel(names=classes)})
        rows = [{"prompt": "Q?", "completion": text, "label": i}
                for i, text in enumerate(("good", "bad"))]
        path = tmp_path / "rows.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))
        config = DataConfig(name="test", path=str(path), form="kto")
        found = [item if isinstance(item, str) else (item.chosen, item.rejected)
                 for _, item in compared_pairs(open_source(str(path), config), "kto", config)]
        assert found == [expected] * (2 if isinstance(expected, str) else 1)


def test_types_of_other_writers_of_parquet_are_read_as_jsonl_would_hold_them(tmp_path):
    table = pa.table({
        "category": pa.array(["x"]).dictionary_encode(),
        "score": pa.array([Decimal("4.50")]), "count": pa.array([Decimal("4.00")]),
        "message": pa.array([[("role", "user")]], pa.map_(pa.string(), pa.string())),
        "id": pa.array([uuid.UUID(int=7).bytes], pa.uuid()),
        "views": pa.array([["a"]], pa.list_view(pa.string_view()))})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert raw(tmp_path / "rows.parquet") == [{
        "category": "x", "score": 4.5, "count": 4, "message": {"role": "user"},
        "id": str(uuid.UUID(int=7)), "views": ["a"]}]


def test_rows_that_a_filter_left_are_those_that_are_read(tmp_path):
    data = datasets.Dataset.from_list([{"n": i} for i in range(9)]).select([7, 2, 4])
    for way in ("folder", "parquet"):
        (tmp_path / way).mkdir()
        assert [row["n"] for row in raw(stored(data, tmp_path / way, way))] == [7, 2, 4]


@both_ways
def test_answers_that_a_loader_made_dates_of_are_named_as_such(tmp_path, way):
    day = datetime.datetime(2020, 1, 2)
    texts = {"prompt": "When?", "rejected": "Never."}
    data = datasets.Dataset.from_list([{**texts, "chosen": day}] * 4)
    path = stored(data, tmp_path, way)
    assert pairs(path) == ["a date or time in chosen, not a text"] * 4
    rows = [messages_row("When?", day, "Never.")]
    path = tmp_path / "m.parquet"
    for turn in (*rows[0]["chosen"], *rows[0]["rejected"]):
        turn["content"] = day
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    assert pairs(path) == ["a date or time in chosen, not a text"]


def test_a_date_beyond_those_of_python_costs_nothing_where_it_is_not_used(tmp_path):
    far = pa.array([2**62, 0], pa.timestamp("us"))
    texts = {name: pa.array([name, name]) for name in ("prompt", "chosen", "rejected")}
    pq.write_table(pa.table({**texts, "when": far}), tmp_path / "a.parquet")
    assert [(pair.chosen, pair.rejected) for pair in pairs(tmp_path / "a.parquet")] == [
        ("chosen", "rejected")] * 2
    pq.write_table(pa.table({**texts, "chosen": far}), tmp_path / "b.parquet")
    assert pairs(tmp_path / "b.parquet")[0] == "wrong type of chosen"


def test_a_table_of_dates_alone_tells_so_when_nothing_is_left(tmp_path):
    from data.pairs.build import build_pairs

    rows = [{"prompt": f"{i}?", "chosen": datetime.date(2020, 1, 2), "rejected": "x"}
            for i in range(20)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "a.parquet"))
    config = DataConfig(name="test", path=str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match="a date or time in chosen, not a text"):
        build_pairs(config, tmp_path / "out")
