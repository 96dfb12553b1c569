"""Bring one run to DONE: what it needs is looked up, its folder locked; what was done stays."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from configs.run import RunConfig
from src.common import distributed
from src.common.distributed import say
from src.common.lock import lock
from src.methods.label_treatments import TREATMENTS
from src.runs import folders
from src.runs.plan import Plan
from src.scoring.trunk_cache import trunk_of
from src.scoring.weak_labels import weak_labels_of
from src.training.train_run import train_run

SCRIPTS = {"teachers": "train_teacher_model.sh", "ceilings": "train_student_model.sh",
           "students": "weak_to_strong.sh"}


def labels_for(run: RunConfig, plan: Plan,
               runs_dir: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """P(chosen > rejected) of the run's split, and of val where the run stops early.

    Human labels are all 1. A student's are its teachers', each under the teacher's own tokenizer,
    as its method treats them.
    """
    if run.kind != "student":
        return np.ones(len(plan.split(run, run.split))), None
    remedy = f"run ./{SCRIPTS['teachers']} {run.experiment} first"
    teachers = [(teacher, folders.require_finished(runs_dir, "teachers", teacher.identity,
                                                   teacher.display_name, remedy))
                for teacher in plan.needed(run)]

    def weak_labels(split: str) -> np.ndarray:
        labels = [weak_labels_of(folder, teacher, plan.split(teacher, split), split,
                                 plan.experiment.runtime,
                                 lambda teacher=teacher: trunk_of(teacher, plan, split, runs_dir))
                  for teacher, folder in teachers]
        return TREATMENTS[run.method.treatment].treat(np.stack(labels))

    return weak_labels(run.split), weak_labels("val") if run.train.early_stopping_evals else None


def finish(run: RunConfig, plan: Plan, runs_dir: Path) -> bool:
    """Bring `run` to DONE; whether there was anything to do."""
    folder = runs_dir / run.experiment / run.stage / run.folder_name
    with lock(folder, say) if distributed.is_main() else nullcontext():
        if distributed.on_main(lambda: folders.find_finished(runs_dir, run.stage, run.identity)):
            return False
        train_run(run, plan, *labels_for(run, plan, runs_dir), folder)
    return True
