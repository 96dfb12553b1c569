"""A real Slurm of two nodes on this machine, with a munge of its own, in a temporary folder."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NODES = ("n0", "n1")
CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
KillWait=60
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=120 State=UP
"""
"""KillWait: seconds from SIGTERM to SIGKILL. cred_expire: a requeued job waits that long."""


def missing() -> str:
    """Why there can be no Slurm here; empty where there can."""
    absent = [each for each in (*DAEMONS, "sbatch") if shutil.which(each, path=PATH) is None]
    return f"no {', '.join(absent)} here: tests/slurm/install.sh" if absent else ""


def _free_ports() -> tuple[int, int, int]:
    """One, and two in a row."""
    while True:
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            one.bind(("", 0))
            two.bind(("", 0))
            try:
                three.bind(("", two.getsockname()[1] + 1))
            except OSError:
                continue
            return one.getsockname()[1], two.getsockname()[1], two.getsockname()[1] + 1


class Cluster:
    """Its daemons run between `start` and `stop`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a socket's path has 108 bytes
        self.daemons: list[subprocess.Popen] = []
        controller, first, last = _free_ports()
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self.config = self.folder / "slurm.conf"
        self.config.write_text(CONFIG.format(
            host=socket.gethostname(), controller=controller, first=first, last=last,
            user=getpass.getuser(), folder=self.folder, nodes=f"n[0-{len(NODES) - 1}]"))

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config), "PATH": PATH}

    def start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(256))
        key.chmod(0o600)
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}",
                     *(f"--{name}={self.folder}/munge.{end}" for name, end in (
                         ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed"),
                         ("log-file", "log"))))
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        self.wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T").split() == ["idle"])

    def stop(self) -> None:
        self.ask("scancel", f"--user={getpass.getuser()}")
        self.wait_for(lambda: not self.ask("squeue", "--noheader"))
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(30)
        shutil.rmtree(self.folder)

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands prints, be it an error."""
        return subprocess.run(words, env={**os.environ, **self.environment}, text=True, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def wait_for(self, holds, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.ask("squeue", "--states=all") + self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        """The end of what each daemon said."""
        return "\n".join(path.read_text()[-1500:] for path in self.folder.glob("*.out"))

    def _daemon(self, *words: str) -> None:
        with (self.folder / f"{len(self.daemons)}-{words[0]}.out").open("w") as log:
            self.daemons.append(subprocess.Popen(
                words, env={**os.environ, **self.environment}, stdout=log, stderr=log,
                start_new_session=True))
