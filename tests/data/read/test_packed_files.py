"""Files packed with gzip or zstd, and text in other encodings, give the rows of the plain file."""

import gzip
import itertools
import json
import tracemalloc

import pyarrow as pa
import pytest

from configs.schema import DataConfig, load_config
from data.files.raw_files import read_file
from data.pairs.compare import compared_pairs
from data.read.sources import find_form, fixture_path, named_data, open_source
from src.common.errors import UserError
from src.evaluation.sets import eval_config
from tests.tiny_data import text_rows

ROWS = [{"prompt": "Hé?", "chosen": "a\nb \u2028 c", "rejected": "日本 𝄞"}, *text_rows(50)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
PLAIN = {
    ".jsonl": LINES.replace("\n", "\n\n", 1),  # an empty line is counted as one
    ".json": json.dumps(ROWS, ensure_ascii=False, indent=1),
    ".csv": "prompt,chosen,rejected\n" + "".join(
        ",".join('"' + row[name].replace('"', '""') + '"' for name in ROWS[0]) + "\n"
        for row in ROWS)}
NUMBERS = {".jsonl": [1, *range(3, 53)], ".json": range(1, 52), ".csv": range(1, 52)}


def packed(path, data):
    """The file of that name, with these bytes in it."""
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(data)
    else:
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("ending", PLAIN)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "UTF-16LE", "utf-16-be",
                                      "utf-32"])
def test_rows_and_their_numbers_are_those_of_the_plain_file(tmp_path, ending, packing, encoding):
    path = packed(tmp_path / f"rows{ending}{packing}", PLAIN[ending].encode(encoding))
    assert list(read_file(path, encoding=encoding)) == list(zip(NUMBERS[ending], ROWS, strict=True))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", PLAIN)
def test_a_byte_order_mark_is_no_text_where_the_order_is_declared_as_well(tmp_path, ending,
                                                                          encoding):
    path = packed(tmp_path / f"rows{ending}", ("\ufeff" + PLAIN[ending]).encode(encoding))
    assert [row for _, row in read_file(path, encoding=encoding)] == ROWS


def test_hh_as_it_is_published_is_read_from_its_own_file(tmp_path):
    config = load_config(DataConfig, "hh_rlhf_helpful_base")
    plain = fixture_path(config)
    path = packed(tmp_path / "test.jsonl.gz", plain.read_bytes())
    found = {}
    for file in (plain, path):
        own = named_data(f"hh_rlhf_helpful_base={file}")
        source = open_source(own.files["test"], own)
        found[file] = [(number, item if isinstance(item, str) else (item.chosen, item.rejected))
                       for number, item in compared_pairs(source, find_form(source, own), own)]
    assert found[path] == found[plain] and len(found[plain]) > 10
    assert eval_config(str(path)).name == "test"


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("ending", PLAIN)
def test_an_archive_that_is_cut_short_is_one_clear_line(tmp_path, packing, ending):
    path = tmp_path / f"rows{ending}{packing}"
    whole = packed(path, PLAIN[ending].encode() * (1 if ending == ".json" else 50)).read_bytes()
    for kept in (len(whole) - 3, len(whole) // 2, 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match="not a whole (gzip|zstd) file, cut short") as error:
            list(read_file(path))
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "data", "advice"), [
    ("rows.jsonl", gzip.compress(LINES.encode()), "looks like gzip.*as in rows.jsonl.gz"),
    ("rows.jsonl.gz", LINES.encode(), "not a gzip file: it looks like JSON.*right extension"),
    ("rows.jsonl.zst", gzip.compress(LINES.encode()), "not a zstd file: it looks like gzip"),
    ("rows.csv.gz", gzip.compress(LINES.encode()), "not a csv file: it looks like JSON"),
    ("rows.jsonl.gz", gzip.compress(b" \n"), "empty file"),
    ("rows.parquet.gz", gzip.compress(b"PAR1"), "unknown kind of file.*jsonl.gz"),
    ("rows.gz", gzip.compress(LINES.encode()), "unknown kind of file.*jsonl.gz"),
    ("rows.jsonl", LINES.encode("utf-16"), "looks like UTF-16 text.*encoding: utf-16"),
    ("rows.csv", PLAIN[".csv"].encode("utf-16"), "looks like UTF-16 text.*encoding: utf-16")],
    ids=range(9))
def test_advice_on_a_file_of_another_kind_is_what_helps(tmp_path, name, data, advice):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=advice):
        list(read_file(tmp_path / name))


@pytest.mark.parametrize(("data", "advice"), [
    (LINES.encode("utf-16-le"), "BOM.*utf-16-le"), (LINES.encode("utf-16")[:-1], "truncated")],
    ids=["no mark", "cut short"])
def test_a_text_that_is_not_of_its_declared_encoding_is_one_clear_line(tmp_path, data, advice):
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(UserError, match=f"not readable in the encoding.*{advice}"):
        list(read_file(tmp_path / "rows.jsonl", encoding="utf-16"))


def test_a_packed_file_that_is_not_there_is_no_data_set_of_the_hub():
    config = DataConfig(name="test", path="someone/rows.jsonl.gz")
    with pytest.raises(UserError, match="no such file"):
        open_source(config.path, config)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_memory_does_not_grow_with_a_packed_file(tmp_path, packing):
    line = json.dumps({"prompt": "q" * 5_000, "chosen": "a", "rejected": "b"}) + "\n"
    path = packed(tmp_path / f"rows.jsonl{packing}", (line * 6_000).encode())  # 30 MB
    rows = read_file(path)
    next(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows) == 5_999
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_of_a_packed_file_only_what_is_asked_for_is_unpacked(tmp_path):
    path = packed(tmp_path / "rows.jsonl.gz", LINES.encode() * 2_000)
    path.write_bytes(path.read_bytes()[:-100])  # its end is never reached
    assert [row for _, row in itertools.islice(read_file(path), 3)] == ROWS[:3]
