"""Files that are whole or not there: text and JSON. Standard library only."""

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.common.errors import UserError

REPO_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block ends without an error.

    A full disk is told by the name of `path`: what raises it when it writes, knows no name.
    """
    if not path.name or path.is_dir():
        raise UserError(f"{path}: is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # machines that share a disk share numbers
    partial = path.with_name(f".{path.name}.{unique}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


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


def require_space(folder: Path) -> None:
    """Raise OSError if the disk of `folder` is full: torch and safetensors report that as anything
    but an OSError."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
