"""Files on disk -> numbered raw rows, one at a time, whatever the format.

A row is a dict as the file has it, or the reason why it is not one. Row 1 is the first; in jsonl a
row's number is its line's. Memory does not grow with the file. Knows nothing of preferences.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError

RawRow = tuple[int, dict[str, Any] | str]
"""Row number, and the row or the reason why it cannot be read."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
NOT_UTF8 = "not UTF-8"
NOT_JSON = "not readable as JSON"
NOT_OBJECT = "not a JSON object"
SNIFFED_BYTES = 65_536
CHUNK_CHARS = 1 << 20
MAGIC = {b"PAR1": "parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}


def read_file(path: Path) -> Iterator[RawRow]:
    """The rows of a jsonl, json, csv or parquet file.

    Raises:
        UserError: no such file; an unknown extension; another format than the extension says; a
            file cut short. An unreadable row is no error but a reason.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file: expected {', '.join(SUFFIXES)}, a folder "
                        "written by save_to_disk, or the id of a data set on the hub")
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    _check_format(path, head)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    if path.suffix == ".csv":
        return _csv_rows(path)
    if path.suffix == ".json" and head.lstrip()[:1] == b"[":
        return _json_array_rows(path)
    return _jsonl_rows(path)


def read_saved_folder(folder: Path, split: str) -> Iterator[RawRow]:
    """The rows of a folder written by datasets' save_to_disk; `split` where it holds several."""
    return arrow_rows(load_saved_folder(folder, split).data.to_batches(max_chunksize=1_000))


def load_saved_folder(folder: Path, split: str):
    """The memory-mapped datasets.Dataset in `folder`; UserError where it is something else."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{folder}: not a whole folder written by datasets' save_to_disk: "
                        f"{error}") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise UserError(f"{folder}: no split {split!r} in it: give --hub_split, one of "
                            f"{', '.join(saved)}")
        saved = saved[split]
    return saved


def arrow_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[RawRow]:
    """The rows of record batches; a row with text that is not UTF-8 becomes a reason."""
    number = 0
    for batch in batches:
        try:
            rows: list[dict[str, Any] | str] = batch.to_pylist()
        except UnicodeDecodeError:  # find the rows at fault one by one
            rows = [_arrow_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
        for row in rows:
            number += 1
            yield number, row


def file_sha256(paths: list[Path]) -> str:
    """SHA-256 over the bytes of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _check_format(path: Path, head: bytes) -> None:
    """Raise where the first bytes of a file belong to another format than its extension."""
    found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not head.strip():
        raise UserError(f"{path}: empty file: expected preference pairs")
    if path.suffix == ".parquet":
        if found != "parquet":
            raise UserError(f"{path}: not a parquet file: {_looks_like(found, head, first)}")
        return
    if found or b"\0" in head:
        found = found or "binary"
    elif path.suffix == ".csv":
        found = "JSON" if first in (b"{", b"[") else ""
    elif path.suffix == ".json":
        found = "" if first in (b"[", b"{") else "text"
    elif first == b"[":
        found = "JSON array (name it .json)"
    elif not any(line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") for line in head.splitlines()):
        found = "text"
    if found:
        raise UserError(f"{path}: not a {path.suffix[1:]} file: {_looks_like(found, head, first)}")


def _looks_like(found: str, head: bytes, first: bytes) -> str:
    if found in ("", "text"):
        found = "JSON" if first in (b"{", b"[") else "text"
    return f"it looks like {found}; it begins with {head[:24]!r}; give the file its right extension"


def _jsonl_rows(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, _json_line(line)


def _json_line(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (json.JSONDecodeError, RecursionError):
        return NOT_JSON
    return value if isinstance(value, dict) else NOT_OBJECT


def _json_array_rows(path: Path) -> Iterator[RawRow]:
    """The items of one JSON array, without holding the array; bytes that are not UTF-8 become
    lone surrogates, which whoever reads the texts refuses."""
    decoder = json.JSONDecoder()
    number = 0
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        buffer = file.read(CHUNK_CHARS).lstrip()[1:]
        ended = False
        while True:
            buffer = buffer.lstrip(" \t\r\n,")
            if buffer.startswith("]"):
                return
            try:
                value, end = decoder.raw_decode(buffer)
            except json.JSONDecodeError as error:
                if ended:
                    raise UserError(f"{path}: not readable as JSON after item {number}: cut short "
                                    f"or malformed ({error.msg})") from error
                more = file.read(max(CHUNK_CHARS, len(buffer)))
                ended = not more
                buffer += more
                continue
            number += 1
            buffer = buffer[end:]
            yield number, value if isinstance(value, dict) else NOT_OBJECT


def _csv_rows(path: Path) -> Iterator[RawRow]:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for number, row in enumerate(csv.DictReader(file), 1):
                yield number, {key: _csv_cell(cell) for key, cell in row.items()
                               if key is not None and cell is not None}
        except csv.Error as error:
            raise UserError(f"{path}: not readable as csv: {error}") from error


def _csv_cell(cell: str) -> Any:
    """The cell's text, or its message list where a csv file carries one as JSON."""
    if cell.startswith("[{") and '"role"' in cell:
        try:
            return json.loads(cell)
        except json.JSONDecodeError:
            return cell
    return cell


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a whole parquet file, perhaps cut short: {error}") from error
    return arrow_rows(_parquet_batches(path, file))


def _parquet_batches(path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    with file:
        try:
            yield from file.iter_batches(batch_size=1_000)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: damaged parquet file: {error}") from error


def _arrow_row(batch: pa.RecordBatch) -> dict[str, Any] | str:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return NOT_UTF8
