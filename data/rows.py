"""One raw row -> one Pair: the four forms that preference data comes in.

A row that cannot become a pair raises BadRow with a reason from a small fixed set, so that reasons
can be counted. Knows nothing of files.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from data.records import ROLES, Message, Pair

COLUMNS = ("prompt", "chosen", "rejected", "response_a", "response_b", "score_a", "score_b",
           "score_chosen", "score_rejected")
"""Our column names: what `keys` of a data config may map to the file's own."""

EQUAL_SCORES = "equal scores"
IDENTICAL_SIDES = "identical sides"
HARMLESS = (EQUAL_SCORES, IDENTICAL_SIDES)
"""Reasons that say nothing against the source: such rows are counted but are not bad rows."""

PROMPTS_DIFFER = "prompts are not a common prefix"
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_TURN_ROLES = {"Human": "user", "Assistant": "assistant"}


class BadRow(Exception):
    """A row that is no preference pair; the message is the reason it is counted under."""


def detect_form(row: Mapping[str, Any], keys: Mapping[str, str]) -> str | None:
    """The form of a row, or None where it has the columns of none.

    messages: chosen and rejected are whole conversations. prompt_answers: prompt beside chosen and
    rejected. scored_answers: prompt, response_a, response_b, score_a, score_b. transcript: chosen
    and rejected are `\\n\\nHuman: ... \\n\\nAssistant: ...` strings.
    """
    present = {name for name in COLUMNS if _lookup(row, name, keys) is not None}
    if {"chosen", "rejected"} <= present:
        chosen = _lookup(row, "chosen", keys)
        if isinstance(chosen, list):
            starts_inside = bool(chosen) and isinstance(chosen[0], dict) and (
                chosen[0].get("role") == "assistant")
            return "prompt_answers" if starts_inside and "prompt" in present else "messages"
        if isinstance(chosen, str) and chosen.lstrip().startswith("Human:"):
            return "transcript"
        return "prompt_answers" if "prompt" in present else None
    scored = {"prompt", "response_a", "response_b", "score_a", "score_b"}
    return "scored_answers" if scored <= present else None


def row_to_pair(row: Mapping[str, Any], form: str, keys: Mapping[str, str], source: str) -> Pair:
    """The Pair in a row of the given form.

    Args:
        keys: our column name -> the file's, where they differ; `a.b` is column b inside a.
        source: where the row came from, kept in the pair.
    Raises:
        BadRow: the row is not usable.
    """
    prompt, chosen, rejected, scores = _FORMS[form](row, keys)
    for side in (chosen, rejected):
        if not side.strip():
            raise BadRow("empty side")
    if chosen.strip() == rejected.strip():
        raise BadRow(IDENTICAL_SIDES)
    if not any(message["role"] == "user" and message["content"].strip() for message in prompt):
        raise BadRow("empty prompt")
    if prompt[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant")
    for text in (chosen, rejected, *(message["content"] for message in prompt)):
        _check_utf8(text)
    return Pair(tuple(prompt), chosen, rejected, *scores, source)


Parts = tuple[list[Message], str, str, tuple[float | None, float | None]]


def _messages(row: Mapping[str, Any], keys: Mapping[str, str]) -> Parts:
    sides = [_message_list(_need(row, name, keys), name) for name in ("chosen", "rejected")]
    return *_common_prefix(*sides), _scores(row, keys)


def _transcript(row: Mapping[str, Any], keys: Mapping[str, str]) -> Parts:
    sides = [_turns(_text(row, name, keys)) for name in ("chosen", "rejected")]
    return *_common_prefix(*sides), _scores(row, keys)


def _prompt_answers(row: Mapping[str, Any], keys: Mapping[str, str]) -> Parts:
    prompt = _prompt(row, keys)
    sides = []
    for name in ("chosen", "rejected"):
        value = _need(row, name, keys)
        if isinstance(value, str):
            sides.append([*prompt, {"role": "assistant", "content": value}])
            continue
        messages = _message_list(value, name)
        inside = bool(messages) and messages[0]["role"] == "assistant"
        sides.append([*prompt, *messages] if inside else messages)
    return *_common_prefix(*sides), _scores(row, keys)


def _scored_answers(row: Mapping[str, Any], keys: Mapping[str, str]) -> Parts:
    prompt = _prompt(row, keys)
    answers = [_text(row, name, keys) for name in ("response_a", "response_b")]
    scores = [_score(_need(row, name, keys), name) for name in ("score_a", "score_b")]
    if scores[0] == scores[1]:
        raise BadRow(EQUAL_SCORES)
    best = int(scores[1] > scores[0])
    return prompt, answers[best], answers[1 - best], (scores[best], scores[1 - best])


_FORMS: dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], Parts]] = {
    "messages": _messages, "transcript": _transcript, "prompt_answers": _prompt_answers,
    "scored_answers": _scored_answers}


def _common_prefix(chosen: list[Message],
                   rejected: list[Message]) -> tuple[list[Message], str, str]:
    """Prompt, chosen answer, rejected answer of two conversations that differ in the last turn."""
    if not chosen or not rejected:
        raise BadRow("empty side")
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        raise BadRow(PROMPTS_DIFFER)
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise BadRow("last turn is not the assistant's")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _turns(text: str) -> list[Message]:
    """`\\n\\nHuman: ... \\n\\nAssistant: ...` as messages, white space around each turn removed."""
    marks = list(_TURN.finditer(text.lstrip()))
    if not marks or marks[0].start() != 0:
        raise BadRow("not a Human / Assistant transcript")
    text = text.lstrip()
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [{"role": _TURN_ROLES[mark[1]], "content": text[mark.end():end].strip()}
            for mark, end in zip(marks, ends, strict=True)]


def _prompt(row: Mapping[str, Any], keys: Mapping[str, str]) -> list[Message]:
    value = _need(row, "prompt", keys)
    if isinstance(value, list):
        return _message_list(value, "prompt")
    text = _text(row, "prompt", keys)
    if text.lstrip().startswith("Human:") and text.rstrip().endswith("\n\nAssistant:"):
        return _turns(text)[:-1]
    return [{"role": "user", "content": text}]


def _message_list(value: Any, name: str) -> list[Message]:
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


def _scores(row: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[float | None, float | None]:
    """The two optional scores; None where the source has none."""
    values = [_lookup(row, name, keys) for name in ("score_chosen", "score_rejected")]
    if any(value is None or value == "" for value in values):
        return None, None
    return _score(values[0], "score_chosen"), _score(values[1], "score_rejected")


def _score(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRow(f"wrong type of {name}")
    try:
        score = float(value)
    except (ValueError, OverflowError):
        raise BadRow(f"wrong type of {name}") from None
    if not math.isfinite(score):
        raise BadRow(f"{name} is not a finite number")
    return score


def _text(row: Mapping[str, Any], name: str, keys: Mapping[str, str]) -> str:
    value = _need(row, name, keys)
    if not isinstance(value, str):
        raise BadRow(f"wrong type of {name}")
    return value


def _need(row: Mapping[str, Any], name: str, keys: Mapping[str, str]) -> Any:
    value = _lookup(row, name, keys)
    if value is None:
        raise BadRow(f"missing key {name}")
    return value


def _lookup(row: Mapping[str, Any], name: str, keys: Mapping[str, str]) -> Any:
    column = keys.get(name, name)
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _check_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("not UTF-8") from None


def prompt_text(prompt: tuple[Message, ...]) -> str:
    """The message list as the JSON text that `pairs/*.parquet` stores."""
    return json.dumps(list(prompt), ensure_ascii=False)
