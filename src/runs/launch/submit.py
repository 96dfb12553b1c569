"""The launcher: what of a stage is to be done goes to the queue, once, each run in one job.

Two launchers at once take turns. One that is killed leaves records, from which the next one knows
what the queue has already.
"""

import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from configs.launch_schema import LaunchConfig
from configs.run import RunConfig
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.lock import lock
from src.runs.folders import find_finished
from src.runs.launch import records, slurm
from src.runs.launch.graph import Job, Place, arrays, jobs_of, wanted
from src.runs.launch.job import StageJob
from src.runs.plan import Plan

REQUEUES = 1_000
"""How often a job may reach its time limit and go on: each time it has trained for hours."""


class Order(NamedTuple):
    """What a launch asks for."""

    plan: Plan
    stage: str
    runs_dir: Path
    config: LaunchConfig
    place: Callable[[RunConfig], Place]
    words: Mapping[str, tuple[str, ...]]
    """Stage -> its script with all arguments, but which runs."""


def in_queue(runs_dir: Path) -> dict[str, str]:
    """Identity -> job number of each run that a job has which is not over.

    Raises:
        UserError: Slurm is asked, because something was submitted once, and does not answer.
    """
    found = records.latest(records.read_records(runs_dir))
    known = slurm.queue() if found else {}
    jobs = {identity: slurm.find(known, job) for identity, job in found.items()}
    return {identity: job.number for identity, job in jobs.items() if job and not job.is_over}


def jobs_to_submit(order: Order, queued: Mapping[str, str]) -> list[Job]:
    """The jobs of a stage, and of what it needs."""
    def is_settled(run: RunConfig) -> bool:
        return (run.identity in queued
                or find_finished(order.runs_dir, run.stage, run.identity) is not None)

    return jobs_of(wanted(order.plan, order.stage, is_settled), queued, order.place,
                   order.config.runs_a_job)


def submit(order: Order, check: Callable[[list[Job]], None],
           tell: Callable[[str], None]) -> tuple[list[Job], list[str]]:
    """Submit what is neither done nor in the queue.

    Args:
        check: raises before the first job is submitted.
    Returns:
        The jobs that were submitted, and their numbers.
    Raises:
        UserError: there is no Slurm, or it refuses a job: those before it stay submitted.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        slurm.ask("sbatch", "--version")  # says so
    order.runs_dir.mkdir(parents=True, exist_ok=True)
    with lock(order.runs_dir / records.JOBS, tell):
        _clear_lost(order.runs_dir)
        jobs = jobs_to_submit(order, in_queue(order.runs_dir))
        check(jobs)
        numbers: list[str] = []
        for places in arrays(jobs):
            numbers += _submit_array(order, [jobs[place] for place in places], numbers)
    return jobs, numbers


def _clear_lost(runs_dir: Path) -> None:
    """Take back what launchers submitted that were killed before they had its number."""
    lost = [(folder, record) for folder, record in records.read_records(runs_dir)
            if not record.number]
    known = slurm.queue().values() if lost else ()
    for folder, record in lost:
        for number in {each.array for each in known
                       if each.name == record.token and not each.is_over}:
            slurm.ask("scancel", number)
        records.forget(folder, record)


def _submit_array(order: Order, jobs: list[Job], numbers: list[str]) -> list[str]:
    """Submit jobs that wait for the same; their numbers."""
    after = sorted({numbers[place] for place in jobs[0].after} | jobs[0].after_queued)
    folder = order.runs_dir / order.plan.experiment.name / records.JOBS
    record = records.new_record(jobs[0].stage, [job.runs for job in jobs], after)
    records.write_record(folder, record)
    executor = _executor(order.config, folder, jobs[0].place, record.token, after)
    try:
        with redirect_stderr(io.StringIO()):  # where submitit prints a refusal that it raises too
            sent = executor.submit_array([_on_the_node(order, job) for job in jobs])
    except FailedJobError as error:
        records.forget(folder, record)
        raise UserError(slurm.refusal("sbatch", str(error))) from error
    except FailedSubmissionError as error:
        raise UserError(f"sbatch: {error}: give the same command again") from error
    record = records.numbered(record, sent[0].job_id.split("_")[0])
    records.write_record(folder, record)
    return [record.job_number(place) for place in range(len(jobs))]


def _on_the_node(order: Order, job: Job) -> StageJob:
    config, settings = order.config, {"TQDM_MININTERVAL": "60"}  # a log is no terminal
    hardware = job.place.hardware or ("" if config.gpus else os.environ.get("HARDWARE") or "cpu")
    if hardware:
        settings["HARDWARE"] = hardware
    if not config.gpus:
        settings["WORKERS"] = str(min(config.cpus, len(job.runs), 99))
    only = [run.identity[:8] for run in job.runs]
    return StageJob((*order.words[job.stage], "--only", *only), job.place.nodes, settings)


def _executor(config: LaunchConfig, folder: Path, place: Place, name: str,
              after: list[str]) -> submitit.AutoExecutor:
    """submitit's, told what the launch config says. The shell becomes Python (exec), so that
    Slurm's warning reaches what can answer it."""
    executor = submitit.AutoExecutor(
        folder=folder, cluster="slurm", slurm_max_num_timeout=REQUEUES,
        slurm_python=f"exec {shlex.quote(sys.executable)}")
    options = {"signal": "B:USR2@90", "requeue": True, "kill-on-invalid-dep": "yes",
               **config.sbatch}
    optional = {"slurm_partition": config.partition, "slurm_account": config.account,
                "mem_gb": config.memory_gb, "gpus_per_node": config.gpus or None,
                "slurm_dependency": f"afterok:{':'.join(after)}" if after else None}
    executor.update_parameters(
        name=name, timeout_min=max(1, round(config.hours * 60)), nodes=place.nodes,
        cpus_per_task=config.cpus, tasks_per_node=1, stderr_to_stdout=True,
        slurm_array_parallelism=config.array_width, slurm_use_srun=False,
        slurm_setup=setup_lines(config), slurm_additional_parameters=options,
        **{key: value for key, value in optional.items() if value is not None})
    return executor


def setup_lines(config: LaunchConfig) -> list[str]:
    """What a node's shell does first; where it cannot, the log's last line says why."""
    root = shlex.quote(str(REPO_ROOT))
    lines = [f'cd {root} || {{ echo "error: node $(hostname) has no folder "{root}": put the '
             'repository on a disk that every node has" >&2; exit 2; }']
    lines += [f"module load {shlex.quote(module)} || "
              f'{{ echo "error: node $(hostname) cannot load module "{shlex.quote(module)}": '
              '`module avail` lists what there is" >&2; exit 2; }' for module in config.modules]
    return lines
