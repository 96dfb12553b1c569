"""Sources -> pairs/: read, check, drop duplicates and overlaps, split, write.

Every row and every pair ends up somewhere: in a split or in the report. Pairs go through one work
file on disk. Knows no tokens.
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from configs.schema import DataConfig
from data.pairs.balance import drop_surplus_of_length
from data.pairs.build_report import BuildReport
from data.pairs.decontaminate import drop_overlaps, read_benchmarks
from data.pairs.mixture import parts_of
from data.pairs.pair_files import BATCH, SCHEMA
from data.pairs.spill import spill
from data.pairs.spilled import Spilled
from data.pairs.splits import TRAIN, Assignment, assign_splits
from data.records import SPLITS
from src.common.errors import UserError
from src.common.owned import disclaim


def build_pairs(config: DataConfig, output_dir: Path) -> BuildReport:
    """Write `output_dir`/pairs from the config's source, or from the sources of a mixture.

    Raises:
        UserError: unreadable source, unknown form, too many bad rows, an empty split. Nothing is
            left behind then.
    """
    work = output_dir / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        report, parts, benchmarks = BuildReport(), parts_of(config), read_benchmarks(config)
        index = spill(config, parts, work / "spill.arrow", report)
        spilled = Spilled(work / "spill.arrow")

        def clean(split: np.ndarray, reason: np.ndarray) -> None:
            report.decontaminated = drop_overlaps(spilled.column("prompt"), benchmarks, config,
                                                  split, reason)
            spilled.let_go()

        assignment = assign_splits(index, config, parts, clean)
        if config.balance == "length":
            drop_surplus_of_length(index, assignment)
        report.add_assignment(assignment, index.source, config, parts, spilled.column("source"))
        report.compare_with_published(config, parts)
        _check_filled(assignment, config, report)
        (work / "pairs").mkdir()
        for code, name in enumerate(SPLITS):
            picked = np.flatnonzero(assignment.split == code)
            picked = picked[np.lexsort((index.pair[picked], assignment.order[picked]))]
            if len(picked):
                _write_split(spilled, picked, work / "pairs" / f"{name}.parquet")
        (output_dir / "pairs").mkdir(exist_ok=True)
        for path in (work / "pairs").iterdir():
            path.replace(output_dir / "pairs" / path.name)
        return report
    finally:
        shutil.rmtree(work, ignore_errors=True)
        disclaim(output_dir)


def _write_split(spilled: Spilled, picked: np.ndarray, path: Path) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in tqdm(range(0, len(picked), BATCH), desc=f"write {path.stem}", delay=2):
            writer.write_table(spilled.take(picked[start:start + BATCH]), row_group_size=BATCH)
            spilled.let_go()


def _check_filled(assignment: Assignment, config: DataConfig, report: BuildReport) -> None:
    """Raise where a split that the config asks for has no pair."""
    names = [name for name in SPLITS if name in config.files]
    if config.path or config.sources:
        names = ["train_1", "train_2", "test"]
    elif TRAIN in config.files:
        names += ["train_1", "train_2"]
    empty = [name for name in names if not (assignment.split == SPLITS.index(name)).any()]
    if empty:
        unused = ", ".join(f"{count:,} {reason}" for reason, count in report.unused.items()
                           if count)
        raise UserError(f"data/{config.name}: no pair is left for {', '.join(empty)}: "
                        f"{int((assignment.reason == -1).sum())} pairs are too few, or the files "
                        "have the same prompts, or fraction is too small; dropped: "
                        f"{report.reasons()}; left out: {unused or 'no pairs'}")
