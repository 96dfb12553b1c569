"""Tables for the terminal: aligned text, the same in a pipe and in a file."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 1000


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1,
                numbers_left: bool = False, width: int = WIDEST) -> list[str]:
    """The table's lines, columns two spaces apart.

    Args:
        words: how many columns hold names, which may be cut to keep a line within `width`; those
            after them hold numbers, which never are.
        numbers_left: whether numbers begin below each other, and do not end so.
    """
    longest = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    while sum(longest) + 2 * (len(longest) - 1) > width and max(longest[:words]) > 4:
        widest = max(range(words), key=lambda column: longest[column])
        longest[widest] -= 1
    rows = [[_cut(cell, size) for cell, size in zip(row, longest, strict=True)] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for column, (name, size) in enumerate(zip(header, longest, strict=True)):
        justify = "left" if column < words or numbers_left else "right"
        table.add_column(Text(name), justify=justify, width=size, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as text: rich reads [0.1, 0.2] as a style
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def _cut(text: str, width: int) -> str:
    """A text without its middle: rungs of one model differ at the end."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return f"{text[:head]}..{text[len(text) - (width - 2 - head):]}"
