"""What Slurm is asked and told, and what its refusals mean. Its answers are tables of text."""

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from src.common.errors import UserError, one_line
from src.runs.launch.records import Submitted

OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL",
        "DEADLINE", "PREEMPTED", "REVOKED"}
"""States that a job does not leave by itself; what is preempted and goes on is PENDING again."""
ASK_SECONDS = 60
LINE = "%i|%T|%r|%N|%M|%F|%j"
"""The name last: any job of the user's is listed, and a name may have | in it."""


class Queued(NamedTuple):
    """A job that Slurm knows: one that ended stays known for some minutes."""

    number: str
    state: str
    reason: str
    """Why it is not running yet, or why it ended."""
    nodes: str
    elapsed: str
    array: str
    """Number of the array that it is of, or its own."""
    name: str

    @property
    def is_over(self) -> bool:
        return self.state in OVER or self.reason == "DependencyNeverSatisfied"


def ask(*words: str) -> str:
    """What one of Slurm's commands answers.

    Raises:
        UserError: there is no Slurm here, or it refuses: with what it says, and the remedy.
    """
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=ASK_SECONDS)
    except FileNotFoundError:
        raise UserError(f"{words[0]}: not found on this machine: LAUNCH is for machines that "
                        "submit to Slurm; leave it out to train here") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]}: no answer within {ASK_SECONDS} s: is slurmctld busy? "
                        "`scontrol ping` tells; then give the same command again") from None
    if told.returncode:
        raise UserError(refusal(words[0], told.stderr))
    return told.stdout


def queue() -> dict[str, Queued]:
    """Number -> each job of this user that Slurm knows; each of an array for itself."""
    told = ask("squeue", "--me", "--states=all", "--array", "--noheader", f"--format={LINE}")
    found = (Queued(*map(str.strip, line.split("|", LINE.count("|"))))
             for line in told.splitlines() if line)
    return {each.number: each for each in found}


def find(known: Mapping[str, Queued], job: Submitted) -> Queued | None:
    """The job as Slurm knows it; None where it does not, or not any more."""
    found = known.get(job.number)
    return found if found is not None and found.name == job.token else None


def refusal(command: str, told: str) -> str:
    """What Slurm's command said on standard error, in a line, with the remedy."""
    said = one_line(told.replace(f"{command}: error: ", "").strip() or "no word on standard error")
    for words, remedy in REMEDIES.items():
        if words.lower() in said.lower():
            return f"{command}: {said}: {remedy}"
    return (f"{command}: {said}: mend the launch config (configs/launch_schema.py says what its "
            "keys are); what was submitted before stays, the same command submits the rest")


_NOT_REACHED = "slurmctld does not run or is not reached from here: `scontrol ping` tells"
REMEDIES = {
    "munge": "munge, by which Slurm knows who asks, does not run on this machine or has another "
             "key: start munged, or ask those who run the cluster",
    "unable to contact slurm controller": _NOT_REACHED,
    "connection refused": _NOT_REACHED,
    "invalid partition": "`sinfo` lists this cluster's partitions: set `partition` in the launch "
                         "config",
    "invalid account": "`sacctmgr show associations user=$USER` lists yours: set `account` in the "
                       "launch config",
    "time limit": "`sinfo -o '%P %l'` lists the partitions' limits: lower `hours` in the launch "
                  "config",
    "node configuration is not available":
        "no node of the partition has so much: lower `gpus`, `cpus`, `memory_gb` or `most_nodes` "
        "in the launch config",
    "invalid generic resource": "the partition's nodes have no GPUs that Slurm knows of: set "
                                "`gpus: 0` or another `partition` in the launch config",
    "job violates": "a limit of your account: wait for jobs to end, and give the same command "
                    "again: it submits the rest",
}
"""What Slurm says -> what to do about it."""
