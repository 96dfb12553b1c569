"""Runs that are to be done -> jobs, each with what it waits for. Pure: asks no queue.

A job trains runs of one stage. Jobs that wait for the same are one array.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from configs.run import STAGES, RunConfig
from src.runs.plan import Plan


class Place(NamedTuple):
    """What a run is trained on."""

    nodes: int = 1
    hardware: str = ""
    """A file of configs/hardware; empty where the node chooses."""


@dataclass(frozen=True)
class Job:
    """Runs that one job trains."""

    stage: str
    runs: tuple[RunConfig, ...]
    place: Place
    after: frozenset[int]
    """Places in the list of jobs, of those that have to end well before it begins."""
    after_queued: frozenset[str]
    """Numbers of jobs that the queue has already, which have to as well."""


def wanted(plan: Plan, stage: str, is_settled: Callable[[RunConfig], bool]) -> list[RunConfig]:
    """The runs of a stage that are not settled (done, or in a job that the queue has), and what
    they need and is not either: each after what it needs."""
    found: dict[str, RunConfig] = {}

    def add(run: RunConfig) -> None:
        if run.identity in found or is_settled(run):
            return
        for needed in plan.needed(run):
            add(needed)
        found[run.identity] = run

    for run in plan.stage(stage):
        add(run)
    return list(found.values())


def jobs_of(runs: Iterable[RunConfig], queued: Mapping[str, str],
            place: Callable[[RunConfig], Place], runs_a_job: int) -> list[Job]:
    """The jobs that train `runs`, each after those that it waits for.

    Args:
        runs: each after what it needs.
        queued: identity of a run in the queue -> its job's number.
        place: what a run is trained on; one that takes several nodes has a job of its own.
    """
    runs, depth = list(runs), {}
    for run in runs:
        depth[run.identity] = 1 + max((depth[each] for each in run.needs if each in depth),
                                      default=-1)

    def kind(run: RunConfig) -> tuple[int, int, Place]:
        return depth[run.identity], STAGES.index(run.stage), place(run)

    jobs: list[Job] = []
    job_of: dict[str, int] = {}
    for (_, stage, where), alike in groupby(sorted(runs, key=lambda run: (kind(run), run.needs)),
                                            key=kind):
        for chunk in _chunks(list(alike), runs_a_job if where.nodes == 1 else 1):
            needs = {each for run in chunk for each in run.needs}
            job_of |= {run.identity: len(jobs) for run in chunk}
            jobs.append(Job(STAGES[stage], tuple(chunk), where,
                            frozenset(job_of[each] for each in needs if each in job_of),
                            frozenset(queued[each] for each in needs if each in queued)))
    return jobs


def arrays(jobs: list[Job]) -> list[list[int]]:
    """Places in the list of the jobs of each array: neighbours that wait for the same."""
    def kind(number: int) -> tuple:
        job = jobs[number]
        return job.stage, job.place, job.after, job.after_queued

    return [list(numbers) for _, numbers in groupby(range(len(jobs)), key=kind)]


def _chunks(runs: list[RunConfig], size: int) -> list[list[RunConfig]]:
    return [runs[start:start + size] for start in range(0, len(runs), size)]
