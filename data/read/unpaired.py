"""Rows of one answer and whether it is a good one, as KTO takes them; and their way to each other.

Rows of a prompt stand anywhere in such a file: where it was made of pairs, a thousand chosen
answers come first, then the rejected ones.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from configs.schema import DataConfig
from data.files.raw_arrow import meaning
from data.read.answers import Answers, grouped
from data.read.fields import Row, answer_text, lookup, need, prompt
from data.read.messages import BadRow, message_list, messages_in
from data.records import Message
from src.common.errors import UserError
from src.common.hashing import content_hash

LABELS = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
"""What a label is called, in lower case, and the value of such an answer."""
BATCH = 1_000


def has_unpaired(row: Row, keys: dict[str, str]) -> bool:
    """Whether a row that is no pair has the columns of this form."""
    label = lookup(row, "label", keys)
    if lookup(row, "completion", keys) is None:
        return isinstance(label, bool) and row.get("messages") is not None
    return str(meaning(label)).lower() in LABELS and (
        lookup(row, "prompt", keys) is not None or row.get("messages") is not None)


def unpaired_parts(row: Row,
                   config: DataConfig) -> tuple[list[Message], list[str], list[float], list[float]]:
    """The prompt, the answer and its label: 1 for a good one, 0 for a bad one.

    The answer is the completion, or where there is none the last of the messages.
    """
    value = LABELS.get(str(meaning(need(row, "label", config.keys))).lower())
    if value is None:
        raise BadRow("label is neither true nor false")
    messages = _question(row, config)
    completion: Any = lookup(row, "completion", config.keys)
    if completion is None:
        if not messages or messages[-1]["role"] != "assistant":
            raise BadRow("last turn is not the assistant's")
        completion = messages.pop()["content"]
    return messages, [answer_text(completion, "completion")], [value], []


def _question(row: Row, config: DataConfig) -> list[Message]:
    talk = row.get("messages")
    if config.template or talk is None or lookup(row, "prompt", config.keys) is not None:
        return prompt(row, config.keys, config.template.get("prompt", ""))
    return message_list(messages_in(talk, "messages") if isinstance(talk, str) else talk,
                        "messages")


def grouped_by_prompt(rows: Iterator[tuple[int, Answers | str]]) -> Iterator[
        tuple[int, Answers | str]]:
    """Numbered rows of one answer each -> the answers of every prompt, in the order of their first
    rows and numbered as these are. Reasons come first, as they are read.

    Rows wait in a database of SQLite's on disk, which is gone when it is closed: memory does not
    grow with the file. Raises UserError where the disk has no room for it.
    """
    try:
        db = sqlite3.connect("")  # a file without a name, in TMPDIR
        try:
            db.execute("CREATE TABLE rows (prompt TEXT, number INTEGER, answers TEXT)")
            yield from _stored(db, rows)
            yield from grouped((number, _read(answers)) for number, answers in db.execute(
                "SELECT number, answers FROM rows JOIN (SELECT prompt AS asked, MIN(number) AS "
                "first FROM rows GROUP BY prompt) ON prompt = asked ORDER BY first, number"))
        finally:
            db.close()
    except sqlite3.Error as error:
        raise UserError(f"cannot sort rows by prompt on disk: {error}: set TMPDIR to a folder with "
                        "as much room as the file takes") from error


def _stored(db: sqlite3.Connection,
            rows: Iterator[tuple[int, Answers | str]]) -> Iterator[tuple[int, str]]:
    """Store the answers; the reasons of rows that have none."""
    waiting = []
    for number, item in rows:
        if isinstance(item, str):
            yield number, item
            continue
        asked = content_hash([[turn["role"], turn["content"]] for turn in item.prompt])
        waiting.append((asked, number, json.dumps(dataclasses.asdict(item))))
        if len(waiting) == BATCH:
            db.executemany("INSERT INTO rows VALUES (?, ?, ?)", waiting)
            waiting = []
    db.executemany("INSERT INTO rows VALUES (?, ?, ?)", waiting)


def _read(stored: str) -> Answers:
    return Answers(**{name: tuple(value) if isinstance(value, list) else value
                      for name, value in json.loads(stored).items()})
