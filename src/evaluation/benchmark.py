"""A reward model on a published benchmark: its rows as they are, their rewards, the official score.

    results/[<experiment>/]benchmarks/<model>/<benchmark>/
        rewards.parquet    one line a response, see src/measures/benchmarks/rows.py
        scores.csv         one line a part of the benchmark, baselines beside
        meta.json          what was scored and what was left out
        figures/scores.png, and styles.png of RM-Bench
        against_<other>.csv, figures/against_<other>.png    beside another model, where asked for

Rows are not deduplicated. One with a response that is too long for the model stays in the table
without a reward, is in no score, and is counted.
"""

import dataclasses
import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pandas.api.typing import NAType
from tqdm import tqdm

from configs.schema import DataConfig
from configs.strict_yaml import require_name
from data.read.answers import Answers
from data.read.sources import named_data
from src.common.errors import UserError, reading
from src.common.files import holds_meta, write_json, write_text
from src.common.hashing import commit
from src.common.lock import clear_partials, lock
from src.common.owned import claim
from src.common.table_files import read_table, write_table
from src.evaluation.benchmark_source import ALL_ROWS, Rows, read_rows
from src.evaluation.one_model import training_prompts_mark
from src.measures.benchmarks.against import differences
from src.measures.benchmarks.scores import check_scorer
from src.reports.benchmark import Report, difference_lines, read_report
from src.reports.figures.benchmark import draw_benchmark, draw_differences
from src.runs.folders import read_run
from src.scoring.texts import NO_REWARD, TextScorer

CHUNK_ROWS = 500
KIND = "scores of a benchmark"


@dataclass(frozen=True)
class Scored:
    """A model's rewards on a benchmark, and the folder that they lie in."""

    name: str
    output: Path
    table: pd.DataFrame
    inputs: dict[str, str]
    why_missing: str
    """Why a response has no reward."""


def benchmark_config(data: str | None) -> DataConfig | None:
    """The config that `data` names, where it has a scorer of its own; else None."""
    config = named_data(data) if data else None
    if config is None or config.scorer == "accuracy":
        return None
    check_scorer(config.scorer, f"data/{config.name}")
    return config


def evaluate_benchmark(folder: Path, config: DataConfig, results_dir: Path,
                       output_dir: Path | None, data_dir: Path,
                       against: Path | None = None) -> str:
    """Score the reward model in `folder`, write tables and figure; return the lines to print.

    Rewards that were made from the same model and rows before are only read.

    Args:
        data_dir: prepared data, to tell whether a run of ours was trained on the prompts.
        against: another reward model, to compare it with subset by subset.
    Raises:
        UserError: no reward model; a run that is not finished; no benchmark where the config says.
    """
    if against is not None and against.resolve().name == folder.resolve().name:
        raise UserError(f"--against {against}: is called as {folder} is, and results are kept by "
                        "name: rename the folder of one of the two")
    rows = read_rows(config)
    scored = score_rows(folder, config, rows, results_dir, output_dir)
    notes = [f"left out: {rows.left_out}"] if rows.unusable else []
    if (run := read_run(folder)) is not None:
        ids = scored.table["prompt_id"].to_numpy(str)
        notes += filter(None, [training_prompts_mark(run, ids, data_dir)])
    notes += [f"{count:,} rows: {note}" for note, count in rows.notes.most_common()]
    expected, found = config.expected.get("rows"), len(rows.answers) + rows.unusable.total()
    if expected not in (None, found):
        notes.append(f"expected {expected:,} rows (published), found {found:,}")
    report = read_report(config, scored.table, scored.name, notes, scored.why_missing)
    lines = write_benchmark(scored.output, report, {**scored.inputs, "rows": found})
    if against is None:
        return lines
    other = score_rows(against, config, rows, results_dir, None)
    return lines + write_differences(scored.output, config, scored, other)


def score_rows(folder: Path, config: DataConfig, rows: Rows, results_dir: Path,
               output_dir: Path | None) -> Scored:
    """The rewards of the model in `folder`, made now or read."""
    scorer = TextScorer(folder)
    name = folder.resolve().name
    own = [scorer.run.experiment] if scorer.run else []
    output = output_dir or results_dir.joinpath(*own, "benchmarks", name, config.name)
    claim(output, KIND, "--output_dir", holds_meta("benchmark"))
    inputs = {"data": rows.data_hash, **scorer.identity}
    path = output / "rewards.parquet"
    with lock(output):
        table = read_table(path, inputs)
        if table is None:
            table = reward_table(scorer, rows, f"{name} on {config.name}")
            write_table(path, table, inputs)
    return Scored(name, output, table, inputs, NO_REWARD.format(most=scorer.most_tokens))


def evaluate_scores(path: Path, data: str | None, name: str, results_dir: Path,
                    output_dir: Path | None, against: Path | None = None) -> str:
    """The same for rewards made elsewhere: a parquet or csv file with the columns of
    src/measures/benchmarks/rows.py.

    Args:
        data: the benchmark's name.
        name: what the model is called.
        against: such a file of another model, to compare it with subset by subset.
    Raises:
        UserError: no benchmark; no such file, or not such columns.
    """
    config = benchmark_config(data)
    if config is None:
        raise UserError(f"--scores {path}: goes with --data and the name of a benchmark, such as "
                        "reward_bench")
    require_name(name, "--model: ")
    scored = Scored(name, output_dir or results_dir / "benchmarks" / name / config.name,
                    _read_scores(path), {"scores": str(path)}, "not given")
    other = against and dataclasses.replace(scored, name=against.stem, table=_read_scores(against))
    report = read_report(config, scored.table, name, [], scored.why_missing)
    claim(scored.output, KIND, "--output_dir", holds_meta("benchmark"))
    lines = write_benchmark(scored.output, report, scored.inputs)
    return lines + (write_differences(scored.output, config, scored, other) if other else "")


def _read_scores(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"--scores {path}: no such file")
    with reading(f"--scores {path}", "expected parquet or csv with row, id, subset, response, "
                 "value, reward"):
        table = (pd.read_csv(path, converters={"reward": _reward}) if path.suffix == ".csv" else
                 pq.read_table(path).to_pandas(types_mapper=pd.ArrowDtype))
        _require_numbers(table)
        table["reward"] = table["reward"].to_numpy(float, na_value=np.nan)
        table = table.astype({"reward": float, "value": float, "row": int, "response": int})
        return table.assign(subset=table["subset"].fillna(ALL_ROWS).astype(str),
                            id=table["id"].fillna("").astype(str))


def _reward(cell: str) -> float | NAType:
    """The number in a cell of csv; NA where it is empty, which `nan` is not."""
    return float(cell) if cell.strip() else pd.NA


def _require_numbers(table: pd.DataFrame) -> None:
    """ValueError for rewards that are there and no numbers: they are not left out as missing."""
    bad = [value for value in table["reward"]
           if value is not pd.NA and not math.isfinite(value)]
    if bad:
        raise ValueError(f"{len(bad)} rewards such as {bad[0]} are no numbers; a cell is empty "
                         "where there is no reward")
    if pd.isna(table["value"]).any():
        raise ValueError("a cell of value is empty")


def reward_table(scorer: TextScorer, rows: Rows, title: str) -> pd.DataFrame:
    """One line a response, with its reward and its length in characters."""
    rewards = []
    for start in tqdm(range(0, len(rows.answers), CHUNK_ROWS), desc=title,
                      unit_scale=CHUNK_ROWS, unit=" rows", disable=None):
        chunk: list[Answers] = rows.answers[start:start + CHUNK_ROWS]
        rewards += scorer.rewards([(row.prompt, row.texts) for row in chunk], title)
    return rows.table(rewards)


def write_benchmark(output: Path, report: Report, facts: dict[str, object]) -> str:
    """Tables and figures into `output`; the lines to print."""
    with lock(output):
        clear_partials(output)
        write_text(output / "scores.csv", report.table().to_csv(index=False))
        drawn = draw_benchmark(report, output / "figures")
        write_json(output / "meta.json", {
            "model": report.model, "benchmark": report.benchmark, "scorer": report.scorer,
            "notes": report.notes, **facts, "commit": commit(),
            "date": datetime.date.today().isoformat()})
    files = [output / "scores.csv", *(figure.path for figure in drawn)]
    return "\n".join([*report.lines(), "", "written: " + "\n         ".join(map(str, files))])


def write_differences(output: Path, config: DataConfig, scored: Scored, other: Scored) -> str:
    """What the model has over another: a table, a figure, and the lines to print."""
    found = differences(config.scorer, scored.table, other.table)
    table = pd.DataFrame(map(dataclasses.asdict, found))
    table.insert(0, "other_model", other.name)
    table.insert(0, "model", scored.name)
    path = output / f"against_{other.name}.csv"
    with lock(output):
        write_text(path, table.to_csv(index=False))
        figure = draw_differences(found, scored.name, other.name, config.name, output / "figures")
    return "\n".join(["", "", *difference_lines(found, scored.name, other.name), "",
                      f"written: {path}", f"         {figure.path}"])
