"""What was submitted, kept beside the runs: which jobs a launcher's array has, and their runs.

    runs/<experiment>/jobs/<token>.json

A record is written before its array is submitted, and again with the array's number: one without a
number is of a launcher that was killed in between, or of one that is still at it.
"""

import dataclasses
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from configs.run import RunConfig
from src.common.files import read_json, write_json

JOBS = "jobs"
"""Folder of an experiment's records, and of what its jobs print."""


@dataclass(frozen=True)
class Record:
    """One array, or a job that is none."""

    token: str
    """Names the array in the queue: nothing else is called so."""
    stage: str
    jobs: list[list[str]]
    """Identities of the runs of each job."""
    after: list[str]
    """Numbers of the jobs that it waits for."""
    submitted: float
    """Seconds since 1970."""
    number: str = ""
    """What Slurm calls it; empty until it has answered."""

    def job_number(self, place: int) -> str:
        """What Slurm calls one of its jobs."""
        return f"{self.number}_{place}" if len(self.jobs) > 1 else self.number


class Submitted(NamedTuple):
    """A job that a run was submitted in."""

    number: str
    token: str
    """A cluster that was set up anew counts from 1 again: only what is called so is this job."""
    log: Path


def new_record(stage: str, jobs: list[tuple[RunConfig, ...]], after: list[str]) -> Record:
    return Record(f"w2s-{secrets.token_hex(6)}", stage,
                  [[run.identity for run in runs] for runs in jobs], after, time.time())


def numbered(record: Record, number: str) -> Record:
    return dataclasses.replace(record, number=number)


def write_record(folder: Path, record: Record) -> None:
    """Write or replace it in the experiment's folder of jobs."""
    write_json(folder / f"{record.token}.json", dataclasses.asdict(record))


def forget(folder: Path, record: Record) -> None:
    """Remove a record of what never came into the queue."""
    (folder / f"{record.token}.json").unlink(missing_ok=True)


def read_records(runs_dir: Path) -> list[tuple[Path, Record]]:
    """(folder, record) of every experiment, the oldest first: a run may be another's too."""
    found = []
    for path in runs_dir.glob(f"*/{JOBS}/w2s-*.json"):
        values = read_json(path)
        if values is not None:
            found.append((path.parent, Record(**values)))
    return sorted(found, key=lambda each: each[1].submitted)


def log_of(folder: Path, job: str) -> Path:
    """What a job prints into, as submitit calls it."""
    return folder / f"{job}_0_log.out"


def latest(records: list[tuple[Path, Record]]) -> dict[str, Submitted]:
    """Identity of a run -> the job that it was last submitted in."""
    return {identity: Submitted(record.job_number(place), record.token,
                                log_of(folder, record.job_number(place)))
            for folder, record in records if record.number
            for place, identities in enumerate(record.jobs) for identity in identities}
