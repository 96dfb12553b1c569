"""csv files, and zips of text files -> numbered raw rows, one at a time."""

import codecs
import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from configs.errors import UserError
from data.raw_json import RawRow


def checked_encoding(name: str) -> str:
    """The encoding to open a text file with; a byte order mark of UTF-8 is no text."""
    try:
        known = codecs.lookup(name).name
    except LookupError as error:
        raise UserError(f"encoding {name!r}: unknown: give one that Python knows, such as utf-8 or "
                        "latin-1") from error
    return "utf-8-sig" if known == "utf-8" else known


def csv_rows(path: Path, header: Sequence[str], encoding: str) -> Iterator[RawRow]:
    """The rows of a csv file; `header` names its columns where its first line does not."""
    csv.field_size_limit(1 << 30)
    with path.open(encoding=checked_encoding(encoding), errors="surrogateescape",
                   newline="") as file:
        try:
            for number, row in enumerate(csv.DictReader(file, header or None), 1):
                yield number, {key: cell for key, cell in row.items()
                               if key is not None and cell is not None}
        except csv.Error as error:
            raise UserError(f"{path}: not readable as csv: {error}") from error


def zip_rows(path: Path, encoding: str) -> Iterator[RawRow]:
    """A row {"text": line, "file": name of its file} for each line of the text files in a zip.

    Numbers go on from file to file. A file called README tells about the others and has no rows.
    """
    number = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if member.is_dir() or name.startswith((".", "README")):
                    continue
                with archive.open(member) as raw, io.TextIOWrapper(
                        raw, checked_encoding(encoding), errors="surrogateescape") as lines:
                    for line in lines:
                        number += 1
                        if line.strip():
                            yield number, {"text": line.strip(), "file": name}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole zip of text files: {error}") from error
