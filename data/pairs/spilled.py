"""The work file that `data.pairs.spill` wrote, read back: a column of it, or rows in any order.

The file is mapped, not read. Pages that were looked at count as this process's memory until they
are let go; the system keeps them while there is room.
"""

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa


class Spilled:
    """n pairs on disk."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with pa.ipc.open_stream(pa.py_buffer(self._map)) as reader:
            self._batches = list(reader)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def column(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array([batch[name] for batch in self._batches])

    def take(self, rows: np.ndarray) -> pa.Table:
        """The rows with these numbers, in that order, as one chunk of memory of its own."""
        places = np.searchsorted(self._starts, rows, side="right") - 1
        offsets = rows - self._starts[places]
        return pa.Table.from_batches([
            self._batches[place].slice(offset, 1) for place, offset
            in zip(places.tolist(), offsets.tolist(), strict=True)]).combine_chunks()

    def let_go(self) -> None:
        """Give back the memory of the pages that were looked at."""
        self._map.madvise(mmap.MADV_DONTNEED)
