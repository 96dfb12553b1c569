"""The one error a person may cause, and how every command ends when it happens.

Knows nothing of data, models or training: any file may import it.
"""

import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

EXIT_USER_ERROR = 2
PATH_ERRORS = {
    errno.ENAMETOOLONG: "too long for a path", errno.EEXIST: "is a file where a folder is meant",
    errno.ENOTDIR: "a part of this path is a file where a folder is meant",
    errno.EISDIR: "is a folder where a file is meant", errno.EACCES: "may not be read or written",
    errno.EPERM: "may not be read or written", errno.EROFS: "is on a disk that cannot be written",
    errno.ELOOP: "its links lead in a circle"}
"""What the file system answers to a path that a person gave, and what that means."""
MOST_CHARS = 1_500
"""Of the line that tells an error: a value in it may be as long as a file."""


class UserError(ValueError):
    """A mistake in config, data or arguments; in one line the value, expectation, the remedy."""


@contextmanager
def reading(what: object, remedy: str) -> Iterator[None]:
    """Around the few lines in which a library takes a person's file: whatever it raises there is
    about that file, and becomes a UserError.

    Libraries check little of what they read, and raise what Python does on the way: TypeError,
    KeyError, ZeroDivisionError, even AssertionError. Keep code of our own out of the block.

    Args:
        what: the file, or the part of it.
        remedy: what to do about it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: not readable ({type(error).__name__}: {error}): "
                        f"{remedy}") from error


def _told(error: OSError) -> str:
    """What a person can do about what the file system answers; empty where that is unknown."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f"no space left writing {error.filename or 'a file'}: free some and run the same "
                "command again, finished work is kept")
    if error.errno in PATH_ERRORS and error.filename is not None:
        return f"{error.filename}: {PATH_ERRORS[error.errno]}: give another path"
    return ""


def one_line(error: Exception | str) -> str:
    """What an error says, in a line that any terminal can print; the middle of a long one is left
    out."""
    line = " ".join(str(error).split()) or type(error).__name__
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    if len(line) > MOST_CHARS:
        line = f"{line[:MOST_CHARS // 2]} [...] {line[-MOST_CHARS // 3:]}"
    return line


def _is_read(stream: TextIO) -> bool:
    """Whether somebody is left to tell: head and less go before the end."""
    look = select.poll()
    look.register(stream.fileno(), select.POLLOUT)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0))


def _tell(line: str) -> None:
    """A line of stderr of its own, also below progress bars that were left unfinished."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)  # Ctrl-C may come while it is imported
    for bar in list(getattr(bars, "_instances", ())):
        bar.close()
    print(line, file=sys.stderr)


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: 0 or what `main` returns; 2 and one line on a UserError.

    `--debug` anywhere on the command line gives the traceback instead of the one line. A full disk
    is a person's to mend as well, so it ends the same way.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        if debug:
            raise
        _tell(f"error: {one_line(error)}")
        code = EXIT_USER_ERROR
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        told = _told(error)
        if debug or not told:
            raise
        _tell(f"error: {one_line(told)}")
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        _tell("stopped: run the same command again to go on from here")
        code = 130
    sys.exit(code)
