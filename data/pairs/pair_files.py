"""pairs/<split>.parquet: the texts of a prepared data set, one row a pair.

Read, thin out and hash the files that `data.pairs.build` wrote. Knows no tokens.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.manifest import SplitDigest
from src.common.errors import UserError
from src.common.files import atomic_path

T = TypeVar("T")
BATCH = 1_000
"""Pairs in one row group, which is also one part file of tokens."""
SCHEMA = pa.schema([("pair_id", pa.string()), ("prompt_id", pa.string()), ("prompt", pa.string()),
                    ("chosen", pa.string()), ("rejected", pa.string()),
                    ("score_chosen", pa.float64()), ("score_rejected", pa.float64()),
                    ("source", pa.string()), ("subset", pa.string()),
                    ("difficulty", pa.float64())])
"""`prompt` is the JSON text of the message list."""


def batched(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items, so many at a time."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def read_pairs(processed_dir: Path, split: str, columns: list[str] | None = None) -> pa.Table:
    """A split's pairs; `prompt` is JSON text. UserError where it is missing or cut short."""
    path = processed_dir / "pairs" / f"{split}.parquet"
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: missing or not a whole parquet file: run data/preprocess.py "
                        f"with --output_dir {processed_dir} again") from error


def drop_pairs(pairs_dir: Path, pair_ids: set[str]) -> None:
    """Remove the pairs with these ids, if any are there; other row groups stay as they were."""
    unwanted = pa.array(sorted(pair_ids), pa.string())
    for path in sorted(pairs_dir.glob("*.parquet")):
        ids = pq.read_table(path, columns=["pair_id"])["pair_id"]
        if not pc.any(pc.is_in(ids, unwanted)).as_py():
            continue
        with pq.ParquetFile(path) as file, atomic_path(path) as partial, \
                pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                table = table.filter(pc.invert(pc.is_in(table["pair_id"], unwanted)))
                if len(table):
                    writer.write_table(table, row_group_size=BATCH)


def digest_pairs(path: Path, unwanted: set[str] = frozenset()) -> SplitDigest:
    """Counts and hash of the pairs in a file, without those whose ids are `unwanted`."""
    digest = SplitDigest()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=["pair_id", "prompt_id", "chosen",
                                                       "rejected"]):
            chosen_first = pc.less(batch["chosen"], batch["rejected"])
            for pair_id, prompt_id, first in zip(
                    *(column.to_pylist() for column in (batch["pair_id"], batch["prompt_id"],
                                                        chosen_first)), strict=True):
                if pair_id not in unwanted:
                    digest.add(pair_id, prompt_id, first)
    return digest
