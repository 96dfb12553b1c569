"""scores.csv of an evaluated experiment -> runs and pairs, as they were when it was written.

Every margin is in it, so an analysis needs neither the models nor the data.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.common.errors import UserError, reading
from src.common.files import read_json
from src.measures.run_scores import EvalPairs, RunScores

FIELDS = {"teacher": 3, "ceiling": 3, "student": 5, "baseline": 2}
"""How many parts `RunScores.column` has by role."""


def committed_scores(folder: Path) -> tuple[list[RunScores], EvalPairs]:
    """The runs and pairs of `folder`, results/<experiment>.

    Layers, learning curves and lengths of answers are not in scores.csv: they are None, empty, NaN.

    Raises:
        UserError: no scores.csv or meta.json there, or a column that names no run.
    """
    remedy = f"write it with python eval.py --model {folder.name}"
    path, meta = folder / "scores.csv", read_json(folder / "meta.json")
    if not path.is_file() or meta is None:
        raise UserError(f"{path}: no such file, or no meta.json beside it: {remedy}")
    with reading(path, remedy):
        table = pd.read_csv(path, dtype={"pair_id": str, "prompt_id": str}, keep_default_na=False)
        ids = table.pair_id.to_numpy(str)
        runs = [_run(column, ids, table[column].to_numpy(np.float64))
                for column in table.columns[2:]]
        lengths = np.full(len(ids), np.nan)
        pairs = EvalPairs(meta["experiment"], meta["data"], meta["split"], ids,
                          table.prompt_id.to_numpy(str), lengths, lengths)
    return runs, pairs


def _run(column: str, ids: np.ndarray, margins: np.ndarray) -> RunScores:
    role, *rest = column.split("/")
    if FIELDS.get(role) != len(rest) + 1:
        raise UserError(f"column {column}: expected role/name/seed, baseline/name or "
                        "student/name/teacher/method/seed")
    if role == "baseline":
        return RunScores(role, rest[0], None, "", "", None, ids, margins)
    name, *taught, seed = rest
    return RunScores(role, name, None, *(taught or ("", "")), int(seed), ids, margins)
