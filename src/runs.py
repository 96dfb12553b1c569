"""Run folders: where a run lives, when it counts as finished, and how nothing half-written is read.

    runs/<experiment>/<stage>/<name>-<hash8>/    DONE is written last, with every other file's size

A folder without a DONE that fits it is unfinished work: it may hold checkpoints to resume from, and
is never trusted for anything else.
"""

import json
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.owned import CHECKPOINT, clear
from configs.schema import REPO_ROOT
from data.manifest import atomic_path

DONE = "DONE"
WEIGHTS = "model.safetensors"
CARD = "README.md"
"""The model card: written again when the run has been scored, so DONE does not hold its size."""
WRITTEN = (*CHECKPOINT, DONE, "config.yaml", "manifest.json", "log.jsonl", "training_args.bin",
           "scores/*.parquet", "weak_labels/*.parquet", ".*.partial", "scores/.*.partial",
           "weak_labels/.*.partial")
"""What a run's folder holds, beside our mark and the two folders below."""
RESUME = "resume"
"""Folder of the trainer's own checkpoints, removed when the run is done."""
CURVES = "tensorboard"
"""Folder of TensorBoard's event files, kept."""


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's keys and values, or None where there is no file or not a whole one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def holds_meta(key: str) -> Callable[[Path], bool]:
    """Whether a folder has a meta.json of ours, which says `key`."""
    def holds(folder: Path) -> bool:
        meta = read_json(folder / "meta.json")
        return meta is not None and key in meta
    return holds


def write_table(path: Path, table: pd.DataFrame, inputs: dict[str, str]) -> None:
    """A parquet file that carries in itself the hashes of what it was made from."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), b"inputs": json.dumps(inputs).encode()}
    with atomic_path(path) as partial:
        pq.write_table(arrow.replace_schema_metadata(metadata), partial)


def read_table(path: Path, inputs: dict[str, str]) -> pd.DataFrame | None:
    """The table if it is whole and was made from `inputs`, otherwise None: make it again."""
    try:
        arrow = pq.read_table(path)
        made_from = json.loads((arrow.schema.metadata or {}).get(b"inputs", b"null"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return None
    return arrow.to_pandas() if made_from == inputs else None


def mark_done(folder: Path, identity: str) -> None:
    """Write DONE over the sizes of the files in `folder` itself. Call it last."""
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())
             if p.is_file() and not p.name.startswith(".") and p.name not in (DONE, CARD)}
    write_json(folder / DONE, {"identity": identity, "files": sizes})


def is_done(folder: Path, identity: str) -> bool:
    """Whether `folder` holds the whole finished run `identity`: DONE fits, all files as long."""
    done = read_json(folder / DONE)
    if done is None or done.get("identity") != identity:
        return False
    files = done.get("files")
    return isinstance(files, dict) and WEIGHTS in files and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in files.items() if name != CARD)


def find_finished(runs_dir: Path, stage: str, identity: str) -> Path | None:
    """The finished run `identity` under any experiment: grids share what they have in common."""
    candidates = sorted(runs_dir.glob(f"*/{stage}/*-{identity[:8]}"))
    return next((folder for folder in candidates if is_done(folder, identity)), None)


def clear_unfinished(folder: Path) -> None:
    """Remove what a stopped run left, except the checkpoints it resumes from and its curves."""
    clear(folder, WRITTEN, keep=(RESUME, CURVES))


def require_space(folder: Path) -> None:
    """Raise OSError if the disk of `folder` is full: torch and safetensors report that as anything
    but an OSError."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def newest_checkpoint(folder: Path, world_size: int) -> Path | None:
    """The newest checkpoint of the run in `folder` that is whole, or None."""
    return newest_whole(folder / RESUME, world_size)


def newest_whole(checkpoints: Path, world_size: int) -> Path | None:
    """The newest of the trainer's checkpoints in a folder that is whole, or None.

    The trainer's own choice is the highest number, whole or not, and it resumes silently wrong when
    the optimiser or a rank's random state is missing. Whole means: trainer_state.json (written
    last by the main process) parses; for each of exactly `world_size` ranks there is a random
    state, and under DeepSpeed a share of the optimiser and `latest`; none of it is cut short. The
    best checkpoint that it names, which early stopping ends with, must be whole as well.
    """
    def is_whole(checkpoint: Path) -> bool:
        state = read_json(checkpoint / "trainer_state.json")
        optimizers = len(list(checkpoint.glob("global_step*/*optim_states.pt")))
        if (checkpoint / "optimizer.pt").is_file():
            sound = optimizers == 0
        else:
            sound = optimizers == world_size and (checkpoint / "latest").is_file()
        files = [*checkpoint.rglob("*.pt"), *checkpoint.glob("*.pth")]
        best = checkpoint.with_name(f"checkpoint-{(state or {}).get('best_global_step')}")
        return (sound and state is not None
                and (state.get("best_global_step") is None or best == checkpoint or is_whole(best))
                and len(list(checkpoint.glob("rng_state*.pth"))) == world_size
                and all(map(zipfile.is_zipfile, files)))  # torch.save's format, ends in an index

    found = [p for p in checkpoints.glob("checkpoint-*") if p.name[11:].isdigit()]
    whole = [p for p in sorted(found, key=lambda p: int(p.name[11:])) if is_whole(p)]
    return whole[-1] if whole else None


def require_finished(runs_dir: Path, stage: str, identity: str, name: str, remedy: str) -> Path:
    """The folder of a run that must be done by now; UserError naming it and `remedy` otherwise."""
    folder = find_finished(runs_dir, stage, identity)
    if folder is None:
        raise UserError(f"{stage} run {name}-{identity[:8]} is not finished: {remedy}")
    return folder


def commit() -> str:
    """The repository's commit, with `+` where files other than results differ; or `unknown`."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=REPO_ROOT, capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "-uno", "--", ":!results")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
