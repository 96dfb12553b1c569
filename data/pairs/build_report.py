"""What became of every row of the source, and of every pair made of it; enters the manifest."""

from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from configs.schema import DataConfig
from data.pairs.mixture import sources_of
from data.pairs.splits import PER_PROMPT, REASONS, UNUSED, Assignment
from data.read.rules import HARMLESS

NOTES_LISTED = 50
OTHER_NOTES = "other parts left out"
ROWS_LISTED = 10_000
"""Rows named for one reason; beyond them only the count goes on, or millions would be held."""


@dataclass
class BuildReport:
    """Counts by reason and by source."""

    form: str = ""
    source: list[dict] = field(default_factory=list)
    """One entry a file: path, sha256, rows."""
    sources: dict[str, dict] = field(default_factory=dict)
    """Data config -> `rows` read, `pairs` that its rules make, `dropped` (reason -> count), `kept`
    (in a split, before any judgement of length), and its `config` where it is a mixture's."""
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    """Key of the config's `expected` -> `published` and `found`."""
    dropped: dict[str, dict] = field(default_factory=dict)
    """Reason -> {"count", "rows"}, a row being "file:number", the first ROWS_LISTED of them."""
    unused: dict[str, int] = field(default_factory=dict)
    """Reason -> count of sound pairs that the config did not ask for."""
    decontaminated: dict[str, dict] = field(default_factory=dict)
    """Evaluation set -> its `prompts` and distinct `runs` of words, and `pairs` (split -> count)
    whose prompts overlap. A pair that overlaps several sets counts for each."""

    notes: dict[str, int] = field(default_factory=dict)
    """What was left out of rows that were used, or read as something else -> rows."""

    def add_source(self, name: str, rows: int) -> None:
        """A file of the data config `name` is read."""
        entry = self.sources.setdefault(name, {"rows": 0, "pairs": 0, "dropped": {}, "kept": 0})
        entry["rows"] += rows

    def drop(self, source: str, reason: str, rows: list[str], count: int) -> None:
        """`count` rows of a data config go for one reason; `rows` are the names of some."""
        self.add_source(source, 0)
        of_source = self.sources[source]["dropped"]
        of_source[reason] = of_source.get(reason, 0) + count
        entry = self.dropped.setdefault(reason, {"count": 0, "rows": []})
        entry["count"] += count
        entry["rows"] += rows[:ROWS_LISTED - len(entry["rows"])]

    def add_notes(self, notes: Counter[str]) -> None:
        """The notes on a source's rows; a file of ever new ones is no reason to hold them all."""
        for note, count in notes.items():
            kept = note in self.notes or len(self.notes) < NOTES_LISTED
            note = note if kept else OTHER_NOTES
            self.notes[note] = self.notes.get(note, 0) + count

    def reasons(self, source: str = "", harmless: bool = True) -> str:
        """`3 empty side, 1 equal scores`: what became of the rows that gave nothing.

        Args:
            source: count this data config's alone; "" for all.
            harmless: count those too that say nothing against the source.
        """
        counts = self.sources[source]["dropped"] if source else {
            reason: entry["count"] for reason, entry in self.dropped.items()}
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        return ", ".join(f"{count:,} {reason}" for reason, count in ordered
                         if harmless or reason not in HARMLESS) or "no rows"

    def add_assignment(self, assignment: Assignment, source: np.ndarray, config: DataConfig,
                       parts: list[DataConfig], rows: pa.ChunkedArray) -> None:
        """Enter every pair: its split or the reason why it has none; `rows` name all of them."""
        self.unused = {reason: int((assignment.reason == REASONS.index(reason)).sum())
                       for reason in UNUSED}
        for number, part in enumerate(parts):
            mine = source == number
            counts = np.bincount(assignment.reason[mine & (assignment.reason >= 0)],
                                 minlength=len(REASONS)).tolist()
            for code, reason in enumerate(REASONS):
                if counts[code] and reason not in UNUSED:
                    found = np.flatnonzero(mine & (assignment.reason == code))[:ROWS_LISTED]
                    self.drop(part.name, reason, rows.take(pa.array(found)).to_pylist(),
                              counts[code])
            entry = self.sources[part.name]
            entry["pairs"] = int(mine.sum()) - counts[REASONS.index(PER_PROMPT)]
            entry["kept"] = int((assignment.split[mine] >= 0).sum())
            if config.sources:
                entry["config"] = asdict(part)

    def compare_with_published(self, config: DataConfig, parts: list[DataConfig]) -> None:
        """Set published counts beside those found, unless only a part was read."""
        if any(part.fixture or part.limit is not None for part in parts):
            return
        for what, published in config.expected.items():
            names = sources_of(what, list(self.sources)) if config.sources else [config.name]
            count = "pairs" if config.sources else what
            found = sum(self.sources[name][count] for name in names)
            self.expected[what] = {"published": published, "found": found}
