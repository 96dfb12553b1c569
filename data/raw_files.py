"""Files on disk -> numbered raw rows, one at a time, whatever the format.

A row is a dict as the file has it, or the reason why it is not one. Row 1 is the first; in jsonl a
row's number is its line's. Memory does not grow with the file. Knows nothing of preferences.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.errors import UserError
from data.raw_arrow import read_parquet
from data.raw_json import RawRow, is_one_value, json_rows, jsonl_rows
from data.raw_text import csv_rows, zip_rows

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".zip")
SNIFFED_BYTES = 65_536
MAGIC = {b"PAR1": "parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}


def read_file(path: Path, header: Sequence[str] = (),
              encoding: str = "utf-8") -> Iterator[RawRow]:
    """The rows of a jsonl, json, csv or parquet file, or of the text files in a zip.

    Args:
        header: column names of a csv file that has none in its first line.
        encoding: of a csv file, and of the text files in a zip.
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
        return read_parquet(path)
    if path.suffix == ".csv":
        return csv_rows(path, header, encoding)
    if path.suffix == ".zip":
        return zip_rows(path, encoding)
    if path.suffix == ".json" and is_one_value(head):
        return json_rows(path)
    return jsonl_rows(path)


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
    if path.suffix in (".parquet", ".zip"):
        if found != path.suffix[1:]:
            raise UserError(f"{path}: not a {path.suffix[1:]} file: "
                            f"{_looks_like(found, head, first)}")
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
