"""Runs that are not here, as an earlier evaluation scored them: what `eval.py --add` adds to.

`results/<experiment>/runs.csv` says which run made each column of scores.csv. A run that an
experiment asks for has the same identity wherever it was trained, so that seeds can be added to a
table whose other seeds were trained on another machine, or freed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from configs.run import RunConfig
from src.common.errors import UserError, reading
from src.common.files import read_json
from src.common.hashing import commit
from src.evaluation.across.committed_scores import committed_scores
from src.measures.run_scores import RunScores
from src.reports.results import read_csv_table

RUNS = "runs.csv"
COLUMNS = ["run", "identity", "seconds", "commit"]


def runs_table(scored: Sequence[RunScores]) -> pd.DataFrame:
    """runs.csv: one row a run, with the seconds of its training and the commit that scored it."""
    return pd.DataFrame([(run.column, run.identity, run.seconds, run.commit or commit())
                         for run in scored if run.identity], columns=COLUMNS)


def seeds_of(folder: Path) -> list[int]:
    """The seeds of the results in `folder`; none where there are no results."""
    return (read_json(folder / "meta.json") or {}).get("seeds", [])


def earlier_runs(planned: Sequence[RunConfig], here: Sequence[RunConfig],
                 folder: Path) -> list[tuple[RunConfig, RunScores]]:
    """The runs of `planned`, without those that are `here`, that the results `folder` has.

    Raises:
        UserError: no runs.csv there, or one that does not fit the scores beside it.
    """
    path, remedy = folder / RUNS, "leave --add out: the results are then of the runs here alone"
    if not path.is_file():
        raise UserError(f"--add {path}: no such file: expected that of an earlier evaluation; "
                        f"{remedy}")
    with reading(path, remedy):
        table = pd.read_csv(path, dtype={"run": str, "identity": str, "commit": str})
        rows = {row["identity"]: row for row in table[COLUMNS].to_dict("records")}
    scores = {run.column: run for run in committed_scores(folder)[0]}
    unknown = sorted({row["run"] for row in rows.values()} - scores.keys())
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is no column of scores.csv; {remedy}")
    curves = read_csv_table(folder / "curves.csv")
    missing = [run for run in planned if run not in here and run.identity in rows]
    return [(run, _as_scored(run, rows[run.identity], scores, curves)) for run in missing]


def _as_scored(run: RunConfig, row: Mapping, scores: Mapping[str, RunScores],
               curves: pd.DataFrame) -> RunScores:
    """What the run's folder would give: its margins to the digits of scores.csv."""
    then = scores[row["run"]]
    own = curves[(curves.role == then.role) & (curves.name == then.name)
                 & (curves.teacher == then.teacher) & (curves.method == then.method)
                 & (curves.seed == then.seed)]
    return RunScores(
        role=run.role, name=run.name, layers=len(run.kept), teacher=run.teacher,
        method=run.method.name if run.role == "student" else "", seed=run.seed,
        pair_ids=then.pair_ids, margins=then.margins,
        curve=list(zip(own.step.astype(int), own.loss, strict=True)), keep=run.keep,
        seconds=None if pd.isna(row["seconds"]) else row["seconds"], identity=run.identity,
        commit=row["commit"])


def earlier_note(scored: Sequence[RunScores]) -> list[str]:
    """What a report says of such runs; nothing where there are none."""
    earlier = [run.commit for run in scored if run.commit]
    if not earlier:
        return []
    total = sum(bool(run.identity) for run in scored)
    return [f"{len(earlier)} of {total} runs were scored by an earlier evaluation, at commit "
            f"{', '.join(sorted(set(earlier)))}."]
