"""Why do larger students not always do better? results/degradation/<experiment>/.

Beside each student's PGR: the errors that it takes over from its teacher, what it forgets of its
language, and how far its weights moved. Errors need scores alone; the rest needs weights.
"""

import datetime
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from configs.run import RunConfig
from model.base.language_head import language_head
from src.common.errors import UserError
from src.common.files import atomic_path, write_text
from src.common.hashing import commit
from src.evaluation.change.before_after import (
    SPLIT,
    Runs,
    before_and_after,
    held_out_texts,
    runtime_of,
    trunk_weights,
)
from src.evaluation.experiment import eval_pairs, finished_runs, score_runs
from src.measures.change.degradation import slopes_table, students_table
from src.measures.change.layers import relative_change
from src.reports.degradation import blocks, cells_table, console
from src.reports.document import to_markdown
from src.reports.figures.degradation import degradation_by_depth
from src.reports.figures.style import STYLE, save
from src.runs.freed import is_freed
from src.runs.plan import Plan
from src.scoring.layer_states import Entering, nats_of_answers

TEXTS = 1000
"""Held-out answers that the nats are of, at most."""
LANGUAGE = ("nats_before", "nats", "nats_lost", "moved")
"""What needs weights: nats a token of the same layers untrained and of the student, the
difference, and the relative change of all weights under the head."""


def write_degradation(plan: Plan, runs_dir: Path, results_dir: Path) -> str:
    """Write students.csv, cells.csv, slopes.csv, a figure and report.md; return what to print.

    Raises:
        UserError: no student is finished beside its teacher and ceiling, or one has no scores and
            no weights.
    """
    found, config = finished_runs(plan, runs_dir)[0], plan.experiment.eval
    pairs, _ = eval_pairs(plan, SPLIT)
    students = students_table(score_runs(found, plan, SPLIT, runs_dir), pairs, config)
    if not len(students):
        raise UserError(f"{plan.experiment.name}: no student is finished beside its teacher and "
                        f"its ceiling: run ./weak_to_strong.sh {plan.experiment.name}")
    runs = [each for each in found if each[0].role == "student"]
    freed = sum(is_freed(folder) for _, folder in runs)
    students = students.merge(_language(runs, plan), how="left",
                              on=["student", "teacher", "method", "seed"])
    tables = {"students": students, "cells": cells_table(students, config.level),
              "slopes": slopes_table(students, config)}
    folder = results_dir / "degradation" / plan.experiment.name
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    notes = [f"The weights of {freed} of {len(runs)} students were freed once they had been "
             "scored: nats and distance are missing there. To have them, delete their folders and "
             "train again."] if freed else []
    with matplotlib.rc_context(STYLE):
        figure, title, caption = degradation_by_depth(tables["cells"], plan.experiment.name,
                                                      config.level)
        drawn = save(figure, folder / "figures", "degradation", title, caption)
    facts = {"experiment": plan.experiment.name, "commit": commit(),
             "data": f"{plan.data.name}, split {SPLIT}, n = {students.n.iloc[0]} pairs",
             "date": datetime.date.today().isoformat()}
    write_text(folder / "report.md", to_markdown(
        f"Lost skill and inherited errors: {plan.experiment.name}",
        blocks(tables["cells"], tables["slopes"], drawn, notes, facts)))
    return "\n".join([*console(tables["cells"], tables["slopes"]), *notes,
                      f"report: {folder / 'report.md'}"])


def _language(runs: Runs, plan: Plan) -> pd.DataFrame:
    """LANGUAGE of each student whose weights are there."""
    there = [each for each in runs if not is_freed(each[1])]
    heads = {run.model: language_head(plan.bases[run.model].path) for run, _ in there}

    def nats(model: PreTrainedModel, run: RunConfig, entering: Entering) -> float:
        """A token of held-out answers, given their prompts."""
        found, tokens = nats_of_answers(model, held_out_texts(plan, run, TEXTS), runtime_of(plan),
                                        heads[run.model], entering=entering).sum(axis=0)
        return float(found / tokens)

    rows = []
    for each in before_and_after(there, plan, "language", nats):
        run, moved = each.run, relative_change(*map(trunk_weights, (each.cut, each.tuned)))
        values = each.before, each.after, each.after - each.before, moved
        rows.append({"student": run.name, "teacher": run.teacher, "method": run.method.name,
                     "seed": run.seed, **dict(zip(LANGUAGE, values, strict=True))})
    return pd.DataFrame(rows, columns=["student", "teacher", "method", "seed", *LANGUAGE]).astype(
        {"seed": np.int64, **dict.fromkeys(LANGUAGE, float)})
