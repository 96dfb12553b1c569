"""One raw row -> Answers: the forms that preference data comes in.

A row that cannot be used raises BadRow with a reason from a small fixed set, so that reasons can be
counted. Knows nothing of files, nor of which answers are compared.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from configs.schema import DataConfig
from data.files.serialised import parsed_list
from data.read.answers import Answers
from data.read.chess_puzzles import puzzle_parts
from data.read.fields import (
    Row,
    answer_text,
    column,
    filled,
    lookup,
    need,
    number,
    opened,
    optional_text,
    prompt,
    text,
)
from data.read.messages import BadRow, is_message, message_list, turns, whole_conversation
from data.read.row_notes import row_notes
from data.read.rules import NO_SCORES, answer_values
from data.read.system_column import with_system
from data.read.unpaired import unpaired_parts
from data.records import Message

_ENCODER = json.JSONEncoder(ensure_ascii=False)
PROMPTS_DIFFER = "prompts are not a common prefix"

Parts = tuple[list[Message], list[str], list[float], list[float]]
"""Prompt, texts, values and scores (may be empty) of Answers."""


def row_to_answers(row: Row, form: str, config: DataConfig, source: str) -> Answers:
    """The Answers in a row of the given form; of forms one_answer and kto, its one answer; of form
    tree, those of a row that tree_rows has made.

    Args:
        source: where the row came from, kept in the answers.
    Raises:
        BadRow: the row is not usable.
    """
    row = opened(row, config.keys)
    messages, texts, values, scores = _FORMS[form](row, config)
    messages = with_system(messages, row, config)
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise BadRow("empty prompt")
    if messages[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant")
    subset, row_id = (optional_text(row, name, config.keys) for name in ("subset", "id"))
    for words in (*texts, *(message["content"] for message in messages), subset, row_id):
        check_utf8(words)
    difficulty = lookup(row, "difficulty", config.keys)
    return Answers(
        tuple(messages), tuple(texts), tuple(values), tuple(scores), source,
        subset=subset,
        difficulty=None if difficulty is None else number(difficulty, "difficulty"),
        row_id=row_id,
        notes=row_notes(row, config, messages))


def _messages(row: Row, config: DataConfig) -> Parts:
    sides = [message_list(need(row, name, config.keys), name) for name in ("chosen", "rejected")]
    question = lookup(row, "prompt", config.keys)
    if isinstance(question, list):  # a text beside whole conversations is their question again
        question = message_list(question, "prompt")
        sides = [whole_conversation(question, side) for side in sides]
    return _pair(*sides, row, config)


def _transcript(row: Row, config: DataConfig) -> Parts:
    sides = [turns(text(row, name, config.keys)) for name in ("chosen", "rejected")]
    return _pair(*sides, row, config)


def _prompt_answers(row: Row, config: DataConfig) -> Parts:
    messages = prompt(row, config.keys, config.template.get("prompt", ""))
    sides = []
    for name in ("chosen", "rejected"):
        value = need(row, name, config.keys)
        if isinstance(value, list):
            sides.append(whole_conversation(messages, message_list(value, name)))
        else:
            answer = {"role": "assistant", "content": answer_text(value, name)}
            sides.append([*messages, answer])
    return _pair(*sides, row, config)


def _scored_answers(row: Row, config: DataConfig) -> Parts:
    messages = prompt(row, config.keys, config.template.get("prompt", ""))
    texts = [answer_text(need(row, name, config.keys), name)
             for name in ("response_a", "response_b")]
    scores = [number(need(row, name, config.keys), name) for name in ("score_a", "score_b")]
    return messages, texts, scores, scores


def _answers(row: Row, config: DataConfig) -> Parts:
    """Several answers: a list of texts or of records, one column each, or the same in every row."""
    if config.columns:
        items = [column(row, name) for name in config.columns]
        if None in items:
            raise BadRow(f"missing key {config.columns[items.index(None)]}")
    elif config.texts:
        items = list(config.texts)
    else:
        items = need(row, "answers", config.keys)
        if not isinstance(items, list):
            raise BadRow("wrong type of answers")
    texts = [answer_text(_own_answer(item, config), "answer") for item in items]
    if "answer" in config.template:
        texts = [filled(config.template["answer"], row, words) for words in texts]
    values = answer_values(row, items, config)
    messages = prompt(row, config.keys, config.template.get("prompt", ""))
    return messages, texts, values, values if config.compare.rule == "by_score" else []


def _replies(row: Row, config: DataConfig) -> Parts:
    """The ranked replies to a message, as data.read.message_trees.tree_rows gives them."""
    if len(row["answers"]) < 2 <= len(row["responses"]):
        raise BadRow(NO_SCORES)
    return _answers(row, replace(config, keys={}))


def _own_answer(item: Any, config: DataConfig) -> Any:
    """The answer in an item of a list of answers: of a record its column `answer`."""
    is_record = isinstance(item, Mapping) and ("answer" in config.keys or not is_message(item))
    return need(item, "answer", config.keys) if is_record else item


def _one_answer(row: Row, config: DataConfig) -> Parts:
    messages = prompt(row, config.keys, config.template.get("prompt", ""))
    words = answer_text(need(row, "answer", config.keys), "answer")
    if "answer" in config.template:
        words = filled(config.template["answer"], row, words)
    values = answer_values(row, [row], config)
    return messages, [words], values, values if config.compare.rule == "by_score" else []


def _lists(row: Row, config: DataConfig) -> Parts:
    """Right answers, then wrong ones; a text alone is a list of one."""
    right, wrong = _both_lists(row, config)
    messages = prompt(row, config.keys, config.template.get("prompt", ""))
    return messages, right + wrong, [1.0] * len(right) + [0.0] * len(wrong), []


def _both_lists(row: Row, config: DataConfig) -> list[list[str]]:
    """The texts of chosen and of rejected. Where both are a text that holds a list of texts, which
    is how csv has them, these are the lists."""
    sides = {name: need(row, name, config.keys) for name in ("chosen", "rejected")}
    inside = [parsed_list(side) if isinstance(side, str) else None for side in sides.values()]
    if all(found and all(isinstance(item, str) for item in found) for found in inside):
        return inside
    lists = {name: side if isinstance(side, list) else [side] for name, side in sides.items()}
    if not all(lists.values()):
        raise BadRow("empty side")
    return [[answer_text(item, name) for item in side] for name, side in lists.items()]


_FORMS: dict[str, Callable[[Row, DataConfig], Parts]] = {
    "messages": _messages, "transcript": _transcript, "prompt_answers": _prompt_answers,
    "scored_answers": _scored_answers, "answers": _answers, "one_answer": _one_answer,
    "lists": _lists, "kto": unpaired_parts, "tree": _replies,
    "chess": puzzle_parts}


def _pair(chosen: list[Message], rejected: list[Message], row: Row, config: DataConfig) -> Parts:
    """Two conversations that differ in the last turn, the first being the better one."""
    if not chosen or not rejected:
        raise BadRow("empty side")
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        raise BadRow(PROMPTS_DIFFER)
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise BadRow("last turn is not the assistant's")
    texts = [chosen[-1]["content"], rejected[-1]["content"]]
    return chosen[:-1], texts, [1.0, 0.0], _pair_scores(row, config)


def _pair_scores(row: Row, config: DataConfig) -> list[float]:
    """The two optional scores; empty where the source lacks one."""
    names = ("score_chosen", "score_rejected")
    values = [lookup(row, name, config.keys) for name in names]
    if any(value is None or value == "" for value in values):
        return []
    return [number(value, name) for value, name in zip(values, names, strict=True)]


def check_utf8(words: str) -> None:
    """Raise BadRow where a text cannot be written as UTF-8."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow("not UTF-8") from None


def prompt_text(messages: tuple[Message, ...]) -> str:
    """The message list as the JSON text that `pairs/*.parquet` stores."""
    return _ENCODER.encode(list(messages))
