"""Runs as jobs: the graph, what is kept beside the runs, what Slurm says. tests/slurm asks a
real Slurm; here a stand-in of a few lines takes jobs and starts none."""

import argparse
import os
import stat
import subprocess
from pathlib import Path

import psutil
import pytest
import submitit.core.core
from submitit.helpers import DelayedSubmission

from configs.launch_schema import LaunchConfig
from configs.schema import ExperimentConfig, load_config
from src.common.errors import UserError
from src.common.lock import lock, quiet
from src.runs.__main__ import _order, _require_time
from src.runs.folders import folder_of, mark_done
from src.runs.launch import records, slurm
from src.runs.launch.graph import Place, arrays, jobs_of, wanted
from src.runs.launch.job import StageJob
from src.runs.launch.status import reason_of, standings
from src.runs.launch.submit import Order, setup_lines, submit
from src.runs.plan import Plan
from src.training.fit import USABLE, run_gb
from tests.tiny_experiment import TinyExperiment, in_process, make_experiment

SBATCH = """#!/bin/bash
number=$(($(wc -l < "{queue}") + 1))
name=$(sed -n 's/#SBATCH --job-name=//p' "$1")
last=$(sed -n 's/#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
echo "$number $name ${{last:-none}} $(sed -n 's/#SBATCH --dependency=//p' "$1")" >> "{queue}"
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/bash
while read -r number name last _; do
  if [[ "$last" == none ]]; then
    echo "$number|PENDING|Resources||0:00|$number|$name"
  else
    for ((i = 0; i <= last; i++)); do
      echo "${{number}}_$i|PENDING|Dependency||0:00|$number|$name"
    done
  fi
done < "{queue}"
"""
SCANCEL = """#!/bin/bash
sed -i "s/^$1 .*/gone gone none/" "{queue}"
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    """Two teachers, three pairs of rungs, two methods, one of which comes after the other."""
    tiny = make_experiment(
        tmp_path_factory.mktemp("launch"), rows=130, train_pairs=32,
        methods=[{"name": "soft"},
                 {"name": "again", "after": "soft", "treatment": "strong_to_strong"}])
    assert in_process("data.preprocess", *tiny.preprocess) == 0
    return tiny


@pytest.fixture
def plan(tiny) -> Plan:
    return Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """The file of a stand-in's queue, in a line: number, name, last place in the array, what it
    waits for."""
    file, place = tmp_path / "queue", tmp_path / "bin"
    file.touch()
    place.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL),
                       ("srun", "#!/bin/bash\n")):
        (place / name).write_text(text.format(queue=file))
        (place / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return file


def order_of(tiny: TinyExperiment, runs_dir: Path, stage: str = "students", **keys) -> Order:
    return _order(argparse.Namespace(experiment=str(tiny.config), stage=stage, seeds=[],
                                     runs_dir=runs_dir, data_dir=tiny.processed.parent),
                  LaunchConfig("mine", **keys))


def send(order: Order) -> list[str]:
    return submit(order, lambda jobs: None, lambda text: None)[1]


def test_every_run_is_in_one_job_after_the_jobs_of_what_it_needs(plan):
    runs = wanted(plan, "students", lambda run: False)
    assert {run.stage for run in runs} == {"teachers", "students"}
    for size in (1, 2, 3, 100):
        jobs = jobs_of(runs, {}, lambda run: Place(), size)
        job_of = {run.identity: number for number, job in enumerate(jobs) for run in job.runs}
        assert sum(len(job.runs) for job in jobs) == len(job_of) == len(runs)
        assert max(len(job.runs) for job in jobs) <= size
        for number, job in enumerate(jobs):
            needs = {job_of[each] for run in job.runs for each in run.needs}
            assert job.after == needs and max(needs, default=-1) < number
            assert len({run.stage for run in job.runs}) == 1


def test_jobs_of_an_array_wait_for_the_same(plan):
    jobs = jobs_of(wanted(plan, "students", lambda run: False), {}, lambda run: Place(), 1)
    found = arrays(jobs)
    assert [number for places in found for number in places] == list(range(len(jobs)))
    assert all(len({jobs[number].after for number in places}) == 1 for places in found)
    assert len(found[0]) == 2 and len(found) < len(jobs)  # both teachers


def test_what_is_done_or_in_the_queue_is_waited_for_and_not_submitted(plan):
    first, second = plan.stage("teachers")
    settled = {first.identity, second.identity}
    runs = wanted(plan, "students", lambda run: run.identity in settled)
    assert {run.stage for run in runs} == {"students"}
    jobs = jobs_of(runs, {second.identity: "7_3"}, lambda run: Place(), 1)
    for job in jobs:
        assert job.after_queued == ({"7_3"} if second.identity in job.runs[0].needs else set())


def test_a_run_on_several_nodes_has_a_job_of_its_own(plan):
    jobs = jobs_of(plan.stage("ceilings"), {}, lambda run: Place(2, "zero3"), 4)
    assert [len(job.runs) for job in jobs] == [1, 1]


def test_a_run_takes_the_fewest_nodes_that_hold_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HARDWARE", "zero3")
    monkeypatch.setenv("NPROC", "2")
    order = order_of(tiny, tmp_path, gpu_gb=80, most_nodes=2)
    run = order.plan.stage("ceilings")[0]
    assert order.place(run) == Place(1, "zero3")
    one, two = (run_gb(order.plan, run, "zero3", processes) / USABLE for processes in (2, 4))
    between = (one + two) / 2
    assert order_of(tiny, tmp_path, gpu_gb=between, most_nodes=2).place(run) == Place(2, "zero3")
    with pytest.raises(UserError, match=r"launch/mine: .* needs about .* GPU\(s\) under HARDWARE"):
        order_of(tiny, tmp_path, gpu_gb=two / 2, most_nodes=2).place(run)


def test_nothing_is_submitted_twice_and_what_failed_is_again(tiny, tmp_path, queue):
    order = order_of(tiny, tmp_path / "runs")
    numbers = send(order)
    assert len(numbers) == len(set(numbers)) == 2 + 2 * 4
    assert send(order) == [] and send(order._replace(stage="teachers")) == []
    lines = [line.split() for line in queue.read_text().splitlines()]
    assert lines[0][:1] + lines[0][2:] == ["1", "1"]  # an array of both teachers
    assert {line[3] for line in lines[1:]} >= {"afterok:1_0", "afterok:1_1"}
    states = {each.state for each in standings(order.plan, order.runs_dir)}
    assert states == {"queued", "to do"}
    alien = "\n".join(f"{number} other 9" for number in range(1, 9))  # of a cluster set up anew
    queue.write_text(f"{alien}\n")  # all of ours has ended, and nothing is done
    assert {each.state for each in standings(order.plan, order.runs_dir)
            if each.run.kind == "student"} == {"failed"}
    assert len(send(order)) == len(numbers)


def test_a_job_of_the_same_user_may_have_any_name(tiny, tmp_path, queue):
    queue.write_text("1 sweep|lr=1|seed=2 none\n")
    assert send(order_of(tiny, tmp_path / "runs"))
    assert slurm.queue()["1"].name == "sweep|lr=1|seed=2"


def test_a_run_that_a_script_trains_without_a_job_is_running(tiny, tmp_path):
    plan = Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)
    run = plan.stage("teachers")[1]

    def states() -> dict[str, str]:
        return {each.run.identity: each.state for each in standings(plan, tmp_path)}

    with lock(tmp_path / run.experiment / run.stage / run.folder_name, quiet):
        assert states() == {each.identity: "running" if each is run else "to do"
                            for each in plan.runs}
    assert set(states().values()) == {"to do"}


def test_a_run_that_ends_while_slurm_is_asked_is_done(tiny, tmp_path, queue, monkeypatch):
    plan = Plan(load_config(ExperimentConfig, str(tiny.config)), tiny.processed.parent)
    runs_dir, run = tmp_path / "runs", plan.stage("teachers")[0]
    send(order_of(tiny, runs_dir, "teachers"))

    def empty():
        folder = folder_of(run, runs_dir)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w")
        mark_done(folder, run.identity)
        return {}

    monkeypatch.setattr(slurm, "queue", empty)
    assert standings(plan, runs_dir)[plan.runs.index(run)].state == "done"


def test_what_ends_by_itself_while_a_job_is_asked_to_end_is_no_error(monkeypatch):
    asked = []

    class Gone:
        pid = 7

        def status(self):
            if asked:
                raise psutil.NoSuchProcess(7)
            return "sleeping"

        def terminate(self):
            asked.append(7)
            raise psutil.NoSuchProcess(7)

    stage = StageJob(("./train_teacher_model.sh",), 1, {})
    monkeypatch.setattr(psutil, "process_iter", lambda: [Gone()])
    monkeypatch.setattr("src.runs.launch.job._session", lambda process: stage.session)
    again = stage.checkpoint()
    assert asked == [7] and isinstance(again, DelayedSubmission)


def test_an_experiment_that_shares_a_run_does_not_submit_it_again(tiny, tmp_path, queue):
    assert len(send(order_of(tiny, tmp_path / "runs", "teachers"))) == 2
    other = tiny.root / "other.yaml"
    other.write_text(tiny.config.read_text())
    order = order_of(tiny, tmp_path / "runs", "teachers")
    plan = Plan(load_config(ExperimentConfig, str(other)), tiny.processed.parent)
    assert plan.experiment.name == "other" and send(order._replace(plan=plan)) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_launcher_killed_as_it_submits_leaves_nothing_that_is_done_twice(
        tiny, tmp_path, queue, monkeypatch, moment):
    """Before the queue has the array, or after, when nobody has noted its number."""
    order = order_of(tiny, tmp_path / "runs", "teachers")
    run = submitit.core.core.utils.CommandFunction.__call__

    def killed(self, *args, **kwargs):
        if moment == "after":
            run(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(submitit.core.core.utils.CommandFunction, "__call__", killed)
        send(order)
    (_, record), = records.read_records(order.runs_dir)
    assert record.number == ""
    assert len(send(order)) == 2
    alive = [line for line in queue.read_text().splitlines() if not line.startswith("gone")]
    assert len(alive) == 1 and len(records.read_records(order.runs_dir)) == 1


def test_a_refused_array_leaves_no_record_and_says_what_to_do(tiny, tmp_path, queue, capfd):
    (queue.parent / "bin" / "sbatch").write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition specified: nowhere' >&2\nexit 1\n")
    order = order_of(tiny, tmp_path / "runs", partition="nowhere")
    with pytest.raises(UserError, match="sbatch: invalid partition .*: nowhere.*`sinfo` lists"):
        send(order)
    assert capfd.readouterr().err == ""
    assert records.read_records(order.runs_dir) == []


def test_without_slurm_it_says_where_to_go(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch: not found on this machine: LAUNCH is for"):
        send(order_of(tiny, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("said", "remedy"), [
    ("sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode "
     "failed: Failed to access \"/run/munge/munge.socket.2\"", "start munged"),
    ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
     "`scontrol ping` tells"),
    ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination "
     "specified", "set `account`"),
    ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or "
     "exceeds some limit)", "lower `hours`"),
    ("sbatch: error: Batch job submission failed: Requested node configuration is not available",
     "lower `gpus`"),
    ("sbatch: error: something new", "mend the launch config"), ("", "no word on standard error")])
def test_each_refusal_of_slurm_is_one_line_with_its_remedy(said, remedy):
    told = slurm.refusal("sbatch", said)
    assert remedy in told and "\n" not in told


def test_precision_auto_is_refused_where_nobody_knows_what_the_nodes_have(tiny, tmp_path,
                                                                          monkeypatch):
    auto = tiny.copy("auto", train={"precision": "auto"})
    with pytest.raises(UserError, match="precision auto .* set PRECISION=bf16"):
        order_of(auto, tmp_path, gpus=1)
    monkeypatch.setenv("PRECISION", "bf16")
    assert order_of(auto, tmp_path, gpus=1).plan.runs[0].train.precision == "bf16"
    monkeypatch.setenv("PRECISION", "fp8")
    with pytest.raises(UserError, match="PRECISION=fp8: expected one of fp32, bf16, bf16_residual"):
        order_of(auto, tmp_path, gpus=1)


def test_a_time_limit_below_the_estimate_is_refused_before_anything_is_submitted(plan):
    jobs = jobs_of(plan.stage("ceilings"), {}, lambda run: Place(), 2)
    config = LaunchConfig("mine", hours=1)
    _require_time(config, jobs, lambda job: 3500.0)
    _require_time(config, jobs, lambda job: None)
    with pytest.raises(UserError, match="mine: hours 1 is too short: .* about 60 min: raise"):
        _require_time(config, jobs, lambda job: 3601.0)


@pytest.mark.parametrize(("text", "reason"), [
    ("", ""), ("submitit INFO - Starting\nstopped: run the same command again\n", ""),
    ("a bar 50%\r a bar 51%\rfailed: m-s0: no space left\nsubmitit WARNING - Bypassing",
     "failed: m-s0: no space left"),
    ("ValueError: what it was\n  frame\nsubprocess.CalledProcessError: Command\n",
     "ValueError: what it was"),
    ("slurmstepd-n1: error: *** JOB 3\nm-s0: asked to end, saved at step 4 of 9\n 44%|#\n",
         "saved at step 4 of 9"),
        ("[1/2] m-s1: FAILED, another's\n[2/2] m-s0: FAILED, its own\nfailed: both\n", "its own"),
    ("error: node n1 has no folder /repo: put\n", "error: node n1 has no folder /repo: put"),
    ("killed without a word at\n 12%|#  | 3/25\n", "12%|# | 3/25")])
def test_why_a_run_failed_is_read_from_its_job_s_log(tmp_path, text, reason):
    (tmp_path / "log").write_text(text)
    assert reason_of(tmp_path / "log", "m-s0") == reason


def test_a_job_that_left_no_log_is_told_as_one_that_never_started(tiny, tmp_path, queue):
    order = order_of(tiny, tmp_path / "runs", "teachers")
    send(order)
    queue.write_text("")
    told = {each.told for each in standings(order.plan, order.runs_dir) if each.told}
    assert len(told) == 2 and all(each.startswith("died before it started") for each in told)


def test_a_node_without_the_repository_or_a_module_says_so_as_its_last_line(tmp_path):
    for name, lines in (("folder", [setup_lines(LaunchConfig("mine"))[0].replace(
            str(Path.cwd()), "/no/such")]), ("module", setup_lines(LaunchConfig(
                "mine", modules=("cuda/99",))))):
        ended = subprocess.run(["bash", "-c", "\n".join(["set +e", *lines, "echo went on"])],
                               text=True, capture_output=True, cwd=tmp_path)
        assert ended.returncode == 2 and "went on" not in ended.stdout
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith("error: node ") and name in last


def test_a_job_s_script_trains_its_own_runs_alone(tiny, plan):
    run = plan.stage("teachers")[1]
    only = Plan(plan.experiment, tiny.processed.parent, only=(run.identity[:8],))
    assert only.stage("teachers") == [run] and only.runs == plan.runs
    with pytest.raises(UserError, match="tiny has no run 00000000: its configs or its data"):
        Plan(plan.experiment, tiny.processed.parent, only=("00000000",))


def test_an_option_that_the_launcher_sets_itself_is_refused():
    with pytest.raises(UserError, match="sbatch: array, signal is set by the launcher"):
        LaunchConfig("mine", sbatch={"signal": "TERM", "array": "0-3", "qos": "long"})
    with pytest.raises(UserError, match="most_nodes 2: .* gpu_gb: 80"):
        LaunchConfig("mine", most_nodes=2)
