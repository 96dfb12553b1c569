"""Questions of lm-eval asked of a language model in memory: tasks of configs/tax over local files,
and lm-eval's own by name where a hub is reached."""

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.strict_yaml import read_yaml
from data.questions import FOLDER, TASKS, task_names
from src.common.errors import UserError, reading
from src.common.precision import products

if TYPE_CHECKING:
    from lm_eval.api.task import Task

OWN = "arc_easy, arc_challenge, race, piqa, drop, squadv2, wmt14-fr-en, hellaswag"
"""lm-eval's tasks that published taxes are of."""
BATCH_ROWS = 8


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    estimate: float
    each: np.ndarray | None
    """(n,) of each question; None of a metric of all of them together, as BLEU is."""
    questions: int
    chance: float
    """Mean of 1 / choices; NaN where nothing is chosen."""


def load_tasks(names: Sequence[str], data_dir: Path) -> list["Task"]:
    """lm-eval's tasks of these names.

    Raises:
        UserError: a task that there is not; a local one whose questions are not prepared; one of
            lm-eval's own whose data can neither be fetched nor are there.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    local = [name for name in names if name in task_names()]
    specs = [_local(name, data_dir) for name in local]
    tasks = _manager(defaults=False).load(specs)["tasks"] if specs else {}
    others = [name for name in names if name not in local]
    if others:
        manager = _manager(defaults=True)
        for name in others:
            if name not in manager.all_subtasks:
                raise UserError(f"--tasks {name}: no such task: expected one of "
                                f"{', '.join(task_names())}, {OWN}, or another task of lm-eval "
                                "(`.venv/bin/lm-eval ls tasks` lists them)")
            with reading(f"--tasks {name}", "lm-eval fetches its data from a hub: connect, unset "
                         f"HF_HUB_OFFLINE, or ask {', '.join(task_names())}, which read local "
                         "files"):
                tasks |= manager.load([name])["tasks"]
    return [tasks[name] for name in names]


def _manager(defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=defaults)


def _local(name: str, data_dir: Path) -> dict[str, Any]:
    path = (data_dir / FOLDER / f"{name}.jsonl").resolve()
    if not path.is_file():
        raise UserError(f"{path}: no questions: run `python -m data.multiple_choice --tasks {name}`"
                        " first (RAW_DIR names the folder with the raw data)")
    return {**read_yaml(TASKS / f"{name}.yaml"),
            "dataset_kwargs": {"data_files": {"test": str(path)}}}


def task_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
                tasks: Sequence["Task"], limit: int | None, precision: str) -> list[TaskScore]:
    """What a language model scores on each task, without examples in the prompt.

    Args:
        limit: the first questions of each task; None for all.
        precision: fp32 or bf16, of the forward.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_ROWS,
              mixed_precision_dtype="bfloat16" if products(precision) == "bf16" else None,
              softmax_dtype="float32")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        found = simple_evaluate(
            model=lm, tasks=list(tasks), num_fewshot=0, limit=limit, bootstrap_iters=0,
            task_manager=_manager(defaults=False), random_seed=None, numpy_random_seed=None,
            torch_random_seed=None, fewshot_random_seed=None)
    return [score for task in tasks for score in _scores_of(task, found)]


def _scores_of(task: "Task", found: dict[str, Any]) -> list[TaskScore]:
    name = task.config.task
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    choices = task.config.output_type == "multiple_choice"
    chance = float(np.mean([1 / len(sample["resps"]) for sample in samples])) if choices else np.nan
    scores = []
    for key, value in found["results"][name].items():
        metric = key.partition(",")[0]
        if isinstance(value, int | float) and metric not in ("alias", "sample_len") and (
                not metric.endswith("_stderr")):
            each = [sample.get(metric) for sample in samples]
            known = all(isinstance(one, int | float) for one in each)
            scores.append(TaskScore(name, metric, float(value),
                                    np.array(each, np.float64) if known else None, len(samples),
                                    chance))
    return scores
