"""Preprocessing at size: rate and peak memory of data/preprocess.py, killed half way and resumed.

    python -m speed.preprocess_rate                                  # 20,000 pairs, a minute
    python -m speed.preprocess_rate --pairs 700000 --json FILE

Pairs are those of speed/mixes.py, cleaned of what overlaps their own test split, tokenised
for the demo's model. The command is killed (SIGKILL) when half of its part files are there, and
called again. Of --check_pairs pairs it is also run without being killed: both folders must hold the
same bytes. Memory is the resident set of the process and its children together, the mapped parts of
files included, read every tenth of a second.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data.manifest import read_manifest
from data.pairs.pair_files import BATCH
from speed.mixes import PAIRS_OF_PROMPT, write_raw_rows
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, atomic_path

MIB = 1 << 20
POLL_SECONDS = 0.1
CONFIG = """\
path: {raw}
decontaminate: [made]
"""


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


def call(name: str, config: Path, out: Path, args: argparse.Namespace, pairs: int,
         kill_at_parts: int | None = None) -> Run:
    """Run the command and watch it; kill it when so many part files are there.

    Raises:
        UserError: the command fails.
    """
    command = [sys.executable, str(REPO_ROOT / "data" / "preprocess.py"), "--data", str(config),
               "--output_dir", str(out), "--tokenizer_name", str(REPO_ROOT / "model" / "demo"),
               "--num_proc", str(args.num_proc)]
    run, phases = Run(name, pairs), Phases(out)
    parts = phases.parts()
    out.parent.mkdir(exist_ok=True)
    with (out.parent / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            phases.look()
            read_memory(process.pid, run)
            if kill_at_parts and phases.parts() >= kill_at_parts:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(POLL_SECONDS)
    run.seconds, run.tokenised = phases.ended(), (phases.parts() - parts) * BATCH
    if process.returncode != (-signal.SIGKILL if kill_at_parts else 0):
        raise UserError(f"{name}: ended with {process.returncode}; see {log.name}")
    return run


def contents(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a prepared folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def measure(pairs: int, args: argparse.Namespace, folder: Path, check: bool) -> list[Run]:
    """Make pairs, prepare them with a kill in between, and check the result."""
    raw = folder / f"{pairs}.jsonl"
    write_raw_rows(raw, pairs, args.seed)
    print(f"{pairs:,} pairs: {raw.stat().st_size / MIB:,.0f} MiB", flush=True)
    config, out = folder / "made.yaml", folder / f"killed-{pairs}" / "made"
    config.write_text(CONFIG.format(raw=raw))
    runs = [call(f"{pairs} until killed", config, out, args, pairs, pairs // BATCH // 2)]
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("part-*.arrow")}
    runs.append(call(f"{pairs} resumed", config, out, args, pairs))
    if any(path.stat().st_mtime_ns != when for path, when in kept.items()):
        raise UserError(f"{out}: a finished part file was written again after the kill")
    manifest = read_manifest(out)
    found = sum(entry["pairs"] for entry in manifest["splits"].values())
    over = manifest["over_length"]["count"]
    print(f"{len(kept)} part files kept; {found:,} pairs, {over:,} too long; data_hash "
          f"{manifest['data_hash']}", flush=True)
    dropped = sum(entry["count"] for entry in manifest["dropped"].values())
    if found + over + dropped != pairs:
        raise UserError(f"{out}: {found} + {over} + {dropped} pairs, not {pairs}")
    if check:
        whole = folder / f"whole-{pairs}" / "made"
        runs.append(call(f"{pairs} not killed", config, whole, args, pairs))
        if contents(out) != contents(whole):
            raise UserError(f"{out}: differs from what a call that was not killed gives")
        print(f"killed and resumed = not killed, {len(contents(out))} files", flush=True)
    return runs


def show(runs: list[Run]) -> None:
    """The runs as one Markdown table, a line a phase."""
    print("| run | phase | seconds | pairs/s | peak MiB | of it anonymous |\n"
          "| --- | --- | --: | --: | --: | --: |")
    for run in runs:
        for phase, seconds in run.seconds.items():
            done = run.tokenised if phase == "tokenise" else run.pairs
            rate = f"{done / seconds:,.0f}" if phase != "start" else ""
            print(f"| {run.name} | {phase} | {seconds:,.1f} | {rate} | | |")
        print(f"| {run.name} | all | {sum(run.seconds.values()):,.1f} | | {run.peak_mib:,.0f} | "
              f"{run.peak_anonymous_mib:,.0f} |")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--check_pairs", type=int, default=20_000,
                        help="of so many the result is compared with a call that was not killed")
    parser.add_argument("--num_proc", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work there and leave everything, logs too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the runs there")
    args = parser.parse_args()
    for name in ("pairs", "check_pairs"):
        if getattr(args, name) < 4 * BATCH or getattr(args, name) % PAIRS_OF_PROMPT:
            raise UserError(f"--{name} {getattr(args, name)}: expected an even number of at least "
                            f"{4 * BATCH}")
    return args


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.folder or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        runs = measure(args.check_pairs, args, work, check=True)
        if args.pairs != args.check_pairs:
            runs += measure(args.pairs, args, work, check=False)
    show(runs)
    if args.json:
        with atomic_path(args.json) as partial:
            partial.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
