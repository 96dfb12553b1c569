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
from dataclasses import asdict
from pathlib import Path

from data.manifest import read_manifest
from data.pairs.pair_files import BATCH
from speed.mixes import PAIRS_OF_PROMPT, write_raw_rows
from speed.watch import Phases, Run, read_memory
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, atomic_path

MIB = 1 << 20
POLL_SECONDS = 0.1
CONFIG = """\
path: {raw}
decontaminate: [made]
"""


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
