"""csv files, and zips of text files -> numbered raw rows, one at a time."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data.files.raw_bytes import checked_encoding, data_errors, open_text
from data.files.raw_json import RawRow
from src.common.errors import UserError

SURPLUS = "more cells than columns"
"""A comma that no quotes enclose puts every text behind it into the next column."""


def csv_rows(path: Path, header: Sequence[str], encoding: str) -> Iterator[RawRow]:
    """The rows of a csv file; `header` names its columns where its first line does not.

    Strict: otherwise one quote too many swallows the rows up to the next, or all that follow.
    """
    csv.field_size_limit(1 << 30)
    with open_text(path, encoding) as file:
        rows = csv.DictReader(file, header or None, strict=True)
        try:
            for number, row in enumerate(rows, 1):
                yield number, SURPLUS if None in row else {
                    key: cell for key, cell in row.items() if cell is not None}
        except csv.Error as error:
            raise UserError(f"{path}: not readable as csv, line {rows.reader.line_num}: {error}: "
                            "expected quotes that are closed, and doubled inside a quoted cell: "
                            "mend those of this row, which may begin many lines before, or get the "
                            "whole file where this one is cut short") from error


def zip_rows(path: Path, encoding: str) -> Iterator[RawRow]:
    """A row {"text": line, "file": name of its file} for each line of the text files in a zip.

    Numbers go on from file to file. A file called README tells about the others and has no rows.
    """
    number, encoding = 0, checked_encoding(encoding)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if member.is_dir() or name.startswith((".", "README")):
                    continue
                with archive.open(member) as raw, io.TextIOWrapper(
                        raw, encoding, errors=data_errors(encoding)) as lines:
                    for line in lines:
                        number += 1
                        if line.strip():
                            yield number, {"text": line.strip(), "file": name}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole zip of text files: {error}") from error
