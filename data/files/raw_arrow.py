"""Arrow data -> numbered raw rows: parquet files, folders of save_to_disk, the hub's data sets.

A typed column is read as what its type says, as jsonl would hold it. Memory does not grow with the
file.
"""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.files.raw_json import NOT_UTF8, RawRow
from src.common.errors import UserError

ROWS_A_BATCH = 1_000
Decoder = Callable[[Any], Any]
_UNREADABLE = (ValueError, OverflowError, KeyError, pa.ArrowException)
"""Dates beyond those of Python; a time zone that is none is a KeyError where pytz is installed."""


def read_parquet(path: Path) -> Iterator[RawRow]:
    """The rows of a parquet file; UserError where it is none, or cut short."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a whole parquet file, perhaps cut short: {error}") from error
    return arrow_rows(_parquet_batches(path, file))


def read_saved_folder(folder: Path, split: str) -> Iterator[RawRow]:
    """The rows of a folder written by datasets' save_to_disk; `split` where it holds several."""
    return dataset_rows(load_saved_folder(folder, split))


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
            raise UserError(f"{folder}: no split {split!r} in it: set hub_split in a data "
                            f"config to one of {', '.join(saved)}")
        saved = saved[split]
    return saved


def dataset_rows(dataset) -> Iterator[RawRow]:
    """The rows of a datasets.Dataset, in the order in which its table holds them."""
    return arrow_rows(iter(dataset.data.to_batches(max_chunksize=ROWS_A_BATCH)))


def arrow_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[RawRow]:
    """The rows of record batches; a row with text that is not UTF-8 becomes a reason."""
    number, decoders = 0, None
    for batch in batches:
        if decoders is None:
            decoders = {field.name: decode for field in batch.schema
                        if (decode := _decoder(field.type))} | _labels(batch.schema)
        for row in _rows(batch):
            number += 1
            if isinstance(row, dict):
                for name, decode in decoders.items():
                    if row[name] is not None:
                        row[name] = decode(row[name])
            yield number, row


def _decoder(kind: pa.DataType) -> Decoder | None:
    """What makes of pyarrow's Python value of a type the one that jsonl has; None where they are
    the same.

    A column of type Json of datasets 5 holds every value as JSON, texts in quotes. In Arrow it is
    of the extension type arrow.json, which parquet files of any maker keep.
    """
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.json":
            return _from_json
        return str if kind.extension_name == "arrow.uuid" else None
    if pa.types.is_decimal(kind):
        return _from_decimal
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _decoder(kind.value_type)
    if pa.types.is_map(kind):
        return _of_map(_decoder(kind.item_type))
    if pa.types.is_struct(kind):
        return _of_record({field.name: decode for field in kind.fields
                           if (decode := _decoder(field.type))})
    if any(is_list(kind) for is_list in _LISTS):
        return _of_list(_decoder(kind.value_type))
    return None


def _labels(schema: pa.Schema) -> dict[str, Decoder]:
    """Column -> what names its classes, of the ClassLabel columns that datasets notes in a schema.
    """
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = {name: kind["names"] for name, kind in noted.items()
                 if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {name: partial(Label.of, names=classes) for name, classes in names.items()
            if schema.get_field_index(name) >= 0 and pa.types.is_integer(schema.field(name).type)}


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list,
          pa.types.is_list_view, pa.types.is_large_list_view)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # Arrow does not check what it is given


def _from_decimal(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _of_list(decode: Decoder | None) -> Decoder | None:
    return decode and (lambda items: [None if item is None else decode(item) for item in items])


def _of_record(decoders: dict[str, Decoder]) -> Decoder | None:
    if not decoders:
        return None
    return lambda record: {name: decoders[name](value) if name in decoders and value is not None
                           else value for name, value in record.items()}


def _of_map(decode: Decoder | None) -> Decoder:
    return lambda items: {key: decode(value) if decode and value is not None else value
                          for key, value in items}


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    try:
        return batch.to_pylist()
    except _UNREADABLE:  # find the rows at fault one by one
        return [_one_row(batch.slice(i, 1)) for i in range(batch.num_rows)]


def _one_row(batch: pa.RecordBatch) -> dict[str, Any] | str:
    """A row, or why it is none. A date that Python cannot hold stays Arrow's, which is nothing that
    a row may be read from."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[0].as_py()
        except UnicodeDecodeError:
            return NOT_UTF8
        except _UNREADABLE:
            row[name] = None if pa.types.is_nested(column.type) else column[0]
    return row


def _parquet_batches(path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    with file:
        try:
            yield from file.iter_batches(batch_size=ROWS_A_BATCH)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: damaged parquet file: {error}") from error


class Label(int):
    """The number of a class, equal to that number. Which of two classes comes first is up to
    whoever made the column: only the name says what it means."""

    name: str

    @classmethod
    def of(cls, number: int, names: list[str]) -> int:
        """The label of a number; the number alone where it stands for no class, as -1 does."""
        if not 0 <= number < len(names):
            return number
        label = cls(number)
        label.name = names[number]
        return label


def meaning(value: object) -> object:
    """The name of a label, any other value as it is."""
    return value.name if isinstance(value, Label) else value
