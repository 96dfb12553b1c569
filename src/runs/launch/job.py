"""What a job does on its node: the script of its stage, told which runs are its own.

Loads nothing that takes seconds: it runs again after every requeue.
"""

import os
import subprocess
import time
from contextlib import suppress

import psutil
from submitit.helpers import DelayedSubmission

from src.common.checkpoints import SAVE_SECONDS
from src.common.files import REPO_ROOT

NOT_INHERITED = ("LAUNCH", "TOP_SCRIPT", "STATUS_FILE", "QUICKSTART_STEP", "QUICKSTART_SINCE")
"""Of the environment that a job gets from who submits it, what is of that launch alone."""


class StageJob:
    """Called on the node; submitit keeps it in a file until then.

    Args:
        words: the script of the stage, with its arguments.
        nodes: on each of them the script runs once.
        settings: environment variables, HARDWARE and the like.
    """

    def __init__(self, words: tuple[str, ...], nodes: int, settings: dict[str, str]):
        self.words, self.nodes, self.settings = words, nodes, settings
        self.session = 0

    def __call__(self) -> None:
        """Run the script to its end. What is still there when it was stopped is waited for: a
        trainer saves, and Slurm kills what a job leaves."""
        environment = {name: value for name, value in os.environ.items()
                       if name not in NOT_INHERITED} | self.settings
        environment["MACHINES"] = str(self.nodes)
        words = self.words
        if self.nodes > 1:
            cores = environment.get("SLURM_CPUS_PER_TASK", "1")
            words = ("srun", f"--nodes={self.nodes}", f"--ntasks={self.nodes}",
                     "--ntasks-per-node=1", f"--cpus-per-task={cores}", "--kill-on-bad-exit=1",
                     "--export=ALL", *words)
        script = subprocess.Popen(words, cwd=REPO_ROOT, env=environment, start_new_session=True)
        self.session = script.pid
        code = script.wait()
        self._wait()
        raise SystemExit(code if code >= 0 else 128 - code)

    def checkpoint(self) -> DelayedSubmission:
        """Slurm is about to end the job: let training save; the job goes to the queue again."""
        if self.nodes > 1:
            subprocess.run(["scancel", "--signal=TERM", os.environ["SLURM_JOB_ID"]], check=False)
        else:
            for process in self._left():
                with suppress(psutil.NoSuchProcess):  # the script ends what it has started
                    process.terminate()
        self._wait()
        return DelayedSubmission(StageJob(self.words, self.nodes, self.settings))

    def _wait(self) -> None:
        deadline = time.monotonic() + SAVE_SECONDS
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _left(self) -> list[psutil.Process]:
        """Processes of the script's session, orphans too, which no parent knows."""
        return [each for each in psutil.process_iter() if _session(each.pid) == self.session
                and _is_alive(each)]


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):  # since it was listed
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except OSError:
        return None
