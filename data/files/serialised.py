"""Text that holds a list or a record: JSON, or what Python and numpy print.

So csv files carry columns of lists (pandas writes str() of them), and text columns of other files
JSON. Nothing is run: ast.literal_eval takes literals alone.
"""

import ast
import json
import re
import warnings
from typing import Any

MAX_CHARS = 1 << 20
"""A quarter of a million tokens; a text that is longer is not looked into."""
_PRINTED = re.compile(
    r"""(?P<string>'(?:[^'\\]++|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))"""
    r"""|(?P<gap>(?<=})\s+(?={)|(?<=['"])\s+(?=['"]))"""
    r"""|(?P<array>\barray\(|,\s*dtype=object\))"""
    r"""|(?P<nan>\bnan\b)""", re.DOTALL)
"""What numpy and pandas print that is no literal; strings are matched to be stepped over."""
_INSTEAD = {"gap": ", ", "array": "", "nan": "None"}


def parsed(text: str) -> Any:
    """What a text holds as JSON, or as Python or numpy print it; None where it is neither.

    numpy sets no commas between the items of an array of objects: they go where a record or a
    string is followed by another with nothing but white space between, which means nothing else.
    """
    if len(text) > MAX_CHARS:
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a bad escape is no literal, and nothing to print
            return ast.literal_eval(_PRINTED.sub(_literal, text.strip()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def parsed_list(text: str) -> list[Any] | None:
    """The list that a text holds, None where it holds none."""
    value = parsed(text) if text.lstrip().startswith("[") else None
    return value if isinstance(value, list) else None


def _literal(match: re.Match) -> str:
    return match[0] if match.lastgroup == "string" else _INSTEAD[match.lastgroup]
