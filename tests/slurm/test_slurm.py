"""Runs as jobs of a real Slurm: dependencies, arrays, failures, early ends, two nodes."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from configs.schema import ExperimentConfig, load_config
from src.common.files import REPO_ROOT
from src.runs.launch.records import read_records
from src.runs.plan import Plan
from src.training.fit import USABLE, run_gb
from tests.slurm.cluster import Cluster, missing
from tests.tiny_experiment import (
    ENVIRONMENT,
    TinyExperiment,
    command,
    in_process,
    launch,
    make_experiment,
)

pytestmark = [pytest.mark.slurm, pytest.mark.launch,
              pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def tiny_on(tmp_path: Path, **changes) -> TinyExperiment:
    tiny = make_experiment(tmp_path, rows=130, train_pairs=32, **changes)
    assert in_process("data.preprocess", *tiny.preprocess) == 0
    return tiny


def settings(tiny: TinyExperiment, cluster: Cluster, **keys) -> dict[str, str]:
    """Of an environment in which the scripts submit jobs, by a launch config with these keys."""
    path = tiny.root / "launch.yaml"
    path.write_text(yaml.safe_dump({"cpus": 2, "hours": 0.5, **keys}))
    return {**cluster.environment, "LAUNCH": str(path)}


def status(tiny: TinyExperiment, cluster: Cluster, *words: str) -> subprocess.CompletedProcess:
    return command("python", "-m", "src.runs", "status", str(tiny.config), *tiny.folders, *words,
                   timeout=600, **cluster.environment)


def jobs(tiny: TinyExperiment) -> list[tuple[str, list[str]]]:
    """(number, identities of its runs) of every job that was submitted."""
    return [(record.job_number(place), runs) for _, record in read_records(tiny.runs_dir)
            for place, runs in enumerate(record.jobs)]


def log(tiny: TinyExperiment, number: str) -> str:
    path = tiny.runs_dir / "tiny" / "jobs" / f"{number}_0_log.out"
    return path.read_text() if path.is_file() else ""


def test_what_needs_a_run_that_fails_is_not_begun_and_the_same_command_mends_it(tmp_path, cluster):
    tiny = tiny_on(tmp_path, layers=([1], [2]), seeds=[0, 1])
    plan = Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)
    good, bad = plan.stage("teachers")
    obstacle = tiny.runs_dir / "tiny" / "teachers" / bad.folder_name
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()  # where its folder is to be
    environment = settings(tiny, cluster)
    submitted = launch("weak_to_strong.sh", tiny, "cpu", **environment)
    assert submitted.returncode == 0 and "4 runs in 4 job(s) submitted" in submitted.stdout
    waited = status(tiny, cluster, "--wait")
    lines = {line.split()[1]: line for line in waited.stdout.splitlines()
             if line.startswith(("teachers", "students"))}
    assert waited.returncode == 1 and set(lines) == {
        bad.display_name, *(run.display_name for run in plan.stage("students")
                            if run.needs == (bad.identity,))}
    assert re.search(r"failed +\S+ +.*is a file", lines.pop(bad.display_name))
    assert f"not started: {bad.display_name} did not get done" in next(iter(lines.values()))
    obstacle.unlink()
    again = launch("weak_to_strong.sh", tiny, "cpu", **environment)
    assert "2 runs in 2 job(s) submitted" in again.stdout, again
    assert status(tiny, cluster, "--wait").returncode == 0
    assert len(tiny.finished("teachers")) == len(tiny.finished("students")) == 2
    assert "nothing to submit" in launch("weak_to_strong.sh", tiny, "cpu", **environment).stdout


def test_a_job_that_is_cancelled_requeued_or_out_of_time_saves_and_goes_on(tmp_path, cluster):
    tiny = tiny_on(tmp_path, layers=([1], [2]), train={"epochs": 900},
                   runtime={"save_steps": 100_000, "logging_steps": 50})
    whole = tiny.copy("whole")
    assert in_process("src.train", *whole.train("teachers")) == 0
    environment = settings(tiny, cluster)
    launch("train_teacher_model.sh", tiny, "cpu", **environment)
    saved: list[int] = []

    def end(*words: str) -> None:
        """Do so once it trains, and wait until it has saved."""
        number = jobs(tiny)[-1][0]
        before = log(tiny, number).count("'loss'")
        cluster.wait_for(lambda: log(tiny, number).count("'loss'") > before)
        cluster.ask(*words, number)
        found = r"asked to end, saved at step (\d+) of"
        cluster.wait_for(lambda: len(re.findall(found, log(tiny, number))) > 0)
        cluster.wait_for(lambda: cluster.ask(
            "squeue", "--noheader", "--format=%T", "--job", number).strip() in ("", "PENDING"))
        saved.append(int(re.findall(found, log(tiny, number))[-1]))

    end("scancel")
    told = status(tiny, cluster)
    assert re.search(rf"failed +\S+ +cancelled; saved at step {saved[0]} of 1800", told.stdout)
    launch("train_teacher_model.sh", tiny, "cpu", **environment)
    end("scontrol", "requeue")
    end("scancel", "--batch", "--signal=USR2")  # what Slurm sends 90 seconds before the limit
    assert status(tiny, cluster, "--wait").returncode == 0
    assert 0 < saved[0] < saved[1] < saved[2] < 1800 and len(jobs(tiny)) == 2
    (found,), (expected,) = tiny.finished("teachers"), whole.finished("teachers")
    for name in ("model.safetensors", "log.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_two_launchers_at_once_submit_each_run_once(tmp_path, cluster):
    tiny = tiny_on(tmp_path, layers=([1], [2, 3]), seeds=[0, 1])
    environment = settings(tiny, cluster, runs_a_job=2)
    both = [subprocess.Popen(["./train_student_model.sh", str(tiny.config), *tiny.folders],
                             cwd=REPO_ROOT, env={**ENVIRONMENT, **environment}, text=True,
                             stdout=subprocess.PIPE) for _ in range(2)]
    told = sorted(each.communicate(timeout=300)[0].splitlines()[-1] for each in both)
    assert "4 runs in 2 job(s) submitted" in told[0] and "nothing to submit" in told[1]
    assert len(jobs(tiny)) == 2
    assert len({run for _, runs in jobs(tiny) for run in runs}) == 4
    assert status(tiny, cluster, "--wait").returncode == 0
    assert len(tiny.finished("ceilings")) == 4


def test_a_run_on_two_nodes_of_two_processes_gives_the_weights_of_one(tmp_path, cluster):
    tiny = tiny_on(tmp_path, layers=([1], [2]))
    alone = tiny.copy("alone")
    assert in_process("src.train", *alone.train("teachers")) == 0
    plan = Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)
    run, = plan.stage("teachers")
    between = sum(run_gb(plan, run, "zero2", processes) for processes in (2, 4)) / 2 / USABLE
    submitted = launch("train_teacher_model.sh", tiny, "zero2",
                       **settings(tiny, cluster, gpu_gb=between, most_nodes=2))
    assert "1 runs in 1 job(s) submitted" in submitted.stdout, submitted
    waited = status(tiny, cluster, "--wait")
    assert waited.returncode == 0, waited.stdout + log(tiny, jobs(tiny)[0][0])
    (found,), (expected,) = tiny.finished("teachers"), alone.finished("teachers")
    hardware = json.loads((found / "manifest.json").read_text())["hardware"]
    assert hardware["processes"] == 4 and len(set(hardware["first_batch_of_rank"])) == 4
    weights, wanted = (load_file(each / "model.safetensors") for each in (found, expected))
    assert max(np.abs(weights[name] - wanted[name]).max() for name in wanted) < 1e-4


def test_a_partition_that_there_is_not_is_told_in_a_line_and_nothing_is_submitted(tmp_path,
                                                                                 cluster):
    tiny = tiny_on(tmp_path, layers=([1], [2]))
    told = launch("train_teacher_model.sh", tiny, "cpu",
                  **settings(tiny, cluster, partition="nowhere"))
    line, = told.stderr.splitlines()
    assert told.returncode == 2 and "invalid partition specified: nowhere" in line
    assert "set `partition` in the launch config" in line and jobs(tiny) == []
    deaf = {**settings(tiny, cluster), "SLURM_CONF": str(tmp_path / "deaf.conf")}
    (tmp_path / "deaf.conf").write_text(
        cluster.config.read_text().replace("munge.socket", "nobody.socket"))
    told = launch("train_teacher_model.sh", tiny, "cpu", **deaf)
    line, = told.stderr.splitlines()
    assert told.returncode == 2 and "start munged" in line and jobs(tiny) == []
