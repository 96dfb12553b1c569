"""An experiment's runs scored by several processes, each of which takes the next that is left.

Each score file is written as by one process. What a process cannot do it leaves: whoever reads the
scores after that makes those that are missing, and says why it cannot.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pandas as pd
import torch
import transformers
from tqdm import tqdm

from configs.run import RunConfig
from configs.schema import ExperimentConfig
from data.tokens.tokenised import TokenisedSplit
from src.common import distributed
from src.runs.plan import Plan
from src.scoring.pairs import scores_of, stored_scores
from src.scoring.trunk_cache import trunk_of

Runs = Sequence[tuple[RunConfig, Path]]
Others = Mapping[str, TokenisedSplit]
"""Pairs of other data than the experiment's, by the model whose tokenizer they are under."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """What a process has to know to score runs."""

    experiment: ExperimentConfig
    data_dir: Path
    runs_dir: Path
    split: str
    runs: Runs
    threads: int
    """Of each process."""
    others: Others | None


def scores_in(run: RunConfig, folder: Path, plan: Plan, split: str, runs_dir: Path,
              others: Others | None = None) -> pd.DataFrame:
    """`pair_id, reward_chosen, reward_rejected` of a run of the experiment on a split of its data,
    made at most once.

    Args:
        others: the pairs, where they are of other data, which `split` is then the name of.
    """
    pairs = others[run.model] if others else plan.split(run, split)
    return scores_of(folder, run, pairs, split, plan.experiment.runtime,
                     lambda: trunk_of(run, plan, split, runs_dir, pairs))


def score_side_by_side(found: Runs, plan: Plan, split: str, runs_dir: Path, workers: int,
                       others: Others | None = None) -> None:
    """Score those of the runs that have no scores on `split`, so many at a time; nothing at all
    where one process would do. `others`: as in `scores_in`."""
    if workers < 2:
        return
    missing = tuple((run, folder) for run, folder in found if stored_scores(
        folder, run, split, others[run.model].data_hash if others else "") is None)
    count = min(workers, len(missing))
    if count < 2:
        return
    threads = torch.get_num_threads()
    job = Job(plan.experiment, plan.prepared.folder.parent, runs_dir, split, missing,
              max(1, threads // count), others)
    context = multiprocessing.get_context("spawn")
    taken, ended = context.Value("i", 0), context.Value("i", 0)
    others = [context.Process(target=_help, args=(job, taken, ended), daemon=True)
              for _ in range(count - 1)]
    torch.set_num_threads(job.threads)
    try:
        for other in others:
            other.start()
        with tqdm(total=len(missing), desc=f"scores on {split}, {count} at a time",
                  unit="run") as bar:
            _take(job, plan, taken, ended, bar)
            while ended.value < len(missing) and any(other.is_alive() for other in others):
                time.sleep(POLL_SECONDS)
            bar.update(ended.value - bar.n)
    finally:
        torch.set_num_threads(threads)
        for other in others:  # that came too late for a run, or is not wanted any more
            other.kill()
            other.join()


def _take(job: Job, plan: Plan, taken: Synchronized, ended: Synchronized, bar: tqdm) -> None:
    """Score runs until none is left; `taken` and `ended` count those of all processes."""
    while (number := _next(taken)) < len(job.runs):
        try:
            scores_in(*job.runs[number], plan, job.split, job.runs_dir, job.others)
        finally:
            _next(ended)
        bar.update(ended.value - bar.n)


def _next(counter: Synchronized) -> int:
    with counter.get_lock():
        counter.value += 1
        return counter.value - 1


def _help(job: Job, taken: Synchronized, ended: Synchronized) -> None:
    """What another process does; it ends with the one that started it."""
    distributed.end_with_script(os.getppid())
    tqdm.set_lock(threading.RLock())  # its own has a semaphore, which would outlive our kill
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the first process tells what there is
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(job.threads)
    plan = Plan(job.experiment, job.data_dir)
    _take(job, plan, taken, ended, tqdm(disable=True))
