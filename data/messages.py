"""Conversations in a raw row: lists of messages, and transcripts.

What cannot be used raises BadRow. Knows no column and no form.
"""

import re
from typing import Any

from data.records import ROLES, Message
from data.serialised import parsed

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_TURN_ROLES = {"Human": "user", "Assistant": "assistant"}


_CLAIMS = re.compile(r"""\s*(?:\[\s*\{|\{\s*(['"])(?:role|content|from|value)\1\s*:)""")
_MESSAGE_KEYS = (("role", "content"), ("from", "value"))


class BadRow(Exception):
    """A row that cannot be used; the message is the reason it is counted under, from a small fixed
    set."""


def message_list(value: Any, name: str) -> list[Message]:
    """A list of messages, other keys than role and content left out."""
    if not isinstance(value, list):
        raise BadRow(f"wrong type of {name}")
    messages = []
    for message in value:
        if not isinstance(message, dict):
            raise BadRow(f"wrong type of {name}")
        for key in ("role", "content"):
            if message.get(key) is None:
                raise BadRow(f"missing key {key} in {name}")
        if message["role"] not in ROLES:
            raise BadRow("unknown role")
        if not isinstance(message["content"], str):
            raise BadRow(f"wrong type of {name}")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def messages_in(text: str, name: str) -> list[Any] | None:
    """The messages that a text holds, as JSON or as Python or numpy print them; None where it is
    a text like any other, which may begin with a bracket.

    Raises:
        BadRow: it begins like a list of messages, and cannot be read.
    """
    if not _CLAIMS.match(text) or not any(
            all(f"'{key}'" in text or f'"{key}"' in text for key in keys)
            for keys in _MESSAGE_KEYS):
        return None
    value = parsed(text)
    if value is None:
        raise BadRow(f"unreadable list of messages in {name}")
    messages = value if isinstance(value, list) else [value]
    return messages if any(map(is_message, messages)) else None


def is_message(value: Any) -> bool:
    """Whether a record is a message, in our words or in those of ShareGPT."""
    return isinstance(value, dict) and any(value.keys() >= set(keys) for keys in _MESSAGE_KEYS)


def turns(transcript: str) -> list[Message]:
    """`\\n\\nHuman: ... \\n\\nAssistant: ...` as messages, white space around each turn removed."""
    transcript = transcript.lstrip()
    marks = list(_TURN.finditer(transcript))
    if not marks or marks[0].start() != 0:
        raise BadRow("not a Human / Assistant transcript")
    ends = [mark.start() for mark in marks[1:]] + [len(transcript)]
    return [{"role": _TURN_ROLES[mark[1]], "content": transcript[mark.end():end].strip()}
            for mark, end in zip(marks, ends, strict=True)]
