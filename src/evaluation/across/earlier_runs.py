"""Runs that are not here, as an earlier evaluation scored them: what `eval.py --add` adds to.

`results/<experiment>/runs.csv` says which run made each column of scores.csv. A run that an
experiment asks for has the same identity wherever it was trained, so that seeds can be added to a
table whose other seeds were trained on another machine, or freed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from configs.run import RunConfig
from src.common.errors import UserError, reading
from src.common.hashing import commit
from src.evaluation.across.committed_scores import committed_scores
from src.measures.run_scores import RunScores
from src.reports.results import read_csv_table

RUNS = "runs.csv"
COLUMNS = ["run", "identity", "commit"]
REMEDY = ("leave --add out: the table is then of the runs here alone, and replaces that one unless "
          "--results_dir is another")


def runs_table(scored: Sequence[RunScores]) -> pd.DataFrame:
    """runs.csv: one row a run, with the commit of its evaluation."""
    now = commit()
    return pd.DataFrame([(run.column, run.identity, run.commit or now)
                         for run in scored if run.identity], columns=COLUMNS)


def read_runs(folder: Path) -> pd.DataFrame:
    """runs.csv of the results in `folder`.

    Raises:
        UserError: it is not there, has an empty field or a run twice, or does not fit scores.csv.
    """
    path = folder / RUNS
    if not path.is_file():
        raise UserError(f"--add {path}: no such file: expected that of an earlier evaluation; "
                        f"{REMEDY}")
    with reading(path, REMEDY):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
        scored = pd.read_csv(folder / "scores.csv", nrows=0).columns
    for run in table.run[table.run.duplicated() | (table == "").any(axis=1)]:
        raise UserError(f"{path}: run {run!r} is there twice or has an empty field; {REMEDY}")
    for run in table.run[~table.run.isin(scored)]:
        raise UserError(f"{path}: {run} is no column of scores.csv; {REMEDY}")
    return table


def seeds_of(folder: Path) -> set[int]:
    """The seeds of the runs in the results `folder`; errors as of `read_runs`."""
    runs = read_runs(folder).run
    with reading(folder / RUNS, REMEDY):
        return {int(run.rsplit("/", 1)[1]) for run in runs}


def earlier_runs(planned: Sequence[RunConfig], here: Sequence[RunConfig],
                 folder: Path) -> list[tuple[RunConfig, RunScores]]:
    """The runs of `planned`, without those that are `here`, that the results `folder` has.

    Raises:
        UserError: runs.csv cannot be used, or has a run that is not planned: the table would lose
            it.
    """
    rows = read_runs(folder).set_index("run")
    scores = {run.column: run for run in committed_scores(folder)[0]}
    curves = read_csv_table(folder / "curves.csv")
    nothing = np.empty(0)
    asked = {RunScores.of(run, nothing, nothing, ()).column: run for run in planned}
    for column, identity in rows.identity.items():
        if column not in asked or asked[column].identity != identity:
            raise UserError(f"{folder / RUNS}: {column}, {identity[:8]}, is no run that the "
                            "experiment asks for: its recipe, data or precision (set by "
                            f"PRECISION=fp32 or bf16) is another; {REMEDY}")
    return [(run, RunScores.of(run, scores[column].pair_ids, scores[column].margins,
                               _curve(scores[column], curves), rows.commit[column]))
            for column, run in asked.items() if column in rows.index and run not in here]


def _curve(run: RunScores, curves: pd.DataFrame) -> list[tuple[int, float]]:
    """Its rows of curves.csv."""
    own = curves[(curves.role == run.role) & (curves.name == run.name) & (curves.seed == run.seed)
                 & (curves.teacher == run.teacher) & (curves.method == run.method)]
    return list(zip(own.step.astype(int), own.loss, strict=True))


def earlier_note(scored: Sequence[RunScores]) -> list[str]:
    """What a report says of such runs; nothing where there are none."""
    earlier = [run.commit for run in scored if run.commit]
    if not earlier:
        return []
    total = sum(bool(run.identity) for run in scored)
    return [f"{len(earlier)} of {total} runs stand as an earlier evaluation had them, at commit "
            f"{', '.join(sorted(set(earlier)))}."]
