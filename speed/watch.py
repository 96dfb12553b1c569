"""A call of data/preprocess.py, watched from outside: its memory, and phases by files it leaves."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Run:
    """One call of the command."""

    name: str
    pairs: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase -> seconds, as long as something of it was seen."""
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
