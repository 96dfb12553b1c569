"""Conversations in a raw row: lists of messages, and transcripts.

What cannot be used raises BadRow. Knows no column and no form.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.files.serialised import parsed
from data.records import ROLES, Message

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_TURN_ROLES = {"Human": "user", "Assistant": "assistant"}
_CLAIMS = re.compile(r"""\s*(?:\[\s*\{|\{\s*(['"])(?:role|content|from|value)\1\s*:)""")
_MESSAGE_KEYS = (("role", "content"), ("from", "value"))
_PLAIN_KEYS = set(_MESSAGE_KEYS[0])
_READ_KEYS = {key for keys in _MESSAGE_KEYS for key in keys}
_ALIASES = {"human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant",
            "bard": "assistant", "bing": "assistant", "bot": "assistant", "model": "assistant"}
"""What ShareGPT, OpenAssistant and others call the roles."""
REFUSED_PARTS = ("tool_calls", "tool_use", "tool_result", "function_call", "image", "images",
                 "image_url", "input_image", "video", "videos", "video_url", "audio", "audios",
                 "input_audio", "file", "files")
"""Keys of a message, and types of a part of its content, without which it is another message."""
_TEXT_TYPES = (None, "text", "input_text", "output_text")
_THOUGHT_TYPES = ("reasoning", "thinking", "redacted_thinking")
"""What led to an answer and is no part of it."""


class BadRow(Exception):
    """A row that cannot be used; the message is the reason it is counted under, from a small fixed
    set."""


def wrong_type(value: Any, name: str) -> BadRow:
    """The BadRow of a value that is of no type that is read. Dates are named: loaders make them of
    texts that look like one."""
    is_date = isinstance(value, (datetime.date, datetime.time, datetime.timedelta))
    return BadRow(f"a date or time in {name}, not a text" if is_date else f"wrong type of {name}")


def message_list(value: Any, name: str) -> list[Message]:
    """A list of messages: role and content, or from and value, which may be a list of texts.

    Raises:
        BadRow: a message that has no text, or is more than a text (REFUSED_PARTS). What else it has
            is left out, see unused_parts.
    """
    if not isinstance(value, list):
        raise BadRow(f"wrong type of {name}")
    messages = []
    for message in value:
        if not isinstance(message, dict):
            raise BadRow(f"wrong type of {name}")
        if _is_plain(message):
            messages.append({"role": message["role"], "content": message["content"]})
            continue
        _refuse_parts(message, name)
        keys = next((keys for keys in _MESSAGE_KEYS if message.get(keys[0]) is not None),
                    _MESSAGE_KEYS[0])
        for key in keys:
            if message.get(key) is None:
                raise BadRow(f"missing key {key} in {name}")
        role = role_of(message)
        if role not in ROLES:
            raise BadRow("unknown role")
        messages.append({"role": role, "content": _content(message[keys[1]], name)})
    return messages


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether there is nothing to read in it but a role and a text: so it is with nearly all."""
    return message.keys() == _PLAIN_KEYS and message["role"] in ROLES and isinstance(
        message["content"], str)


def role_of(message: Mapping[str, Any]) -> Any:
    """The role of a message, in our words where it is one of theirs."""
    role = next((message[key] for key, _ in _MESSAGE_KEYS if message.get(key) is not None), None)
    return _ALIASES.get(role, role) if isinstance(role, str) else None


def _content(content: Any, name: str) -> str:
    """The text of a message; parts follow each other as chat templates write them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(content, name)
    return "".join(_part_text(part, name) for part in content)


def _part_text(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise BadRow(f"wrong type of {name}")
    _refuse_parts(part, name)
    if part.get("type") in _THOUGHT_TYPES:
        return ""
    if part.get("type") in _TEXT_TYPES and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type")
    raise BadRow(f"{kind} in {name}" if kind in REFUSED_PARTS else f"wrong type of {name}")


def _refuse_parts(record: Mapping[str, Any], name: str) -> None:
    if record.keys() <= _READ_KEYS:
        return
    for key in REFUSED_PARTS:
        if not is_nothing(record.get(key)):
            raise BadRow(f"{key} in {name}")


def unused_parts(value: Any) -> Iterator[str]:
    """The names of what the messages of a list have beside role and content, and is not empty."""
    for message in value if isinstance(value, list) else [value]:
        if not is_message(message) or _is_plain(message):
            continue
        yield from (str(key) for key, part in message.items()
                    if key not in _READ_KEYS and not is_nothing(part))
        content = message.get("content", message.get("value"))
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and part.get("type") in _THOUGHT_TYPES:
                yield part["type"]


def is_nothing(part: Any) -> bool:
    """Whether a part is null, as a table with other rows that have it holds it, or empty."""
    return part is None or part != part or isinstance(part, (str, list, dict)) and not part


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
    return isinstance(value, dict) and any(first in value and second in value
                                           for first, second in _MESSAGE_KEYS)


def turns(transcript: str) -> list[Message]:
    """`\\n\\nHuman: ... \\n\\nAssistant: ...` as messages, white space around each turn removed."""
    transcript = transcript.lstrip()
    marks = list(_TURN.finditer(transcript))
    if not marks or marks[0].start() != 0:
        raise BadRow("not a Human / Assistant transcript")
    ends = [mark.start() for mark in marks[1:]] + [len(transcript)]
    return [{"role": _TURN_ROLES[mark[1]], "content": transcript[mark.end():end].strip()}
            for mark, end in zip(marks, ends, strict=True)]


def whole_conversation(question: list[Message], side: list[Message]) -> list[Message]:
    """The conversation of a prompt and a side, which goes on from the prompt or holds it.

    A side may begin before the prompt's last turn (a greeting of the assistant's, the whole
    conversation) or with it. A system message that only the prompt has is the conversation's.
    """
    asked = [message for message in question if message["role"] != "system"]
    places = [i for i, message in enumerate(side) if asked and _same_turn(message, asked[-1])]
    if not places and side and side[0]["role"] == "assistant":
        return [*question, *side]
    if places and places[-1] < len(asked) - 1:
        return [*question, *side[places[-1] + 1:]]
    own = question[:1] if question[:1] != asked[:1] and side and side[0]["role"] != "system" else []
    return [*own, *side]


def _same_turn(message: Message, other: Message) -> bool:
    return message["role"] == other["role"] and (
        message["content"].strip() == other["content"].strip())
