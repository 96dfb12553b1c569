"""Rows of any file with prompts and responses -> Answers, whichever of the usual columns it has.

For scoring, where nothing is compared: a row needs a prompt and at least one response, and no word
on which is better.
"""

from collections.abc import Iterator
from typing import Any

from configs.schema import DataConfig
from data.files.raw_json import NOT_UTF8, RawRow
from data.read.answers import Answers
from data.read.fields import SCORED, Row, answer_text, opened, optional_text, prompt
from data.read.message_trees import tree_rows
from data.read.messages import BadRow, message_list
from data.read.row_form import detect_form
from data.read.row_notes import row_notes
from data.read.rows import row_to_answers
from data.read.system_column import with_system

NO_COLUMNS = "no columns to score"
"""Neither responses nor response, messages, or chosen and rejected."""
PLAIN = DataConfig(name="rows", path="rows")
"""Columns called as we call them."""


def read_responses(rows: Iterator[RawRow], name: str) -> Iterator[tuple[int, Answers | str]]:
    """Every row of a file: its number, and its prompt with responses or the reason why it has none.

    chosen and rejected in any form of preference pair; prompt + responses (a list) or response
    (one); message trees, each message's answers; messages, or conversations, whose last is the
    response. A prompt is a text or a message list, a response a text or the assistant's message.
    """
    for number, row in tree_rows(rows):
        if isinstance(row, str):
            yield number, row
            continue
        try:
            yield number, row_to_responses(row, f"{name}:{number}")
        except BadRow as reason:
            yield number, str(reason)


def row_to_responses(row: Row, source: str) -> Answers:
    """The prompt and the responses of a row; BadRow where it has none.

    A row that is a pair is read as one, whatever else it has: some data sets keep the chosen
    conversation as `messages` too.
    """
    if (form := detect_form(row, {})) is not None:
        return row_to_answers(row, form, PLAIN, source)
    row = opened(row, {}, SCORED)
    if row.get("responses") is not None:
        messages, texts = prompt(row, {}), _responses(row["responses"])
    elif row.get("response") is not None:
        messages, texts = prompt(row, {}), [answer_text(row["response"], "response")]
    elif (talk := row.get("messages", row.get("conversations"))) is not None:
        *messages, last = message_list(talk, "messages") or [{"role": ""}]
        if last["role"] != "assistant":
            raise BadRow("last turn is not the assistant's")
        texts = [last["content"]]
    else:
        raise BadRow(NO_COLUMNS)
    if not texts:
        raise BadRow("no responses")
    if not any(message["content"].strip() for message in messages):
        raise BadRow("empty prompt")
    messages = with_system(messages, row, PLAIN)
    if messages[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant")
    try:
        "".join([*texts, *(message["content"] for message in messages)]).encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(NOT_UTF8) from None
    return Answers(tuple(messages), tuple(texts), (0.0,) * len(texts), source=source,
                   row_id=optional_text(row, "id", {}),
                   notes=row_notes(row, PLAIN, messages, SCORED))


def _responses(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise BadRow("responses is not a list")
    return [answer_text(item, "response") for item in value]
