"""A benchmark's rows as they are published: one file or data set, or a folder with a file a part.

Nothing is dropped but what holds no answers, which is counted.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from configs.identity import written
from configs.schema import DataConfig
from data.read.answers import Answers
from data.read.sources import find_form, open_source, read_answers
from data.records import prompt_id_of
from src.common.errors import UserError
from src.common.hashing import content_hash
from src.measures.benchmarks.scores import benchmark_scores

ALL_ROWS = "all rows"
"""The subset of rows whose data set has no subsets."""


@dataclass(frozen=True)
class Rows:
    """A benchmark's rows."""

    answers: list[Answers]
    unusable: Counter[str]
    """Reason -> rows that hold no answers."""
    notes: Counter[str]
    """What was left out of the others, or read as something else -> rows."""
    data_hash: str

    @property
    def left_out(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in self.unusable.most_common())

    def table(self, rewards: list[np.ndarray]) -> pd.DataFrame:
        """One line a response, see src/measures/benchmarks/rows.py, with its length in characters.

        Args:
            rewards: one array a row, one reward a response.
        """
        return pd.DataFrame([
            {"row": number, "id": row.row_id, "subset": row.subset or ALL_ROWS, "response": i,
             "value": row.values[i], "reward": float(own[i]), "prompt_id": prompt_id,
             "length": len(text), "source": row.source}
            for number, (row, own) in enumerate(zip(self.answers, rewards, strict=True))
            for prompt_id in [prompt_id_of(row.prompt)]
            for i, text in enumerate(row.texts)])


def read_rows(config: DataConfig) -> Rows:
    """The rows of a benchmark: its test file, or all its files.

    Raises:
        UserError: no usable row; rows that are not the benchmark's. That is found out here, on
            rewards of 0, and not after a model has scored them all.
    """
    if config.sources:
        raise UserError(f"data/{config.name}: a mixture has no benchmark's score: scorer "
                        f"{config.scorer} needs path or files")
    files = config.files and ([config.files["test"]] if "test" in config.files else
                              list(config.files.values()))
    answers, unusable, notes, hashes = [], Counter(), Counter(), []
    for path in files or [config.path]:
        for part, subset in _parts(path, config):
            source = open_source(part, config)
            hashes.append(source.sha256())
            for _, row in read_answers(source, find_form(source, config), config):
                if isinstance(row, str):
                    unusable[row] += 1
                else:
                    answers.append(dataclasses.replace(row, subset=row.subset or subset))
            notes.update(source.notes)
    rows = Rows(answers, unusable, notes, content_hash([written(config), hashes]))
    if not answers:
        raise UserError(f"data/{config.name}: no usable row: {rows.left_out}")
    benchmark_scores(config.scorer, rows.table([np.zeros(len(row.texts)) for row in answers]))
    return rows


def _parts(path: str, config: DataConfig) -> Iterator[tuple[str, str]]:
    """(path, subset) of each file; the subset is "" where no file's name says it."""
    place = open_source(path, config).path
    found = []
    if config.part_files and place is not None:
        pattern = config.part_files
        files = sorted(place.glob(pattern)) if place.is_dir() else [place]
        folder = place if place.is_dir() else place.parent
        found = [(str(file), subset) for file in files
                 if (subset := _starred(file.relative_to(folder), pattern))]
    yield from found or [(path, "")]


def _starred(file: Path, pattern: str) -> str:
    """What stands for the `*` of the pattern, with `_` between folders; "" where it does not
    match."""
    before, _, after = pattern.replace("**", "*").partition("*")
    name = file.as_posix()
    if not (name.startswith(before) and name.endswith(after)):
        return ""
    return name[len(before):len(name) - len(after)].replace("/", "_")
