"""What became of an experiment's runs: done, running, queued, failed and why, or not submitted."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from configs.run import RunConfig
from src.common.errors import one_line
from src.common.lock import is_held
from src.runs.folders import find_finished, folder_of
from src.runs.launch import records, slurm
from src.runs.launch.records import Submitted
from src.runs.launch.slurm import Queued
from src.runs.plan import Plan

TELLS = re.compile(r"(failed|error|slurmstepd\S*: error): |[\w.]*(Error|Exception)\b")
"""How a line of a log begins that says why a job ended."""
TELLS_NOT = ("submitit ", "stopped: run the same command", "subprocess.CalledProcessError",
             "torch.distributed.elastic.multiprocessing.errors.ChildFailedError")
"""How one begins that is of those who only see that it did."""
TAIL_BYTES = 1 << 16
"""Of a log, where its end is looked for."""


class Standing(NamedTuple):
    """Where a run stands."""

    run: RunConfig
    state: str
    """done, running, queued, failed or to do."""
    job: str = ""
    told: str = ""
    """What a run in the queue waits for or runs on; why one failed."""


def standings(plan: Plan, runs_dir: Path) -> list[Standing]:
    """Where every run of the plan stands.

    Raises:
        UserError: runs were submitted and Slurm does not answer.
    """
    submitted = records.latest(records.read_records(runs_dir))
    done, known = _finished(plan, runs_dir), {}
    if submitted.keys() - done:
        known = slurm.queue()
        done = _finished(plan, runs_dir)  # what ended meanwhile is in no queue

    def of(run: RunConfig) -> Standing:
        if run.identity in done:
            return Standing(run, "done")
        if run.identity in submitted:
            return _with_a_job(run, plan, done, submitted, known)
        return _without_a_job(run, runs_dir)

    return [of(run) for run in plan.runs]


def _finished(plan: Plan, runs_dir: Path) -> set[str]:
    return {run.identity for run in plan.runs if find_finished(runs_dir, run.stage, run.identity)}


def _without_a_job(run: RunConfig, runs_dir: Path) -> Standing:
    """Of the scripts without LAUNCH only the lock tells."""
    held = is_held(folder_of(run, runs_dir))
    return Standing(run, "running", told="without a job") if held else Standing(run, "to do")


def _with_a_job(run: RunConfig, plan: Plan, done: set[str], submitted: Mapping[str, Submitted],
                known: Mapping[str, Queued]) -> Standing:
    number, _, log = submitted[run.identity]
    job = slurm.find(known, submitted[run.identity])
    if job is not None and not job.is_over:
        if job.state == "PENDING":
            return Standing(run, "queued", number, _waits(job))
        return Standing(run, "running", number, f"{job.nodes}, {job.elapsed}")
    missing = [each.display_name for each in plan.needed(run) if each.identity not in done]
    reason = reason_of(log, run.display_name)
    if not reason and missing:
        reason = f"not started: {', '.join(missing)} did not get done"
    elif not reason:
        reason = _died(job, log)
    ended = "" if job is None or job.state in ("FAILED", "COMPLETED") else f"{job.state.lower()}; "
    return Standing(run, "failed", number, ended + reason)


def _waits(job: Queued) -> str:
    return {"Dependency": "waits for runs that it needs", "None": ""}.get(
        job.reason, f"waits ({job.reason})")


def _died(job: Queued | None, log: Path) -> str:
    if job is not None and not job.nodes:
        return "it had not started"
    where = f" on {job.nodes}" if job is not None else ""
    return (f"died before it started{where}, nothing in {log}: does every node have that folder? "
            "`scontrol show job` and the node's slurmd.log tell more")


def reason_of(log: Path, name: str) -> str:
    """Why a run failed, by its job's log: what is said of it by its name, or the last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    of_run = [line.partition(said)[2] for line in lines
              for said in (f"{name}: FAILED, ", f"{name}: asked to end, ") if said in line]
    if of_run:
        return one_line(of_run[-1])
    lines = [line for line in lines if not line.startswith(TELLS_NOT)]
    lines = [line for line in lines if TELLS.match(line)] or lines
    return one_line(lines[-1]) if lines else ""
