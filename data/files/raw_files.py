"""Files on disk -> numbered raw rows, one at a time, whatever the format.

A row is a dict as the file has it, or the reason why it is not one. Row 1 is the first; in jsonl a
row's number is its line's. Memory does not grow with the file. Knows nothing of preferences.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.files.raw_arrow import read_parquet
from data.files.raw_bytes import PACKED, checked_encoding, format_of, is_utf8, open_bytes, told
from data.files.raw_json import RawRow, is_one_value, json_rows, jsonl_rows
from data.files.raw_text import csv_rows, zip_rows
from src.common.errors import UserError

FORMATS = (".jsonl", ".json", ".csv", ".parquet", ".zip")
PACKABLE = (".jsonl", ".json", ".csv")
SUFFIXES = (*FORMATS, *(name + packed for name in PACKABLE for packed in PACKED))
SNIFFED_BYTES = 65_536
MAGIC = {b"PAR1": "parquet", b"ARROW1": "Arrow", b"PK\x03\x04": "zip",
         b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text",
         **{magic: kind for kind, magic in PACKED.values()}}


def read_file(path: Path, header: Sequence[str] = (),
              encoding: str = "utf-8") -> Iterator[RawRow]:
    """The rows of a jsonl, json, csv or parquet file, or of the text files in a zip; jsonl, json
    and csv may be packed with gzip or zstd, as their endings say (.jsonl.gz).

    Args:
        header: column names of a csv file that has none in its first line.
        encoding: of the text in a jsonl, json or csv file, and of the text files in a zip.
    Raises:
        UserError: no such file; an unknown extension; another format than the extension says; a
            file cut short. An unreadable row is no error but a reason.
    """
    if not is_known(path):
        raise UserError(f"{path}: unknown kind of file: expected {', '.join(SUFFIXES)}, a folder "
                        "written by save_to_disk, or the id of a data set on the hub")
    kind = format_of(path)
    if kind == ".parquet":
        _check_format(path, _head(path))
        return read_parquet(path)
    if kind == ".zip":
        _check_format(path, _head(path))
        return told(path, zip_rows(path, encoding))
    head = _text_head(path, encoding)
    _check_format(path, head)
    if kind == ".csv":
        return told(path, csv_rows(path, header, encoding))
    if kind == ".json" and is_one_value(head):
        return told(path, json_rows(path, encoding))
    return told(path, jsonl_rows(path, encoding))


def is_known(path: Path) -> bool:
    """Whether a file's ending is one of those that are read."""
    kind = format_of(path)
    return kind in (PACKABLE if path.suffix in PACKED else FORMATS)


def file_sha256(paths: list[Path]) -> str:
    """SHA-256 over the bytes of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    """The first bytes of the file as it lies."""
    try:
        with path.open("rb") as file:
            return file.read(SNIFFED_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _text_head(path: Path, encoding: str) -> bytes:
    """The first bytes of a text file, unpacked and as UTF-8."""
    head = _head(path)
    if path.suffix in PACKED:
        kind, magic = PACKED[path.suffix]
        if not head.startswith(magic):
            raise UserError(f"{path}: not a {kind} file: {_looks_like(_found(head), head)}")
        head = next(told(path, _unpacked(path)))
    return head if is_utf8(encoding) else head.decode(checked_encoding(encoding), "ignore").encode(
        "utf-8", "ignore")


def _unpacked(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        yield file.read(SNIFFED_BYTES)


def _found(head: bytes) -> str:
    """The format that begins so; "" for a text."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def _check_format(path: Path, head: bytes) -> None:
    """Raise where the first bytes of a file, unpacked, belong to another format than it says."""
    found, kind = _found(head), format_of(path)
    first = _first(head)
    if not head.strip():
        raise UserError(f"{path}: empty file: expected preference pairs")
    if kind in (".parquet", ".zip"):
        if found != kind[1:]:
            raise UserError(f"{path}: not a {kind[1:]} file: {_looks_like(found, head)}")
        return
    if found or b"\0" in head:
        found = found or "binary"
    elif kind == ".csv":
        found = "JSON" if first in (b"{", b"[") else ""
    elif kind == ".json":
        found = "" if first in (b"[", b"{") else "text"
    elif first == b"[":
        found = "JSON array (name it .json)"
    elif not any(line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") for line in head.splitlines()):
        found = "text"
    if found:
        raise UserError(f"{path}: not a {kind[1:]} file: {_looks_like(found, head)}")


def _first(head: bytes) -> bytes:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


def _looks_like(found: str, head: bytes) -> str:
    """What a file is, and what to do about it."""
    if found in ("", "text"):
        found = "JSON" if _first(head) in (b"{", b"[") else "text"
    remedy = "give the file its right extension"
    packed = next((ending for ending, (kind, _) in PACKED.items() if kind == found), "")
    if packed:
        remedy += f", as in rows.jsonl{packed}"
    elif found == "UTF-16 text":
        remedy = "say so in a data config: encoding: utf-16"
    return f"it looks like {found}; it begins with {head[:24]!r}; {remedy}"
