"""A results folder with the scores of an experiment that was never run."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.measures import tables
from src.measures.run_scores import EvalPairs, RunScores

N = 400
IDS = np.array([f"{i:016x}" for i in range(N)])


def write_scores(folder: Path, methods: Sequence[str] = ("soft", "up"),
                 ) -> tuple[list[RunScores], EvalPairs]:
    """An evaluated experiment: one teacher, three students, three seeds."""
    rng = np.random.default_rng(len(folder.name))
    prompts = np.array([f"p{i // 2}" for i in range(N)])
    pairs = EvalPairs(folder.name, "people", "test", IDS, prompts, np.ones(N), np.ones(N))

    def scored(role, name, level, teacher="", method="", seed=0):
        return RunScores(role, name, 2, teacher, method, seed, IDS,
                         np.round(level + rng.standard_normal(N), 3))

    runs = [RunScores("baseline", "length_only", None, "", "", None, IDS, np.ones(N))]
    for seed in (0, 1, 2):
        runs.append(scored("teacher", "demo-L2", 0.3, seed=seed))
        for name in ("demo-L4", "demo-L6", "demo-L8"):
            runs.append(scored("ceiling", name, 1.2, seed=seed))
            runs += [scored("student", name, 0.5 + 0.6 * (method == "up"), "demo-L2", method, seed)
                     for method in methods]
    folder.mkdir(parents=True)
    tables.scores_table(runs, pairs).to_csv(folder / "scores.csv", index=False)
    (folder / "meta.json").write_text(json.dumps({
        "experiment": folder.name, "data": "people", "split": "test", "level": 0.95,
        "pgr_floor": 0.03}))
    return runs, pairs
