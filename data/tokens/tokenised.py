"""Token ids of a prepared split, read back memory-mapped.

    split = open_split(Path("data/processed/demo"), tokenizer_key(tokenizer), "train_1")
    split[0]  # {"pair_id", "prompt_id", "prompt_ids", "chosen_ids", "rejected_ids"}

The ids lie in tokens/<key>/<split>/part-*.arrow, written by `data.tokens.tokenise`. Pairs that one
tokenizer of the data set cannot take (data/tokens/lengths.py) are left out for all. Knows no texts.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.manifest import read_manifest, split_names, unwanted_ids
from src.common.errors import UserError
from src.common.hashing import content_hash

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
SCHEMA = pa.schema([("pair_id", pa.string()), ("prompt_id", pa.string()),
                    *((name, pa.list_(pa.int32())) for name in IDS)])


class TokenisedSplit:
    """n pairs of one split under one tokenizer; rows are read from disk when asked for."""

    def __init__(self, parts: Sequence[Path], unwanted: set[str] = frozenset(),
                 data_hash: str = ""):
        """Open part files in order, leaving out the pairs whose ids are `unwanted`."""
        batches = [read_part(path) for path in parts]
        self.data_hash = data_hash
        pair_ids = _joined(batches, "pair_id")
        kept = np.flatnonzero(~np.isin(pair_ids, list(unwanted)))
        self.pair_ids: np.ndarray = pair_ids[kept]
        self.prompt_ids: np.ndarray = _joined(batches, "prompt_id")[kept]
        starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._part = np.searchsorted(starts, kept, side="right") - 1
        self._row = kept - starts[self._part]
        self._offsets = [[batch[name].offsets.to_numpy() for name in IDS] for batch in batches]
        self._values = [[batch[name].values.to_numpy() for name in IDS] for batch in batches]

    def __len__(self) -> int:
        return len(self.pair_ids)

    @functools.cached_property
    def order(self) -> str:
        """Hash of the pairs in their order, of which `data_hash` knows nothing: for what is kept
        row by row without ids."""
        return content_hash(self.pair_ids.tolist())

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row i: pair_id, prompt_id, and prompt_ids, chosen_ids, rejected_ids as lists of int."""
        part, row = self._part[i], self._row[i]
        item: dict[str, Any] = {"pair_id": str(self.pair_ids[i]),
                                "prompt_id": str(self.prompt_ids[i])}
        for name, offsets, values in zip(IDS, self._offsets[part], self._values[part],
                                         strict=True):
            item[name] = values[offsets[row]:offsets[row + 1]].tolist()
        return item

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows at `indices`, in that order."""
        return [self[i] for i in indices]

    def ids(self, rows: Sequence[int], columns: Sequence[int]) -> list[np.ndarray]:
        """Token ids of column columns[k] (0 prompt, 1 chosen, 2 rejected) of row rows[k], for every
        k: views of the file, (length,) int32."""
        views = []
        places = (self._part[rows].tolist(), self._row[rows].tolist(), np.asarray(columns).tolist())
        for part, row, column in zip(*places, strict=True):
            offsets = self._offsets[part][column]
            views.append(self._values[part][column][offsets[row]:offsets[row + 1]])
        return views

    def lengths(self) -> np.ndarray:
        """(n, 3) int64: tokens of prompt, chosen and rejected."""
        if not self._offsets:
            return np.zeros((0, 3), np.int64)
        per_part = [np.stack([np.diff(offsets) for offsets in part], axis=1)
                    for part in self._offsets]
        starts = np.cumsum([0, *map(len, per_part)])
        return np.concatenate(per_part)[starts[self._part] + self._row].astype(np.int64)


class PreparedData:
    """A prepared data set; each of its splits is opened once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._open: dict[tuple[str, str], TokenisedSplit] = {}

    def split(self, key: str, split: str) -> TokenisedSplit:
        """The pairs of `split` under the tokenizer with this key; UserError as `open_split`."""
        if (key, split) not in self._open:
            self._open[key, split] = open_split(self.folder, key, split)
        return self._open[key, split]


def open_split(processed_dir: Path, key: str, split: str) -> TokenisedSplit:
    """The pairs of `split` under the tokenizer with this key.

    Raises:
        UserError: nothing prepared there; not for this tokenizer; no such split; a part file is
            missing or cut short. Each names the command that mends it.
    """
    manifest = read_manifest(processed_dir)
    remedy = (f"run: python data/preprocess.py --data {manifest['name']} --output_dir "
              f"{processed_dir} --tokenizer_name MODEL_FOLDER")
    if key not in manifest["tokenizers"]:
        known = ", ".join(entry["name"] for entry in manifest["tokenizers"].values()) or "none"
        raise UserError(f"{processed_dir}: not prepared for this model's tokenizer and chat "
                        f"template (key {key}); prepared for: {known}; {remedy}")
    parts = manifest["tokenizers"][key]["parts"]
    if split not in parts:
        raise UserError(f"{processed_dir}: no split {split!r}: it has "
                        f"{', '.join(split_names(manifest))}")
    folder = processed_dir / "tokens" / key / split
    for name, size in parts[split]:
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path}: missing or cut short (expected {size} bytes); {remedy}")
    try:
        return TokenisedSplit([folder / name for name, _ in parts[split]],
                              unwanted_ids(manifest), manifest["data_hash"])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{folder}: unreadable part file: {error}; {remedy}") from error


def read_part(path: Path) -> pa.RecordBatch:
    """The one record batch of a part file, memory-mapped; pa.ArrowInvalid where it is cut short."""
    with pa.memory_map(str(path)) as file:  # the mapping outlives the file handle
        return pa.ipc.open_file(file).get_batch(0)


def _joined(batches: Sequence[pa.RecordBatch], column: str) -> np.ndarray:
    """A text column over all parts as an array of fixed-width str."""
    values = [np.asarray(batch[column].to_pylist(), dtype=np.str_) for batch in batches]
    return np.concatenate(values) if values else np.empty(0, np.str_)
