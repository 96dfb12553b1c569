"""The one error a person may cause, and how every command ends when it happens.

Knows nothing of data, models or training: any file may import it.
"""

import os
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2


class UserError(ValueError):
    """A mistake in config, data or arguments; in one line the value, expectation, the remedy."""


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
    except UserError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except OSError as error:
        if debug or error.errno not in (28, 122):  # ENOSPC, EDQUOT
            raise
        print(f"error: no space left writing {error.filename or 'a file'}: free some and run the "
              "same command again, finished work is kept", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("stopped: run the same command again to go on from here", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader (head, less) has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
