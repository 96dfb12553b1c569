"""Run folders: where a run lives, when it counts as finished, and how nothing half-written is read.

    runs/<experiment>/<stage>/<name>-<hash8>/    DONE is written last, with every other file's size

A folder without a DONE that fits it is unfinished work: it may hold checkpoints to resume from, and
is never trusted for anything else.
"""

import shutil
from pathlib import Path

from configs.run import RunConfig
from configs.strict_yaml import from_dict, read_yaml
from src.common.checkpoints import newest_whole
from src.common.errors import UserError
from src.common.files import read_json, write_json
from src.common.owned import CHECKPOINT, clear
from src.runs.freed import FREED, freed_files

DONE = "DONE"
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
"""Of a model above 50 GB, which is saved in several files."""
CARD = "README.md"
"""The model card: written again when the run has been scored, so DONE does not hold its size."""
WRITTEN = (*CHECKPOINT, DONE, FREED, "config.yaml", "manifest.json", "log.jsonl", "recipe.yaml",
           "training_args.bin", "adapter/*", "scores/*.parquet", "weak_labels/*.parquet",
           "answers/*.parquet", ".*.partial", "adapter/.*.partial", "scores/.*.partial",
           "weak_labels/.*.partial", "answers/.*.partial")
"""What a run's folder holds, beside our mark and the folders RESUME and CURVES."""
ADAPTER = "adapter"
"""Folder of the adapters that are merged into the weights of a run with `train.lora`, in peft's
form."""
RESUME = "resume"
"""Folder of the trainer's own checkpoints, removed once the run is done."""
CURVES = "tensorboard"
"""Folder of TensorBoard's event files, kept."""


def folder_of(run: RunConfig, runs_dir: Path) -> Path:
    """Where a run that trains here is put; one that another experiment has finished lies there."""
    return runs_dir / run.experiment / run.stage / run.folder_name


def mark_done(folder: Path, identity: str) -> None:
    """Write DONE over the sizes of the files in `folder` itself. Call it last."""
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())
             if p.is_file() and not p.name.startswith(".") and p.name not in (DONE, CARD)}
    write_json(folder / DONE, {"identity": identity, "files": sizes})


def is_done(folder: Path, identity: str) -> bool:
    """Whether `folder` holds the whole finished run `identity`: DONE fits, all files as long, or
    freed since."""
    done = read_json(folder / DONE)
    if done is None or done.get("identity") != identity:
        return False
    files = done.get("files")
    if not isinstance(files, dict) or not files.keys() & {WEIGHTS, SHARDS}:
        return False
    found = {name: _bytes_of(folder / name) for name in files if name != CARD}
    freed = freed_files(folder, identity)  # after that look: it is written before a file goes
    return all(files[name] == (freed.get(name) if size is None else size)
               for name, size in found.items())


def _bytes_of(file: Path) -> int | None:
    """None where there is no such file."""
    try:
        return file.stat().st_size if file.is_file() else None
    except FileNotFoundError:  # between the two
        return None


def find_finished(runs_dir: Path, stage: str, identity: str) -> Path | None:
    """The finished run `identity` under any experiment: grids share what they have in common."""
    candidates = sorted(runs_dir.glob(f"*/{stage}/*-{identity[:8]}"))
    return next((folder for folder in candidates if is_done(folder, identity)), None)


def clear_unfinished(folder: Path) -> None:
    """Remove what a stopped run left, except the checkpoints it resumes from and its curves."""
    clear(folder, WRITTEN, keep=(RESUME, CURVES))


def remove_checkpoints(folder: Path) -> None:
    """Remove what the run in `folder` would resume from."""
    shutil.rmtree(folder / RESUME, ignore_errors=True)


def newest_checkpoint(folder: Path, world_size: int) -> Path | None:
    """The newest checkpoint of the run in `folder` that is whole, or None."""
    return newest_whole(folder / RESUME, world_size)


def read_run_config(folder: Path) -> RunConfig:
    """The config of the run that made `folder`, an old one's too: what is its kind was its role,
    and what is fp32 could be `auto`.

    Raises:
        UserError: the file cannot be read, or is no run's.
    """
    path = folder / "config.yaml"
    values = read_yaml(path)
    if "role" in values:
        values["kind"] = values.pop("role")
    if isinstance(values.get("train"), dict) and values["train"].get("precision") == "auto":
        values["train"]["precision"] = "fp32"
    return from_dict(RunConfig, values, str(path))


def read_run(folder: Path) -> RunConfig | None:
    """The finished run that made `folder`; None for a checkpoint from elsewhere.

    Raises:
        UserError: it is not finished, or its files are others than it wrote.
    """
    if not (folder / "config.yaml").is_file():
        return None
    run = read_run_config(folder)
    if not is_done(folder, run.identity):
        raise UserError(f"{folder}: the run is not finished, or its files are not those that "
                        f"{DONE} names: run its script again")
    return run


def require_finished(runs_dir: Path, stage: str, identity: str, name: str, remedy: str) -> Path:
    """The folder of a run that must be done by now; UserError naming it and `remedy` otherwise."""
    folder = find_finished(runs_dir, stage, identity)
    if folder is None:
        raise UserError(f"{stage} run {name}-{identity[:8]} is not finished: {remedy}")
    return folder


