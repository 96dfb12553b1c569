"""One launch at a time in a folder or at a file, and nothing left over of one that was killed.

The lock is the kernel's (flock, through the library filelock), which drops it when its holder dies:
processes that the holder has forked do not keep it. On some network disks flock is refused, or is
granted to everybody at once; there a file that exists or not stands for the lock.
"""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

PARTIAL = re.compile(r"\.\d+(-[0-9a-f]{8})?\.partial$")
"""How the names of src.common.files.atomic_path end, and ended before two machines could share a
disk."""
SUFFIXES = (".lock", ".softlock")
"""Of the kernel's lock, and of the file that stands for one."""
POLL_SECONDS = 0.5
LOOK_SECONDS = 0.05
"""More than `is_held` keeps a lock for, which is no launch at work."""
TRIES = 3
"""Until a lock counts as one that does not hold: once may be a file that its last holder removed
while we had it open, which a network disk keeps under another name."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a disk without locks answers."""
_disks_without_locks: set[int] = set()


def is_held(folder: Path) -> bool:
    """Whether a launch is at work on a folder or file: at this moment, and without waiting."""
    path = _file_of(folder)
    if path.with_suffix(SUFFIXES[1]).exists():
        return True
    return _is_refused(path)


def is_marked(folder: Path) -> bool:
    """Whether a lock's file is there: it is held at this moment, or was left by a killed launch and
    goes with the next lock."""
    return _file_of(folder).exists()


def quiet(text: str) -> None:
    """Say nothing: for locks that are only held for moments."""


@contextmanager
def lock(folder: Path, tell: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a folder or file for this process; wait, and say so, while another launch holds it.

    A killed launch never blocks the next one on its machine; what it had half-written of a file
    that is locked is removed.

    Raises:
        OSError: no file can be made beside `folder`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _file_of(folder)
    path.touch()  # where no file can be made, filelock would wait for one for ever
    held = _held(path, lambda: tell(f"{folder.name}: another launch is at work on it, waiting"))
    try:
        _remove_partials(folder.parent, folder.name)
        yield
    finally:
        if held.is_locked:  # not in a process that was forked meanwhile
            path.unlink(missing_ok=True)  # while it is ours: who waits for it looks again
            held.release()


def name_under_lock(path: Path) -> str:
    """What the lock whose file is `path` is for; of a file that is no lock, its own name."""
    for suffix in SUFFIXES:
        if path.name.startswith(".") and path.name.endswith(suffix):
            return path.name[1:].removesuffix(suffix)
    return path.name


def clear_partials(folder: Path) -> None:
    """Remove what a killed holder of its lock had half-written in `folder`, which must be ours."""
    _remove_partials(folder)
    _remove_partials(folder / "figures")


def _remove_partials(folder: Path, name: str | None = None) -> None:
    """Those of the file called `name`, or of all."""
    for path in folder.glob(".*.partial"):
        target, found = PARTIAL.subn("", path.name)
        if found and name in (None, target.removeprefix(".")):
            path.unlink(missing_ok=True)  # another launch may have removed it


def _file_of(folder: Path) -> Path:
    """The file of the kernel's lock on a folder or file, beside it."""
    return folder.with_name(f".{folder.name}{SUFFIXES[0]}")


def _held(path: Path, tell: Callable[[], None]) -> BaseFileLock:
    """The lock at `path` once it is this process's; `tell` is called if that takes time."""
    disk = path.parent.stat().st_dev
    if disk not in _disks_without_locks:
        kernels = _held_by_kernel(path, tell)
        if kernels is not None:
            return kernels
        _disks_without_locks.add(disk)
        print(f"{path.parent}: this disk has no locks, or gives one to two at once. Files called "
              f".*{SUFFIXES[1]} stand for them: remove one by hand if a launch that was killed on "
              "another machine left it and is waited for", file=sys.stderr, flush=True)
    path.unlink(missing_ok=True)
    return _wait_for(SoftFileLock(path.with_suffix(SUFFIXES[1])), tell)


def _held_by_kernel(path: Path, tell: Callable[[], None]) -> FileLock | None:
    """The kernel's lock on the file; None where it does not keep others out."""
    for _ in range(TRIES):
        opened: list[os.stat_result] = []
        mine = FileLock(path, fallback_to_soft=False,
                        on_acquired=lambda file, to=opened: to.append(os.fstat(file)))
        try:
            _wait_for(mine, tell)
            if _is_refused(path) and _is_at(opened[0], path):
                return mine
        except OSError as error:
            mine.release()
            if error.errno not in NO_LOCKS:
                raise
            return None
        mine.release()
    return None


def _is_refused(path: Path) -> bool:
    """Whether another handle on a file is kept out; where there is no file, or the disk has no
    locks, it is not. The library would make the file."""
    try:
        file = os.open(path, os.O_RDWR)  # some network disks give no lock on less
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, *NO_LOCKS):
            raise
        return error.errno == errno.EWOULDBLOCK
    finally:
        os.close(file)
    return False


def _is_at(file: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(file, path.stat())
    except FileNotFoundError:
        return False


def _wait_for(lock: BaseFileLock, tell: Callable[[], None]) -> BaseFileLock:
    try:
        lock.acquire(timeout=LOOK_SECONDS, poll_interval=LOOK_SECONDS / 5)
    except Timeout:
        tell()
        lock.acquire(poll_interval=POLL_SECONDS)
    return lock
