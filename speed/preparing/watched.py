"""The command data/preprocess.py, called and watched: phases, memory, processor time."""

import argparse
import hashlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.pairs.pair_files import BATCH
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.hashing import commit

POLL_SECONDS = 0.1


@dataclass
class Run:
    """One call of the command."""

    name: str
    pairs: int
    commit: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase -> seconds, as long as something of it was seen."""
    processor_seconds: float = 0.0
    """Of the command and its workers; 0 where it was killed."""
    tokenised: int = 0
    """Pairs in the part files that it added."""
    peak_mib: float = 0.0
    peak_anonymous_mib: float = 0.0
    """Without the pages of mapped files, which the kernel may drop at any time."""


class Phases:
    """How long each phase of the command takes, told by the files that it leaves."""

    def __init__(self, out: Path):
        self._out = out
        self._name, self._since = "start", time.monotonic()
        self._seconds: dict[str, float] = {}

    def look(self) -> None:
        """See which phase the command is in."""
        if (self._out / ".work" / "pairs").exists():
            name = "write pairs"
        elif (self._out / ".work" / "spill.arrow").exists():
            name = "read and split"
        elif (self._out / "tokens").exists():
            name = "tokenise"
        else:
            name = "count" if (self._out / "pairs").exists() else "start"
        if name != self._name:
            self._close(name)

    def parts(self) -> int:
        """Part files that are whole."""
        return sum(1 for _ in self._out.glob("tokens/*/*/part-*.arrow"))

    def ended(self) -> dict[str, float]:
        self._close("")
        return self._seconds

    def _close(self, name: str) -> None:
        now = time.monotonic()
        self._seconds[self._name] = self._seconds.get(self._name, 0) + now - self._since
        self._name, self._since = name, now


def read_memory(pid: int, run: Run) -> None:
    """Raise the run's peaks to what the process and its children hold now."""
    resident = anonymous = 0
    for each in _family(pid):
        try:
            status = dict(line.split(":", 1) for line in
                          Path(f"/proc/{each}/status").read_text().splitlines())
        except (OSError, ValueError):
            continue  # ended meanwhile
        resident += _kib(status, "VmRSS")
        anonymous += _kib(status, "RssAnon")
    run.peak_mib = max(run.peak_mib, resident / 1024)
    run.peak_anonymous_mib = max(run.peak_anonymous_mib, anonymous / 1024)


def _kib(status: dict[str, str], key: str) -> int:
    return int(status.get(key, "0 kB").split()[0])


def _family(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    try:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir()
                    for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def call(name: str, config: Path, out: Path, args: argparse.Namespace, pairs: int,
         kill_at_parts: int | None = None, root: Path = REPO_ROOT) -> Run:
    """Run the command and watch it; kill it when so many part files are there.

    Args:
        args: `tokenizer` and `num_proc` to call it with.
        root: the checkout whose command it is.
    Raises:
        UserError: the command fails.
    """
    command = [sys.executable, str(root / "data" / "preprocess.py"), "--data", str(config),
               "--output_dir", str(out), "--tokenizer_name", str(args.tokenizer.resolve()),
               "--num_proc", str(args.num_proc)]
    run, phases = Run(name, pairs, commit(root)), Phases(out)
    before = _processor_seconds()
    parts = phases.parts()
    out.parent.mkdir(exist_ok=True)
    with (out.parent / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=root)
        while process.poll() is None:
            phases.look()
            read_memory(process.pid, run)
            if kill_at_parts and phases.parts() >= kill_at_parts:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(POLL_SECONDS)
    run.seconds, run.tokenised = phases.ended(), (phases.parts() - parts) * BATCH
    if not kill_at_parts:  # of the workers of a killed command nobody is told
        run.processor_seconds = _processor_seconds() - before
    if process.returncode != (-signal.SIGKILL if kill_at_parts else 0):
        raise UserError(f"{name}: ended with {process.returncode}; see {log.name}")
    return run


def _processor_seconds() -> float:
    """Of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def contents(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a prepared folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}
