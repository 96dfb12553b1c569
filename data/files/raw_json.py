"""JSON files -> numbered raw rows: a row a line, one array of rows, or one object of rows.

A file is read in pieces, so that memory does not grow with it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data.files.raw_bytes import is_utf8, open_bytes, open_text
from src.common.errors import UserError

RawRow = tuple[int, dict[str, Any] | str]
"""Row number, and the row or the reason why it cannot be read."""

NOT_UTF8 = "not UTF-8"
NOT_JSON = "not readable as JSON"
NOT_OBJECT = "not a JSON object"
CHUNK_CHARS = 1 << 20
_SPACE = re.compile(r"[ \t\r\n,]*")
_KEY = re.compile(r'"(?:[^"\\]|\\.)*"\s*:\s*')
_OBJECT_IN_OBJECT = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')


def jsonl_rows(path: Path, encoding: str = "utf-8") -> Iterator[RawRow]:
    """One row a line; a row's number is its line's."""
    with open_bytes(path) if is_utf8(encoding) else open_text(path, encoding, "\n") as file:
        for number, line in enumerate(file, 1):
            if isinstance(line, str):
                line = line.encode("utf-8", "surrogatepass")  # which are not UTF-8 again
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, _json_line(line)


def json_rows(path: Path, encoding: str = "utf-8") -> Iterator[RawRow]:
    """The items of one JSON array, or the values of one JSON object.

    Bytes that are not of the encoding become lone surrogates, see data/files/raw_bytes.py.
    """
    decoder = json.JSONDecoder()
    number, position = 0, 1
    with open_text(path, encoding) as file:
        buffer = file.read(CHUNK_CHARS).lstrip()
        keyed, closing = buffer[0] == "{", {"{": "}", "[": "]"}[buffer[0]]
        ended = False
        while True:
            position = _SPACE.match(buffer, position).end()
            if buffer.startswith(closing, position):
                _refuse_more(buffer[position + 1:], file, f"{path}: not readable as JSON after "
                             f"item {number}")
                return
            try:
                start = _after_key(buffer, position) if keyed else position
                value, position = decoder.raw_decode(buffer, start)
            except json.JSONDecodeError as error:
                if ended:
                    raise UserError(f"{path}: not readable as JSON after item {number}: cut short "
                                    f"or malformed ({error.msg})") from error
                buffer, position = buffer[position:], 0
                more = file.read(max(CHUNK_CHARS, len(buffer)))
                ended = not more
                buffer += more
                continue
            except (ValueError, RecursionError) as error:  # long integers; lists in lists in lists
                raise UserError(f"{path}: not readable as JSON after item {number}: "
                                f"{error}") from error
            number += 1
            yield number, value if isinstance(value, dict) else NOT_OBJECT


def _refuse_more(rest: str, file: TextIO, where: str) -> None:
    """Raise where anything but white space follows: rows that nobody would miss."""
    while rest or (rest := file.read(CHUNK_CHARS)):
        if more := rest.strip():
            raise UserError(f"{where}: {more[:24]!r} follows the one array or object that a .json "
                            "file holds: put all rows into that one, or write a row a line and "
                            "name the file .jsonl")
        rest = ""


def is_one_value(head: bytes) -> bool:
    """Whether a .json file that begins with `head` is one array, or one object of row objects,
    rather than a row a line."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"{"):
        return head.startswith(b"[")
    if not _OBJECT_IN_OBJECT.match(head):
        return False
    first_line, _, rest = head.partition(b"\n")
    first = _json_line(first_line)
    if not isinstance(first, dict):
        return True
    return not rest.strip() and all(isinstance(value, dict) for value in first.values())


def _json_line(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):  # an integer may be too long for Python
        return NOT_JSON
    return value if isinstance(value, dict) else NOT_OBJECT


def _after_key(buffer: str, position: int) -> int:
    """Where the value after the key at `position` begins."""
    key = _KEY.match(buffer, position)
    if not key:
        raise json.JSONDecodeError("expected a key and a value", buffer, position)
    return key.end()
