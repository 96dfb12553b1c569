"""Questions of lm-eval asked of some averages of a run and its base, in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from configs.averaging import Recipe
from model.base.language_head import head_weight
from model.base.language_model import as_language_model
from src.common.errors import UserError
from src.common.hashing import content_hash
from src.evaluation.tax.averaged import Arrays, Averaged
from src.evaluation.tax.harness import task_scores
from src.evaluation.tax.recipes import Average
from src.measures.tax.front import BASE, TUNED, UNIFORM
from src.measures.tax.tasks import Answered

if TYPE_CHECKING:
    from lm_eval.api.task import Task

ASKED = ((BASE, 1.0), (UNIFORM, 0.4), (TUNED, 0.0))
"""Which averages are asked: of a large model, minutes each."""
CHANCE = "chance"


def answered(runs: Sequence[Averaged], points: Sequence[Average], tasks: Sequence["Task"],
             limit: int | None) -> list[Answered]:
    """Every metric of the tasks, by those of `points` that are asked, over the runs' seeds.

    Raises:
        UserError: a task that has no score a question.
    """
    wanted = [next(one for one in points if (one.family, one.mean) == key) for key in ASKED]
    found = []
    for task in tasks:
        base = _scores(runs[0], wanted[0].recipe, task, limit)  # the same under every seed
        for one in wanted:
            seeds = [base if one is wanted[0] else _scores(run, one.recipe, task, limit)
                     for run in runs]
            found += [Answered(one.family, one.mean, task.config.task, metric,
                               float(base[CHANCE]), np.stack([each[metric] for each in seeds]),
                               base[metric]) for metric in base if metric != CHANCE]
    return found


def _scores(averaged: Averaged, recipe: Recipe, task: "Task", limit: int | None) -> Arrays:
    """(n,) of each metric, and chance."""
    config = task.config
    given = [config.task, task.VERSION, limit, content_hash(repr(list(task.eval_docs))),
             *map(str, (config.doc_to_text, config.doc_to_choice, config.doc_to_target))]
    return averaged.known("questions", recipe, given,
                          lambda: _asked(averaged, recipe, task, limit))


def _asked(averaged: Averaged, recipe: Recipe, task: "Task", limit: int | None) -> Arrays:
    base, model = averaged.plan.bases[averaged.run.model], averaged.model(recipe)
    scores = task_scores(as_language_model(model, head_weight(base.path)), base.tokenizer, [task],
                         limit, model.precision)
    if any(score.each is None for score in scores):
        raise UserError(f"--tasks {task.config.task}: has no score for each question: ask it of "
                        "one model, with python -m src.tax")
    return {CHANCE: np.array(scores[0].chance), **{score.metric: score.each for score in scores}}
