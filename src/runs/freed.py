"""Weights that were freed to save disk: what a run's folder says of them once they are gone.

    freed.json    identity, fingerprint of the weights, size of each file that went

It is written whole before the first file goes, so that a command that was killed on the way leaves
a run that counts as finished and whose weights count as freed; the next one removes the rest.
"""

from pathlib import Path
from typing import Any

from model.base.weights import weights_fingerprint
from src.common.errors import UserError
from src.common.files import read_json, write_json

FREED = "freed.json"
WEIGHT_FILES = ("model*.safetensors", "model.safetensors.index.json")
"""A saved model, whole or in shards; adapters that were merged into it stay beside it."""


def free_weights(folder: Path, identity: str) -> int:
    """Remove the weights of the finished run `identity`; returns the bytes that were freed. Call it
    under the run's lock."""
    files = _weight_files(folder)
    if _freed(folder) is None:
        write_json(folder / FREED, {"identity": identity, "weights": weights_fingerprint(folder),
                                    "files": {file.name: file.stat().st_size for file in files}})
    total = weight_bytes(folder)
    for file in files:
        file.unlink()
    return total


def weight_bytes(folder: Path) -> int:
    """What the weights in a run's folder take on disk."""
    return sum(file.stat().st_size for file in _weight_files(folder))


def run_fingerprint(folder: Path) -> str:
    """The fingerprint of the weights that a run ended with, freed or not: what scores and labels
    made with them are known by."""
    freed = _freed(folder)
    return weights_fingerprint(folder) if freed is None else freed["weights"]


def is_freed(folder: Path) -> bool:
    """Whether the weights of the run in `folder` were freed."""
    return _freed(folder) is not None


def freed_files(folder: Path, identity: str) -> dict[str, int]:
    """Name -> bytes of the files of the run `identity` that may be gone from `folder`."""
    freed = _freed(folder)
    return freed["files"] if freed is not None and freed["identity"] == identity else {}


def require_weights(folder: Path) -> None:
    """Raise UserError where the weights of the run in `folder` were freed."""
    if is_freed(folder):
        raise UserError(f"{folder}: its weights were freed once it had been scored ({FREED}), and "
                        "this needs them: delete the folder and train the run again")


def _weight_files(folder: Path) -> list[Path]:
    return sorted(file for pattern in WEIGHT_FILES for file in folder.glob(pattern))


def _freed(folder: Path) -> dict[str, Any] | None:
    freed = read_json(folder / FREED)
    whole = freed is not None and isinstance(freed.get("files"), dict) and all(
        isinstance(freed.get(key), str) for key in ("identity", "weights"))
    return freed if whole else None
