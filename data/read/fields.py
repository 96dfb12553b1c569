"""The values in a raw row: a column by our name for it, as text, number, messages or template.

A value that is not there or of the wrong kind raises BadRow. Knows no form.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.files.serialised import parsed_list
from data.read.messages import BadRow, message_list, messages_in, turns, wrong_type
from data.records import Message

COLUMNS = ("prompt", "system", "chosen", "rejected", "response_a", "response_b", "score_a",
           "score_b", "score_chosen", "score_rejected", "answers", "answer", "score", "rank",
           "better", "completion", "label", "subset", "difficulty", "id", "fen", "moves")
"""Our column names: what `keys` of a data config may map to the file's own."""

Row = Mapping[str, Any]
Keys = Mapping[str, str]

COMPARED = ("prompt", "chosen", "rejected", "response_a", "response_b", "answer", "answers",
            "completion")
"""Columns of rows that compare answers which may hold messages, or a text that holds them."""
SCORED = ("prompt", "messages", "conversations", "response", "responses")
"""Those of rows that are only scored."""
LISTS = ("answers", "responses")
"""Columns that hold several answers."""
NO_SCORE = (None, "", "N/A")
"""What a source writes where a score is missing."""
_BRACES = re.compile(r"\{([^{}]+)\}")


def column(row: Row, name: str) -> Any:
    """The value of the file's column `name`, None where there is none; `a.b` is b inside a."""
    if name in row or "." not in name:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def lookup(row: Row, name: str, keys: Keys) -> Any:
    """The value of our column `name`, None where there is none.

    A prompt that `keys` does not name may stand in a column `conversations`, as ShareGPT calls it.
    """
    named = keys.get(name, name)
    value = row[named] if named in row else column(row, named)
    return row.get("conversations") if value is None and name == "prompt" and (
        name not in keys) else value


def opened(row: Row, keys: Keys, names: Sequence[str] = COMPARED) -> Row:
    """The row, with messages in place of every text of our columns `names` that holds them, see
    messages_in; and with a list in place of a text of LISTS that holds one."""
    found = {}
    for name in names:
        value = lookup(row, name, keys)
        if not isinstance(value, str):
            continue
        inside = parsed_list(value) if name in LISTS else messages_in(value, name)
        if inside is not None:
            found[keys.get(name, name)] = inside
    return {**row, **found} if found else row


def need(row: Row, name: str, keys: Keys) -> Any:
    """The value of our column `name`; BadRow where there is none."""
    value = lookup(row, name, keys)
    if value is None:
        raise BadRow(f"missing key {name}")
    return value


def text(row: Row, name: str, keys: Keys) -> str:
    """The text in our column `name`."""
    return as_text(need(row, name, keys), name)


def as_text(value: Any, name: str) -> str:
    """`value` where it is a text; BadRow, which calls it `name`, where it is something else.

    NaN is an empty text: so pandas writes one.
    """
    if isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        raise wrong_type(value, name)
    return value


def answer_text(value: Any, name: str) -> str:
    """The text of an answer: a text, a message, or a list of one message of the assistant's; or a
    text that holds these. True and false are the words that JSON has for them."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        value = messages_in(value, name) or value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return as_text(value, name)
    messages = message_list(value, name)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadRow(f"{name} is not one message of the assistant's")
    return messages[0]["content"]


def number(value: Any, name: str) -> float:
    """A finite number, or a text that holds one; BadRow calls it `name`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise wrong_type(value, name)
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise BadRow(f"wrong type of {name}") from None
    if not math.isfinite(found):
        raise BadRow(f"{name} is not a finite number")
    return found


def optional_text(row: Row, name: str, keys: Keys) -> str:
    """A column that may be missing, as text; numbers are written out."""
    value = lookup(row, name, keys)
    return "" if value is None else _written(value, name)


def filled(template: str, row: Row, answer: str | None = None) -> str:
    """`template` with every `{column}` replaced by the row's value, and {answer} by `answer`.

    One pass: braces inside a value are left as they are. White space around the result is removed,
    so that an optional last column leaves none behind.
    """
    def value(match: re.Match) -> str:
        if match[1] == "answer" and answer is not None:
            return answer
        found = column(row, match[1])
        if found is None:
            raise BadRow(f"missing key {match[1]}")
        return _written(found, match[1])

    return _BRACES.sub(value, template).strip()


def prompt(row: Row, keys: Keys, template: str = "") -> list[Message]:
    """The messages up to the answer: a message list, a transcript, or one text of the user's."""
    if template:
        return [{"role": "user", "content": filled(template, row)}]
    value = need(row, "prompt", keys)
    if isinstance(value, list):
        return message_list(value, "prompt")
    words = as_text(value, "prompt")
    if words.lstrip().startswith("Human:") and not is_open_transcript(words):
        return turns(words)[:-1]
    return [{"role": "user", "content": words}]


def is_open_transcript(words: str) -> bool:
    """Whether a text is a transcript that does not end with the turn to be answered."""
    return words.lstrip().startswith("Human:") and not words.rstrip().endswith("\n\nAssistant:")


def _written(value: Any, name: str) -> str:
    if not isinstance(value, (str, int, float)):
        raise BadRow(f"wrong type of {name}")
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a table with holes in it holds its whole numbers as floats
    return str(value)
