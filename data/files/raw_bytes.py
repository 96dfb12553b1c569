"""A text file on disk -> its bytes or its text, whatever it is packed in and however it is encoded.

One stream, so that memory does not grow with the file. Knows no format of rows.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, TypeVar

import pyarrow as pa

from src.common.errors import UserError

PACKED = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
"""Endings after a format's own -> what such a file is packed with, and how it begins."""
_MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
"""Byte order marks that Python takes for text."""
_DAMAGED = (OSError, EOFError, zlib.error, pa.ArrowException)
T = TypeVar("T")


def format_of(path: Path) -> str:
    """The ending that says what the rows look like: .jsonl of rows.jsonl and of rows.jsonl.gz."""
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


def stem_of(path: Path) -> str:
    """The file's name without its endings."""
    return (path.with_suffix("") if path.suffix in PACKED else path).stem


def open_bytes(path: Path) -> io.BufferedReader:
    """The bytes of a file, unpacked."""
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if path.suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")


def open_text(path: Path, encoding: str, newline: str = "") -> TextIO:
    """The text of a file, unpacked; see data_errors for bytes that are none."""
    name, file = checked_encoding(encoding), open_bytes(path)
    mark = _MARKS.get(name, b"")
    if mark and file.peek(len(mark)).startswith(mark):
        file.read(len(mark))
    return io.TextIOWrapper(file, name, errors=data_errors(name), newline=newline)


def checked_encoding(name: str) -> str:
    """The encoding to open a text file with; a byte order mark of UTF-8 is no text."""
    try:
        known = codecs.lookup(name).name
        b"text".decode(known, "ignore")  # refused by what is no encoding of texts
        io.TextIOWrapper(io.BytesIO(), known)
    except (LookupError, ValueError) as error:
        raise UserError(f"encoding {name!r}: unknown: give one that Python knows, such as utf-8, "
                        "utf-16 or latin-1") from error
    return "utf-8-sig" if known == "utf-8" else known


def is_utf8(encoding: str) -> bool:
    """Whether it is UTF-8, in which bytes can be split into lines before they are read."""
    return checked_encoding(encoding) == "utf-8-sig"


def data_errors(encoding: str) -> str:
    """How to read what is no text: as lone surrogates, which whoever takes the texts refuses."""
    return "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def told(path: Path, rows: Iterator[T]) -> Iterator[T]:
    """The rows, with one line in place of what libraries raise on a file that is not whole."""
    try:
        yield from rows
    except UnicodeError as error:
        raise UserError(f"{path}: not readable in the encoding of its data config: {error}: give "
                        "encoding: the file's own, such as utf-16-le where no byte order mark "
                        "says which, or it is cut short") from error
    except _DAMAGED as error:
        kind = PACKED[path.suffix][0] if path.suffix in PACKED else format_of(path)[1:]
        raise UserError(f"{path}: not a whole {kind} file, cut short or damaged: "
                        f"{error}") from error
