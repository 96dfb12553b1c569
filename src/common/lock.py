"""One launch at a time in a folder or at a file, and nothing left over of one that was killed."""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = re.compile(r"\.\d+(-[0-9a-f]{8})?\.partial$")
"""How the names of data.manifest.atomic_path end, and ended before two machines could share a disk.
"""


def quiet(text: str) -> None:
    """Say nothing: for locks that are only held for moments."""


@contextmanager
def lock(folder: Path, tell: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a folder or file for this process; wait, and say so, while another launch holds it.

    The kernel drops the lock when its holder dies, so a killed launch never blocks the next one;
    what it had half-written of a file that is locked is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with _locked(path, lambda: tell(f"{folder.name}: another launch is at work on it, waiting")):
        try:
            _remove_partials(folder.parent, folder.name)
            yield
        finally:
            path.unlink(missing_ok=True)


def clear_partials(folder: Path) -> None:
    """Remove what a killed holder of its lock had half-written in `folder`, which must be ours."""
    _remove_partials(folder)
    _remove_partials(folder / "figures")


def _remove_partials(folder: Path, name: str | None = None) -> None:
    """Those of the file called `name`, or of all."""
    for path in folder.glob(".*.partial"):
        target, found = PARTIAL.subn("", path.name)
        if found and name in (None, target.removeprefix(".")):
            path.unlink()


def _locked(path: Path, tell: Callable[[], None]) -> IO:
    """The open file at `path` once it is this process's; `tell` is called if that takes time."""
    told = False
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            if not told:
                tell()
                told = True
            time.sleep(0.5)
        file.close()  # and opened again: its last holder removes it


def _is_at(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
