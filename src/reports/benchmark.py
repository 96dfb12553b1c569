"""A benchmark's scores beside those of length alone, as a table and as lines to print. No torch."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from configs.schema import DataConfig
from src.common.console import table_lines
from src.measures.benchmarks.against import Difference
from src.measures.benchmarks.parts import LEVEL, Score
from src.measures.benchmarks.rm_bench import STYLES, style_matrix
from src.measures.benchmarks.rows import read_subsets
from src.measures.benchmarks.scores import absent, benchmark_scores
from src.reports.format import count, interval_text, number

BASELINES = {"longer": 1, "shorter": -1}
"""The longer or the shorter response wins, in characters, on the rows that the model scores."""


@dataclass(frozen=True)
class Report:
    """What a model makes of a benchmark."""

    model: str
    benchmark: str
    scorer: str
    scores: list[Score]
    baselines: dict[str, dict[str, float]]
    """Baseline -> name of a part -> its score; empty where the lengths are not known."""
    notes: list[str]
    """What was left out, and what is missing for a published score."""
    matrix: np.ndarray | None
    """RM-Bench's (3, 3) shares, right response's style by wrong one's."""

    @property
    def overall(self) -> Score:
        return self.scores[-1]

    def table(self) -> pd.DataFrame:
        """One line a part, with the baselines' scores."""
        table = pd.DataFrame(map(dataclasses.asdict, self.scores))
        for name, found in self.baselines.items():
            table[name] = table["name"].map(found)
        table.insert(0, "benchmark", self.benchmark)
        table.insert(0, "model", self.model)
        return table

    def lines(self) -> list[str]:
        """For the console: the score first."""
        best = self.overall
        lines = [f"{self.model} on {self.benchmark}: {best.n:,} rows",
                 f"score {best.score:.4f} [{best.low:.4f}, {best.high:.4f}] ({LEVEL:.0%}, prompts "
                 f"resampled), accuracy {best.accuracy:.4f}, ties {best.ties}"]
        lines += [f"baseline, the {name} response wins: {found['overall']:.4f}"
                  for name, found in self.baselines.items()]
        lines += [f"! {note}" for note in self.notes]
        if self.matrix is not None:
            lines += ["", "right response's style by wrong one's: " + ", ".join(STYLES)]
            lines += ["  " + "  ".join(number(share) for share in row) for row in self.matrix]
        return [*lines, "", *_columns(self.scores, self.baselines)]


def read_report(config: DataConfig, table: pd.DataFrame, model: str, notes: list[str],
                why_missing: str) -> Report:
    """Scores of a table of rewards, see src/measures/benchmarks/rows.py.

    Args:
        why_missing: why a response has no reward.
    Raises:
        UserError: the table is not one of this benchmark.
    """
    scores = benchmark_scores(config.scorer, table)
    baselines = {name: {score.name: score.score for score in benchmark_scores(
        config.scorer, table.assign(reward=sign * table["length"].where(table["reward"].notna())))}
        for name, sign in BASELINES.items()} if "length" in table else {}
    missing = sum(subset.missing + (config.scorer == "pandalm") * subset.missing_tied
                  for subset in read_subsets(table))
    notes = list(notes)
    if missing:
        notes.append(f"rows in no score: {missing:,} (a response is {why_missing})")
    if lacking := absent(config.scorer, scores):
        notes.append(f"no row of {', '.join(lacking)}: not comparable with published scores")
    matrix = None
    if config.scorer == "rm_bench":
        matrix = style_matrix([subset for subset in read_subsets(table) if subset.rows])
    return Report(model, config.name, config.scorer, scores, baselines, notes, matrix)


def difference_lines(found: list[Difference], name: str, other: str) -> list[str]:
    """One model against another, for the console."""
    head = ["", "n", name, other, "difference", "95% interval", "p", "p (Holm)"]
    rows = [[each.subset, count(each.n), number(each.score), number(each.other),
             number(each.difference), interval_text(each.low, each.high), number(each.p),
             number(each.p_holm)] for each in found]
    apart = sum(each.p_holm < 1 - LEVEL for each in found)
    return [f"{name} against {other}: {apart} of {len(found)} subsets differ (McNemar's exact "
            f"test, Holm's correction for {len(found)})", "", *table_lines(head, rows)]


def _columns(scores: list[Score], baselines: dict[str, dict[str, float]]) -> list[str]:
    """The parts as aligned text."""
    head = ["", "score", "95% interval", "accuracy", "n", "ties", "missing", *baselines]
    rows = [[("  " if score.kind == "subset" else "") + score.name, number(score.score),
             interval_text(score.low, score.high), number(score.accuracy), count(score.n),
             count(score.ties), count(score.missing),
             *(number(found.get(score.name, np.nan)) for found in baselines.values())]
            for score in scores]
    return table_lines(head, rows)
