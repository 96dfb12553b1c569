"""pairs/<split>.parquet: the texts of a prepared data set, one row a pair.

    build_pairs   source -> work file -> splits -> pairs/, with every dropped row accounted for
    drop_pairs    take out pairs that are too long under some tokenizer
    read_pairs    read a split back

Memory holds ids and hashes of all pairs but the texts of one batch only. Knows no tokens.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from configs.errors import UserError
from configs.schema import DataConfig
from data.manifest import SplitDigest, atomic_path
from data.records import SPLITS, Pair
from data.rows import HARMLESS, prompt_text
from data.sources import Source, find_form, open_source
from data.sources import read_pairs as read_source_pairs
from data.splits import REASONS, UNUSED, Assignment, PairIndex, assign_splits, id_to_int

BATCH = 1_000
"""Pairs in one row group, which is also one part file of tokens."""
SCHEMA = pa.schema([("pair_id", pa.string()), ("prompt_id", pa.string()), ("prompt", pa.string()),
                    ("chosen", pa.string()), ("rejected", pa.string()),
                    ("score_chosen", pa.float64()), ("score_rejected", pa.float64()),
                    ("source", pa.string())])
"""`prompt` is the JSON text of the message list."""


@dataclass
class BuildReport:
    """What became of every row of the source; enters the manifest as it is."""

    form: str = ""
    source: list[dict] = field(default_factory=list)
    """One entry a file: path, sha256, rows."""
    dropped: dict[str, dict] = field(default_factory=dict)
    """Reason -> {"count", "rows"}, a row being "file:number"."""
    unused: dict[str, int] = field(default_factory=dict)
    """Reason -> count of sound pairs that the config did not ask for."""

    def drop(self, reason: str, row: str) -> None:
        entry = self.dropped.setdefault(reason, {"count": 0, "rows": []})
        entry["count"] += 1
        entry["rows"].append(row)


def build_pairs(config: DataConfig, output_dir: Path) -> BuildReport:
    """Write `output_dir`/pairs from the config's source.

    Raises:
        UserError: unreadable source, unknown form, too many bad rows, an empty split. Nothing is
            left behind then.
    """
    work = output_dir / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        report = BuildReport()
        index, rows = _spill(config, work / "spill.arrow", report)
        assignment = assign_splits(index, config)
        _account(assignment, rows, report)
        _check_filled(assignment, config)
        (work / "pairs").mkdir()
        spilled = datasets.Dataset.from_file(str(work / "spill.arrow"))
        for code, name in enumerate(SPLITS):
            picked = np.flatnonzero(assignment.split == code)
            picked = picked[np.lexsort((index.pair[picked], assignment.order[picked]))]
            if len(picked):
                _write_split(spilled, picked, work / "pairs" / f"{name}.parquet")
        shutil.rmtree(output_dir / "pairs", ignore_errors=True)
        (work / "pairs").rename(output_dir / "pairs")
        return report
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not any(output_dir.iterdir()):
            output_dir.rmdir()


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
        if not pa.compute.any(pa.compute.is_in(ids, unwanted)).as_py():
            continue
        with pq.ParquetFile(path) as file, atomic_path(path) as partial, \
                pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                kept = pa.compute.invert(pa.compute.is_in(table["pair_id"], unwanted))
                writer.write_table(table.filter(kept), row_group_size=BATCH)


def digest_pairs(path: Path) -> SplitDigest:
    """Counts of a pairs file and the hash of what it holds, whatever its order."""
    digest = SplitDigest()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["pair_id", "prompt_id", "chosen", "rejected"]):
            for row in batch.to_pylist():
                digest.add(row["pair_id"], row["prompt_id"], row["chosen"] < row["rejected"])
    return digest


def _spill(config: DataConfig, path: Path, report: BuildReport) -> tuple[PairIndex, list[str]]:
    """Write every usable pair to one Arrow stream; keep ids in memory.

    Returns:
        The index of the n pairs, and their n row names.
    """
    columns: dict[str, list] = {"pair": [], "prompt": [], "chosen_first": [], "group": []}
    rows: list[str] = []
    files = config.files or {"": config.path}
    forms = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for group, name in files.items():
            if group not in ("", "train", *SPLITS):
                raise UserError(f"data/{config.name}: files: unknown split {group!r}: expected "
                                f"some of {', '.join(SPLITS)}, or train for both halves")
            source = open_source(name, config)
            forms.append(find_form(source, config))
            pairs = _usable_pairs(source, forms[-1], config, name, report)
            for batch in _batched(pairs):
                for pair in batch:
                    columns["pair"].append(id_to_int(pair.pair_id))
                    columns["prompt"].append(id_to_int(pair.prompt_id))
                    columns["chosen_first"].append(pair.chosen < pair.rejected)
                    columns["group"].append(group)
                    rows.append(pair.source)
                writer.write_batch(_record_batch(batch))
    report.form = ", ".join(dict.fromkeys(forms))
    if not rows:
        raise UserError(f"data/{config.name}: no usable pair in {', '.join(files.values())}")
    index = PairIndex(np.array(columns["pair"], np.uint64), np.array(columns["prompt"], np.uint64),
                      np.array(columns["chosen_first"], bool), np.array(columns["group"]))
    return index, rows


def _usable_pairs(source: Source, form: str, config: DataConfig, path: str,
                  report: BuildReport) -> Iterator[Pair]:
    """The source's pairs; the rest is counted, and too many bad rows stop the command."""
    total, bad, example = 0, 0, ""
    for number, item in tqdm(read_source_pairs(source, form, config), desc=f"read {source.name}",
                             unit=" rows", mininterval=1, delay=1):
        total += 1
        if isinstance(item, Pair):
            yield item
            continue
        report.drop(item, f"{source.name}:{number}")
        if item not in HARMLESS:
            bad += 1
            example = example or f"row {number}: {item}"
    if total and bad / total > config.max_bad_frac:
        raise UserError(
            f"{source.name}: {bad} of {total} rows are unusable as form {form} (first is "
            f"{example}), above max_bad_frac {config.max_bad_frac}: mend the file, give its column "
            "names (--chosen_key ...), or raise --max_bad_frac")
    report.source.append({"path": path, "sha256": source.sha256(), "rows": total})


def _batched(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _record_batch(pairs: list[Pair]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([
        {"pair_id": pair.pair_id, "prompt_id": pair.prompt_id, "prompt": prompt_text(pair.prompt),
         "chosen": pair.chosen, "rejected": pair.rejected, "score_chosen": pair.score_chosen,
         "score_rejected": pair.score_rejected, "source": pair.source} for pair in pairs],
        schema=SCHEMA)


def _write_split(spilled: datasets.Dataset, picked: np.ndarray, path: Path) -> None:
    spilled = spilled.with_format("arrow")
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in tqdm(range(0, len(picked), BATCH), desc=f"write {path.stem}", delay=2):
            table = spilled[picked[start:start + BATCH].tolist()]
            writer.write_table(table.cast(SCHEMA).combine_chunks(), row_group_size=BATCH)


def _account(assignment: Assignment, rows: list[str], report: BuildReport) -> None:
    for code, reason in enumerate(REASONS):
        found = np.flatnonzero(assignment.reason == code)
        if reason in UNUSED:
            report.unused[reason] = len(found)
            continue
        for i in found:
            report.drop(reason, rows[i])


def _check_filled(assignment: Assignment, config: DataConfig) -> None:
    """Raise where a split that the config asks for has no pair."""
    names = [name for name in SPLITS if name in config.files]
    if config.path:
        names = ["train_1", "train_2", "test"]
    elif "train" in config.files:
        names += ["train_1", "train_2"]
    empty = [name for name in names if not (assignment.split == SPLITS.index(name)).any()]
    if empty:
        raise UserError(f"data/{config.name}: no pair is left for {', '.join(empty)}: "
                        f"{int((assignment.reason == -1).sum())} pairs are too few, or the files "
                        "have the same prompts, or fraction is too small")
