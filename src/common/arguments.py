"""The command line of every command: a mistake in it is one line, told before anything is loaded.

A command's module imports what takes seconds (torch, transformers) inside its main, after its
arguments are read.
"""

import argparse
import sys
from typing import NoReturn

from src.common.errors import UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are UserErrors, with their remedy."""

    def parse_known_args(self, args=None, namespace=None):
        """The library's own; an argument that is no text, as a path may be, goes no further: many
        libraries cannot take it."""
        for word in sys.argv[1:] if args is None else args:
            try:
                str(word).encode()
            except UnicodeEncodeError:
                self.error(f"argument {word!r} is not UTF-8: rename the file")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")
