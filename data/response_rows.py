"""Rows of any file with prompts and responses -> Answers, whichever of the usual columns it has.

For scoring, where nothing is compared: a row needs a prompt and at least one response, and no word
on which is better.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from configs.schema import DataConfig
from data.answers import Answers
from data.fields import Row, as_text, optional_text, prompt
from data.messages import BadRow, message_list
from data.raw_files import NOT_UTF8, RawRow
from data.records import Message
from data.rows import detect_form, row_to_answers

NO_COLUMNS = "no columns to score"
"""Neither responses nor response, messages, or chosen and rejected."""
PLAIN = DataConfig(name="rows", path="rows")
"""Columns called as we call them."""


def read_responses(rows: Iterator[RawRow], name: str) -> Iterator[tuple[int, Answers | str]]:
    """Every row of a file: its number, and its prompt with responses or the reason why it has none.

    prompt + responses (a list) or response (one); messages, whose last is the response; chosen and
    rejected in any form of preference pair. A prompt is a text or a message list, a response a text
    or the assistant's messages.
    """
    for number, row in rows:
        if isinstance(row, str):
            yield number, row
            continue
        try:
            yield number, row_to_responses(row, f"{name}:{number}")
        except BadRow as reason:
            yield number, str(reason)


def row_to_responses(row: Row, source: str) -> Answers:
    """The prompt and the responses of a row, whose values are 0; BadRow where it has none."""
    if row.get("responses") is not None:
        messages, texts = prompt(row, {}), [_response(item) for item in _items(row["responses"])]
    elif row.get("response") is not None:
        messages, texts = prompt(row, {}), [_response(row["response"])]
    elif row.get("messages") is not None:
        *messages, last = message_list(row["messages"], "messages") or [{"role": ""}]
        if last["role"] != "assistant":
            raise BadRow("last turn is not the assistant's")
        texts = [last["content"]]
    elif (form := detect_form(row, {})) is not None:
        return row_to_answers(row, form, PLAIN, source)
    else:
        raise BadRow(NO_COLUMNS)
    if not texts:
        raise BadRow("no responses")
    if not any(message["content"].strip() for message in messages):
        raise BadRow("empty prompt")
    if messages[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant")
    try:
        "".join([*texts, *(message["content"] for message in messages)]).encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(NOT_UTF8) from None
    return Answers(tuple(messages), tuple(texts), (0.0,) * len(texts), source=source,
                   row_id=optional_text(row, "id", {}))


def _items(value: Any) -> list[Any]:
    """A list, or the JSON text of one, which is how csv holds it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise BadRow("responses is not a list") from None
    if not isinstance(value, list):
        raise BadRow("responses is not a list")
    return value


def _response(item: Any) -> str:
    """The text of a response: a text, a message, or a list of one message of the assistant's."""
    if isinstance(item, Mapping):
        item = [item]
    if not isinstance(item, list):
        return as_text(item, "response")
    messages: list[Message] = message_list(item, "response")
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadRow("response is not one message of the assistant's")
    return messages[0]["content"]
