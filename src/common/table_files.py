"""Tables that are whole or not there, and know what they were made from."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src.common.files import atomic_path
from src.common.lock import lock, quiet


def write_table(path: Path, table: pd.DataFrame, inputs: dict[str, str]) -> None:
    """A parquet file that carries in itself the hashes of what it was made from."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), b"inputs": json.dumps(inputs).encode()}
    with atomic_path(path) as partial:
        pq.write_table(arrow.replace_schema_metadata(metadata), partial)


def read_table(path: Path, inputs: dict[str, str]) -> pd.DataFrame | None:
    """The table if it is whole and was made from `inputs`, otherwise None: make it again."""
    try:
        arrow = pq.read_table(path)
        made_from = json.loads((arrow.schema.metadata or {}).get(b"inputs", b"null"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return None
    return arrow.to_pandas() if made_from == inputs else None


def made_once(path: Path, inputs: dict[str, str],
              make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at `path`; where it is not whole, or of other inputs, `make` gives it. Of several
    launches that ask, one makes it."""
    with lock(path, quiet):
        table = read_table(path, inputs)
        if table is None:
            table = make()
            write_table(path, table, inputs)
    return table
