"""Preprocessing at size: rate and peak memory of data/preprocess.py, killed half way and resumed.

    python -m speed.preprocess_rate                                  # 20,000 pairs, a minute
    python -m speed.preprocess_rate --pairs 700000 --json FILE
    python -m speed.preprocess_rate --against FOLDER --tokenizer model/checkpoints/smollm2_135m

Pairs are those of speed/mixes.py, cleaned of what overlaps their own test split, tokenised
for the demo's model. The command is killed (SIGKILL) when half of its part files are there, and
called again. Of --check_pairs pairs it is also run without being killed: both folders must hold the
same bytes. Memory is the resident set of the process and its children together, the mapped parts of
files included, read every tenth of a second.

With --against, a checkout of the repository at another commit prepares the same rows, in turn with
this one, and both must write the same bytes. Processor seconds are those of the command and its
workers: where other work shares the cores, they say more than seconds.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from data.manifest import read_manifest
from data.pairs.pair_files import BATCH
from speed.mixes import PAIRS_OF_PROMPT, write_raw_rows
from speed.preparing.watched import Run, call, contents
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, atomic_path

MIB = 1 << 20
CONFIG = """\
path: {raw}
decontaminate: [made]
"""


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


def compare(args: argparse.Namespace, folder: Path) -> list[Run]:
    """Prepare the same pairs here and in the other checkout, in turn.

    Raises:
        UserError: they do not write the same bytes.
    """
    raw, config = folder / f"{args.pairs}.jsonl", folder / "made.yaml"
    write_raw_rows(raw, args.pairs, args.seed)
    config.write_text(CONFIG.format(raw=raw))
    roots, runs, written = {"against": args.against.resolve(), "here": REPO_ROOT}, [], {}
    for turn in range(args.rounds):
        for name, root in roots.items():
            out = folder / f"{name}-{turn}" / "made"
            runs.append(call(f"{name} {turn}", config, out, args, args.pairs, root=root))
            print(f"{name} {turn}: {runs[-1].processor_seconds:.1f} processor seconds, "
                  f"{runs[-1].peak_mib:.0f} MiB", flush=True)
            written[name] = contents(out)
            shutil.rmtree(out)
        if written["against"] != written["here"]:
            raise UserError(f"{args.against}: writes other bytes than this checkout")
    print(f"the same bytes, {len(written['here'])} files", flush=True)
    for what in ("processor_seconds", "peak_mib", "peak_anonymous_mib"):
        theirs, ours = (statistics.median(getattr(run, what) for run in runs
                                          if run.name.startswith(name)) for name in roots)
        print(f"{what}: {theirs:,.1f} against, {ours:,.1f} here: {theirs / ours:.2f} times")
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
        if run.processor_seconds:
            rate = f"{run.pairs / run.processor_seconds:,.0f}"
            print(f"| {run.name} | all, processor | {run.processor_seconds:,.1f} | {rate} | | |")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--check_pairs", type=int, default=20_000,
                        help="of so many the result is compared with a call that was not killed")
    parser.add_argument("--num_proc", type=int, default=1)
    parser.add_argument("--tokenizer", type=Path, default=REPO_ROOT / "model" / "demo")
    parser.add_argument("--against", type=Path, metavar="FOLDER",
                        help="a checkout of the repository at another commit")
    parser.add_argument("--rounds", type=int, default=2, help="with --against")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work there and leave everything, logs too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the runs there")
    args = parser.parse_args()
    for name in ("pairs", "check_pairs"):
        if getattr(args, name) < 4 * BATCH or getattr(args, name) % PAIRS_OF_PROMPT:
            raise UserError(f"--{name} {getattr(args, name)}: expected an even number of at least "
                            f"{4 * BATCH}")
    if args.against and not (args.against / "data" / "preprocess.py").is_file():
        raise UserError(f"--against {args.against}: no checkout of this repository: make one with "
                        "git worktree add FOLDER COMMIT")
    return args


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.folder or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        if args.against:
            runs = compare(args, work)
        else:
            runs = measure(args.check_pairs, args, work, check=True)
        if not args.against and args.pairs != args.check_pairs:
            runs += measure(args.pairs, args, work, check=False)
    show(runs)
    if args.json:
        with atomic_path(args.json) as partial:
            partial.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
