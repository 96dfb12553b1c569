"""The tables of one results folder, read back with their meaning: what figures and reports draw on.

Input is `results/<experiment>/` alone: CSV files and meta.json. An empty field is a missing number
and stays missing (NaN); it is never read as 0.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from src.common.errors import UserError, reading
from src.measures.cells import ALL
from src.measures.run_scores import base_of
from src.measures.tables import COLUMNS, FURTHER_COLUMNS

TEXT_COLUMNS = ("experiment", "role", "name", "teacher", "student", "method", "seeds", "data",
                "split", "status", "best_ceiling_name", "best_seeds", "best_status", "base", "keep",
                "place", "baseline", "verdict")


OTHER_SPLITS = {
    "train_1": ("the teachers' training pairs",
                "Teachers are scored on pairs that they learnt from, students and ceilings on new "
                "ones: gain, gap and PGR come out too low."),
    "train_2": ("the students' own training pairs",
                "Ceilings are training accuracy, students have partly memorised their weak labels: "
                "PGR is biased towards 0 and is no evidence of generalisation."),
    "val": ("not the test pairs", "Early stopping may have looked at them."),
}
"""What pairs of another split than test are, and what that does to the numbers."""


@dataclass(frozen=True)
class Results:
    """Everything one evaluation wrote."""

    folder: Path
    meta: dict[str, Any]
    accuracy: pd.DataFrame
    pgr: pd.DataFrame
    companions: pd.DataFrame
    calibration: pd.DataFrame
    curves: pd.DataFrame
    ceilings: pd.DataFrame
    """No rows where the ceilings of every base model rise with depth."""
    methods: pd.DataFrame
    """No rows where there is no method beside the baseline."""
    pooled: pd.DataFrame
    """As `pgr`, with pooled intervals; no rows where there are not two cells and two seeds."""

    @property
    def seeds(self) -> list[str]:
        """Of the runs that are there; meta.json has those that are planned."""
        return seed_list(self.accuracy.seed.dropna()).split()

    @property
    def cells(self) -> pd.DataFrame:
        """PGR rows of one teacher, student and method."""
        return pgr_cells(self.pgr)

    @property
    def totals(self) -> pd.DataFrame:
        """PGR rows over all teachers and students, one per method."""
        return self.pgr[(self.pgr.teacher == ALL) & (self.pgr.student == ALL)]

    @property
    def percent(self) -> str:
        """The intervals' level, for example `95%`."""
        return f"{100 * self.meta.get('level', 0.95):.6g}%"

    @property
    def seeds_of_rows(self) -> set[int]:
        """How many seeds the rows of pgr.csv have, fewer than the experiment's where runs are not
        finished; without such rows, those of the models."""
        if len(self.pgr):
            return {len(seeds.split()) for seeds in self.pgr.seeds if seeds}
        models = self.accuracy[self.accuracy.role != "baseline"]
        return {*models.groupby(["role", "name"]).seed.nunique()}

    @property
    def resampled(self) -> str:
        """What the intervals of pgr.csv stand for."""
        counts = self.seeds_of_rows
        if max(counts, default=1) < 2:
            return "prompts, at one seed"
        return "seeds and prompts" + (", in rows of one seed prompts alone" * (min(counts) < 2))

    @property
    def contamination(self) -> str:
        """What must stand on every output when the pairs scored are training pairs, else empty."""
        return contamination_mark(self.meta["split"]) if self.meta.get("contaminated") else ""


def contamination_mark(split: str) -> str:
    """The words that mark numbers scored on other pairs than those of test; empty for test."""
    return f"scored on {split}: {OTHER_SPLITS[split][0]}" if split in OTHER_SPLITS else ""


def pgr_cells(pgr: pd.DataFrame) -> pd.DataFrame:
    """The rows of a PGR table that belong to one teacher and one student."""
    return pgr[(pgr.teacher != ALL) & (pgr.student != ALL)]


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        UserError: accuracy.csv or meta.json is missing, or a file is cut short or of another form.
    """
    folder = Path(folder)
    remedy = "write it again with eval.py"
    with reading(folder / "meta.json", remedy):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or not {"experiment", "split"} <= set(meta):
            raise ValueError("no experiment or split in it")
    if not (folder / "accuracy.csv").is_file():
        raise UserError(f"{folder / 'accuracy.csv'}: no such file: {remedy}")
    tables = {name: read_csv_table(folder / f"{name}.csv") for name in COLUMNS}
    return Results(folder, meta, **tables)


def read_csv_table(path: Path) -> pd.DataFrame:
    """One CSV with the columns its name calls for, missing ones of FURTHER_COLUMNS empty; no rows
    where the file does not exist."""
    further = FURTHER_COLUMNS.get(path.stem, [])
    columns = [*COLUMNS[path.stem], *further]
    if not path.is_file():
        return pd.DataFrame({column: pd.Series(dtype=_kind(column)) for column in columns})
    numbers = {column: [""] for column in columns if _kind(column) is float}
    with reading(path, "write it again with eval.py"):
        table = pd.read_csv(path, dtype={column: _kind(column) for column in columns},
                            keep_default_na=False, na_values=numbers)
    if not set(further) & set(table):
        table = table.assign(**{name: "" if _kind(name) is str else float("nan")
                                for name in further})
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing: write it again with "
                        "eval.py")
    return table


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """A table made in memory as `read_csv_table` would give it back: missing text is empty."""
    kinds = {column: _kind(column) for column in table}
    texts = [column for column, kind in kinds.items() if kind is str]
    return table.fillna(dict.fromkeys(texts, "")).astype(kinds)


def _kind(column: str) -> type:
    return str if column in TEXT_COLUMNS else float


def mean_over_seeds(accuracy: pd.DataFrame) -> pd.DataFrame:
    """One row per model instead of one per run, in the order of the table.

    Numbers are means over seeds. `low` and `high` are the widest of the runs' own intervals, so
    they cover the spread of the seeds too. `seeds` lists them, `n` is the test pairs of one run.
    """
    keys = ["role", "name", "teacher", "method"]
    groups = accuracy.groupby(keys, sort=False)
    means = groups[["layers", "n", "accuracy", "ties", "auroc", "log_loss", "brier",
                    "length_only"]].mean()
    means["low"], means["high"] = groups.low.min(), groups.high.max()
    means["seeds"] = groups.seed.apply(lambda seeds: seed_list(seeds.dropna()))
    return means.reset_index()


def seed_list(seeds: Sequence[float]) -> str:
    """`0 1 2`, sorted and once each."""
    return " ".join(f"{seed:g}" for seed in sorted(set(seeds)))


@dataclass(frozen=True)
class Rungs:
    """The models of the ladders in order, and how an axis names them."""

    names: tuple[str, ...]
    base: str
    """The one base model they are cut from; empty where they are different models."""
    layers: dict[str, float]
    ticks: dict[str, str]
    """A rung's name on an axis that carries `axis_label`."""

    @classmethod
    def of(cls, accuracy: pd.DataFrame) -> "Rungs":
        """Order by layers where all rungs are cuts of one model, else as the table has them."""
        models = accuracy[accuracy.role != "baseline"]
        layers = dict(zip(models.name, models.layers, strict=True))
        for teacher in set(models.teacher) - {"", *layers}:  # its own run is not there
            layers[teacher] = float("nan")
        bases = {name: base_of(name) for name in layers}
        different, counts = set(bases.values()), list(layers.values())
        cuts = all(re.search(r"-p[\d.e-]+$", name) is None for name in layers)  # by layers alone
        numbered = len(set(counts)) == len(counts) and not pd.isna(counts).any()
        if cuts and numbered and len(different) == 1:
            names = tuple(sorted(layers, key=layers.get))
            return cls(names, different.pop(), layers, {n: f"{layers[n]:g}" for n in names})
        whole = cuts and len(different) == len(bases)
        return cls(tuple(layers), "", layers, bases if whole else {name: name for name in layers})

    @property
    def axis_label(self) -> str:
        return f"layers kept of {self.base}" if self.base else "model"

    def place(self, name: str) -> float:
        """Where a rung stands on the x axis: its layers, or its number in the order."""
        return self.layers[name] if self.base else float(self.names.index(name))

    def title(self, name: str) -> str:
        """A rung's name on its own, `4 layers` or `gpt2_medium`."""
        tick = self.ticks[name]
        return f"{tick} layer{'s' * (tick != '1')}" if self.base else tick

    def short(self, name: str) -> str:
        """A rung's name where the base model need not be said, `L4` or `gpt2_medium-L24`."""
        return name.removeprefix(f"{self.base}-") if self.base else name

    def sort(self, names: Sequence[str]) -> list[str]:
        """The given rungs, once each, weakest first."""
        wanted = set(names)
        return [name for name in self.names if name in wanted]

    def ladders(self, names: Sequence[str]) -> list[list[str]]:
        """The given rungs, once each, in groups that one line may join: cuts of one base by one
        rule, or, where no base is cut twice, all models."""
        found: dict[str, list[str]] = {}
        for name in self.sort(names):
            rule = re.match(r"-[A-Z]", name.removeprefix(base_of(name)))
            found.setdefault(f"{base_of(name)}{rule and rule[0]}", []).append(name)
        several = len({base_of(name) for name in self.names}) < len(self.names)
        return list(found.values()) if several and not self.base else [self.sort(names)]
