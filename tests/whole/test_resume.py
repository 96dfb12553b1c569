"""Killed at random moments, then the same commands again: the result of never having been killed.

The commands run in children of a process that has imported everything, so that a kill costs a fork
and not ten seconds of imports; each child is the head of a process group, and the group is killed.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from configs.run import STAGES
from src.common.checkpoints import newest_whole
from src.common.files import REPO_ROOT
from tests.tiny_experiment import (
    ENVIRONMENT,
    TinyExperiment,
    in_process,
    launch,
    make_experiment,
    start,
)

pytestmark = pytest.mark.launch

KILLS = 10
INSIDE = "*/resume/checkpoint-*/trainer_state.json"
"""In a stage's folder: what a run can go on from."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SERVER = """
import json, os, sys, traceback
import data.preprocess, data.prepare, data.samples, src.train, eval
commands = {"preprocess": data.preprocess, "train": src.train, "eval": eval}
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 0
        try:
            for command, *arguments in json.loads(line):
                sys.argv = [command, *arguments]
                code = code or commands[command].main() or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)
    os.write(3, f"{child}\\n".encode())
    os.write(3, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n".encode())
"""


class Server:
    """Runs the commands of an experiment in a fresh child each time."""

    def __init__(self, log: Path):
        self.log = log
        read, write = os.pipe()
        self.answers = os.fdopen(read)
        with log.open("w") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f'exec "$0" -c "$1" 3>&{write}', sys.executable, SERVER],
                stdin=subprocess.PIPE, stdout=output, stderr=output, text=True, cwd=REPO_ROOT,
                env=ENVIRONMENT, pass_fds=[write])
        os.close(write)

    def start(self, tiny: TinyExperiment) -> int:
        """Start all commands of the experiment in a child; its process id."""
        stages = ("teachers", "ceilings", "students")
        commands = [["preprocess", *tiny.preprocess],
                    *(["train", *tiny.train(stage)] for stage in stages),
                    ["eval", *tiny.evaluate()]]
        self.process.stdin.write(json.dumps(commands) + "\n")
        self.process.stdin.flush()
        return int(self.answers.readline())

    def ended(self) -> int:
        """Wait for the child: its exit code."""
        return int(self.answers.readline())

    def run(self, tiny: TinyExperiment) -> float:
        """Run all commands to their end; seconds it took."""
        started = time.monotonic()
        self.start(tiny)
        assert self.ended() == 0, self.log.read_text()[-3000:]
        return time.monotonic() - started


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "server.log")
    yield server
    server.process.stdin.close()
    server.process.wait(300)


def outcome(tiny: TinyExperiment) -> dict[str, bytes]:
    """What an experiment comes to: every run's weights, weak labels and scores, and every table and
    figure."""
    found = [path for pattern in ("model.safetensors", "*.parquet", "log.jsonl")
             for path in tiny.runs_dir.rglob(pattern)]
    found += [*tiny.results.glob("*.csv"), *tiny.results.glob("figures/*.png")]
    return {str(path.relative_to(tiny.config.parent)): path.read_bytes() for path in found}


def progress(tiny: TinyExperiment) -> str:
    """What a killed command leaves: the stage it was in, and whether it can resume from within."""
    for stage in ("students", "ceilings", "teachers"):
        folder = tiny.runs_dir / "tiny" / stage
        if folder.is_dir():
            inside = any(folder.glob(INSIDE))
            return f"{stage}, {'with' if inside else 'without'} a checkpoint"
    return "data"


def wait_for_a_new_place(tiny: TinyExperiment, child: int, seen: list[str]) -> None:
    """Until the child is where no kill has met one yet, or has ended."""
    while progress(tiny) in seen and psutil.pid_exists(child):
        time.sleep(0.005)


def leftovers(tiny: TinyExperiment) -> list[str]:
    """What no finished command leaves: locks, half-written files, checkpoints to resume from."""
    return [path.name for path in tiny.config.parent.rglob("*") if path.name == "resume" or
            path.name.startswith(".") and path.suffix in (".lock", ".partial")]


def written(tiny: TinyExperiment) -> dict[Path, int]:
    """File -> when it was written."""
    return {path: path.stat().st_mtime_ns for path in tiny.config.parent.rglob("*")
            if path.is_file()}


def covers(seen: list[str]) -> bool:
    """Whether kills met several stages, one of them with a checkpoint to resume from."""
    return len(set(seen)) > 2 and any("with a checkpoint" in where for where in seen)


def test_ten_kills_change_no_bit_of_weights_tables_or_figures(tmp_path, server):
    first = make_experiment(
        tmp_path, rows=260, train_pairs=76, test_pairs=40, layers=([1, 2], [2]),
        train={"epochs": 4, "early_stopping_evals": 2, "eval_frac": 0.1},
        runtime={"micro_batch_tokens": 256, "save_steps": 2, "logging_steps": 3})
    killed = first.copy("killed")
    seconds = server.run(first)
    expected = outcome(first)
    assert len([name for name in expected if name.endswith("safetensors")]) == 2 + 1 + 2
    assert len([name for name in expected if name.endswith("csv")]) == 7
    assert len([name for name in expected if name.endswith("png")]) == 4 and not leftovers(first)
    stamps = written(first)
    idle_seconds = server.run(first)
    assert stamps == written(first)

    draw = random.Random(0)
    seen, rounds = [], 0
    while (len(seen) < KILLS or not covers(seen)) and max(len(seen), rounds) < 4 * KILLS:
        child, started = server.start(killed), time.monotonic()
        if len(seen) >= KILLS:  # on a busy machine random moments may all have met the last stage
            wait_for_a_new_place(killed, child, seen)
        else:
            time.sleep(idle_seconds * 0.5 + draw.random() * seconds / 4)
        with suppress(ProcessLookupError):
            os.killpg(child, SIGNALS[len(seen) % len(SIGNALS)])
        ended, took = server.ended(), time.monotonic() - started
        if ended == 0:  # it was faster, the machine was busy before: once more from the start
            seconds, idle_seconds = min(seconds, took), min(idle_seconds, took / 4)
            assert outcome(killed) == expected
            rounds += 1
            killed = TinyExperiment(tmp_path, f"killed_{rounds}")
            killed.write_config(first.settings())
        else:
            seen.append(progress(killed))
    server.run(killed)
    assert outcome(killed) == expected and not leftovers(killed)
    assert len(seen) >= KILLS and covers(seen), seen


def test_what_a_kill_between_a_file_and_the_tidying_after_it_leaves_goes_with_the_next_launch(
        finished):
    tiny = finished.copy("marked")
    assert in_process("eval", *tiny.evaluate()) == 0
    before = outcome(tiny)
    for folder in (folder for stage in STAGES for folder in tiny.finished(stage)):
        for left in ("resume/checkpoint-2/model.safetensors", "scores/.test.parquet.lock",
                     ".README.md.lock"):
            (folder / left).parent.mkdir(parents=True, exist_ok=True)
            (folder / left).touch()
    shutil.rmtree(tiny.results)  # they are made after all scores
    for module, words in (*(("src.train", tiny.train(stage)) for stage in STAGES),
                          ("eval", tiny.evaluate())):
        assert in_process(module, *words) == 0
    assert outcome(tiny) == before and not leftovers(tiny)


TOP = "source src/shell.sh; ./train_teacher_model.sh"
"""A script that calls one of ours, as quickstart.sh does."""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_script_that_is_stopped_stops_its_training_and_says_so_once(tmp_path, sign):
    """Ctrl-C reaches all that the terminal started; other signals reach the top script alone."""
    tiny = make_experiment(tmp_path, train_pairs=240, layers=([1], [2]), train={"epochs": 1000},
                           runtime={"logging_steps": 100_000})
    assert in_process("data.preprocess", *tiny.preprocess) == 0
    words = ["bash", "-c", f'{TOP} "$@"; true', "top"]
    log = tmp_path / "log"
    script = start("train_teacher_model.sh", tiny, "cpu", log,
                   words if sign == signal.SIGKILL else [])
    deadline = time.monotonic() + 600
    while not list(tiny.runs_dir.glob("tiny/teachers/*/resume/checkpoint-*")):
        assert time.monotonic() < deadline and script.poll() is None
        time.sleep(0.05)
    processes = script.children(recursive=True)
    assert any("src.train" in process.cmdline() for process in processes)
    if sign == signal.SIGINT:
        os.killpg(script.pid, sign)  # as the terminal does
    else:
        script.send_signal(sign)
    ended = script.wait(60)
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    assert ended == (-9 if sign == signal.SIGKILL else 128 + sign)
    assert log.read_text().count("stopped: run the same command again") == (sign != signal.SIGKILL)
    assert "Traceback" not in log.read_text() and "Killed" not in log.read_text()


def test_two_processes_that_are_asked_to_end_save_the_same_step_and_go_on_from_it(tmp_path):
    """As Slurm asks: everything that the job has started, at once."""
    tiny = make_experiment(tmp_path, train_pairs=64, layers=([1], [2]), train={"epochs": 150},
                           runtime={"save_steps": 100_000, "logging_steps": 20})
    assert in_process("data.preprocess", *tiny.preprocess) == 0
    whole, log = tiny.copy("whole"), tmp_path / "log"
    assert launch("train_teacher_model.sh", whole, "multi_gpu").returncode == 0
    script = start("train_teacher_model.sh", tiny, "multi_gpu", log)
    deadline = time.monotonic() + 600
    while "'loss'" not in log.read_text():
        assert time.monotonic() < deadline and script.poll() is None, log.read_text()
        time.sleep(0.05)
    processes = script.children(recursive=True)
    for process in (*reversed(processes), script):  # one that sees its parent gone ends unasked
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    assert script.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    step, = map(int, re.findall(r"asked to end, saved at step (\d+) of", log.read_text()))
    folder, = (tiny.runs_dir / "tiny" / "teachers").glob("*/resume")
    assert newest_whole(folder, 2) == folder / f"checkpoint-{step}"
    again = launch("train_teacher_model.sh", tiny, "multi_gpu")
    assert again.returncode == 0, again
    (found,), (expected,) = tiny.finished("teachers"), whole.finished("teachers")
    for name in ("model.safetensors", "log.jsonl"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
