"""What is worth telling of rows that are used: what was left out, or read as something else.

Such rows are counted under a few words each, as bad rows are under their reasons.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.schema import DataConfig
from data.files.serialised import parsed
from data.read.fields import COMPARED, Row, column, is_open_transcript, lookup
from data.read.messages import is_nothing, unused_parts
from data.read.system_column import READ, is_used, system_column
from data.records import Message

MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "tools")
"""Columns beside the texts that a conversation may depend on."""
TRUE_OR_FALSE = "an answer that is true or false, taken as that word"
AS_LIST = "a text that is written as a list of texts, taken as it is"
AS_JSON = "{} in quotes, as JSON writes a text, taken as it is"
"""So datasets' to_csv and pandas write out a column of type Json; where one side alone is noted,
its quotes tell it from the other."""
_LIST_OF_TEXTS = re.compile(r"""\[\s*["'].*["']\s*\]""", re.DOTALL)
OPEN_TRANSCRIPT = "a prompt that is a transcript without a last Assistant:, taken as one text"


def row_notes(row: Row, config: DataConfig, prompt: Sequence[Message],
              names: Sequence[str] = COMPARED) -> tuple[str, ...]:
    """The notes on a row, none twice.

    Args:
        row: as data.read.fields.opened gives it for our columns `names`.
        prompt: what it was read as.
    """
    notes = {f"column {name} left out" for name in MEDIA_COLUMNS
             if not is_nothing(row.get(name)) and not is_used(name, config)}
    if name := system_column(row, config):
        notes.add(READ.format(name))
    for name, value in _spoken(row, config, names):
        if isinstance(value, bool):
            notes.add(TRUE_OR_FALSE)
        elif isinstance(value, str):
            if config.form != "lists" and _LIST_OF_TEXTS.fullmatch(value):
                notes.add(AS_LIST)
            elif is_json_text(value):
                notes.add(AS_JSON.format(name))
        elif value is not None:
            notes.update(f"{part} of a message left out" for part in unused_parts(value))
    if is_open_transcript(prompt[-1]["content"]):
        notes.add(OPEN_TRANSCRIPT)
    return tuple(sorted(notes))


def is_json_text(words: str) -> bool:
    """Whether a text is a JSON text, quotes included."""
    return words[:1] == words[-1:] == '"' and isinstance(parsed(words), str)


def _spoken(row: Row, config: DataConfig, names: Sequence[str]) -> Iterator[
        tuple[str, Any]]:
    """What a row's columns hold of its conversations, lists of answers item by item, with the
    column's name."""
    values = [(name, lookup(row, name, config.keys)) for name in names
              if name in config.keys or name not in config.keys.values()]
    for name, value in (*values, *((name, column(row, name)) for name in config.columns)):
        if value is None:
            continue
        yield name, value
        if isinstance(value, list):
            for item in value:
                yield name, (lookup(item, "answer", config.keys) if isinstance(item, Mapping)
                             else item)
