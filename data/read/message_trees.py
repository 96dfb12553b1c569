"""Message trees, as OpenAssistant has them -> rows of a conversation and its ranked answers.

A tree is one row (`prompt`, whose `replies` have replies of their own), or its messages are rows
that follow each other (message_id, parent_id, message_tree_id). Every set of the assistant's
replies to one message becomes a row of form `answers`, to any depth: nothing here calls itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.files.raw_json import RawRow
from data.read.messages import is_nothing, role_of
from data.read.rules import DELETED
from data.records import ROLES, Message

NO_PARENT = "the message that it replies to is not there"
NO_TEXT = "missing key text"
NOT_ALTERNATING = "prompt ends with the assistant"
UNKNOWN = "unknown role"
_OWN = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "replies", "prompt",
        "deleted")
"""Keys of a message that are read here; the others stay with the rows."""


@dataclass
class _Node:
    """A message in its tree."""

    number: int
    """Of the row that it stands in."""
    record: Mapping[str, Any]
    replies: list["_Node"] = field(default_factory=list)


def is_tree(row: Mapping[str, Any]) -> bool:
    """Whether a row is a tree, or one message of a tree."""
    prompt = row.get("prompt")
    return isinstance(prompt, Mapping) and "replies" in prompt or (
        {"message_id", "parent_id", "message_tree_id", "text", "role"} <= row.keys())


def tree_rows(rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """The rows, each tree's being those of its answers: `prompt` (messages), `answers` (of a text
    and a rank; of several those that have one), `responses` (all their texts), `id` (of the message
    that they answer), and what else that message has. Messages that cannot be used become reasons.

    Of messages in rows of their own, a row's number is that of the message that is answered.
    """
    tree: list[_Node] = []
    for number, row in rows:
        messages = isinstance(row, dict) and is_tree(row) and "message_id" in row and (
            "prompt" not in row)
        if tree and (not messages or row["message_tree_id"] != (
                tree[0].record["message_tree_id"])):
            yield from _grown(tree)
            tree = []
        if messages:
            tree.append(_Node(number, row))
        elif isinstance(row, dict) and is_tree(row):
            yield from _walked(_Node(number, row["prompt"]))
        else:
            yield number, row
    if tree:
        yield from _grown(tree)


def _grown(messages: list[_Node]) -> Iterator[RawRow]:
    """The rows of one tree's messages, in whatever order they stand."""
    nodes = {str(node.record["message_id"]): node for node in messages}
    roots = []
    for node in nodes.values():
        parent = node.record["parent_id"]
        if is_nothing(parent):
            roots.append(node)
        elif str(parent) in nodes:
            nodes[str(parent)].replies.append(node)
    reached: set[int] = set()
    for root in roots:
        yield from _walked(root, reached)
    yield from ((node.number, NO_PARENT) for node in messages if node.number not in reached)


def _walked(root: _Node, reached: set[int] | None = None) -> Iterator[RawRow]:
    """The rows of a tree, depth first; `reached` takes the numbers of the messages that are met."""
    waiting: list[tuple[_Node, tuple[Message, ...]]] = [(root, ())]
    while waiting:
        node, before = waiting.pop()
        below = _below(node)
        if reached is not None:
            reached.add(node.number)
        if reason := _unusable(node.record):
            yield node.number, reason
            _skip(below, reached)
            continue
        talk = (*before, {"role": role_of(node.record), "content": node.record["text"]})
        answers = [reply for reply in below if isinstance(reply.record, Mapping)
                   and role_of(reply.record) == "assistant" and not _unusable(reply.record)]
        if answers:
            yield node.number, _row(node, talk, answers)
        waiting += [(reply, talk) for reply in reversed(below)]


def _below(node: _Node) -> list[_Node]:
    replies = node.record.get("replies") if isinstance(node.record, Mapping) else None
    if isinstance(replies, list):
        return [_Node(node.number, reply) for reply in replies]
    return node.replies


def _skip(nodes: list[_Node], reached: set[int] | None) -> None:
    """Mark what hangs below a message that cannot be used; it goes with that message."""
    waiting = list(nodes)
    while waiting and reached is not None:
        node = waiting.pop()
        reached.add(node.number)
        waiting += _below(node)


def _unusable(record: Any) -> str:
    """Why a message cannot be used; "" where it can."""
    if not isinstance(record, Mapping) or role_of(record) not in ROLES:
        return UNKNOWN
    if str(record.get("deleted")).lower() == "true":
        return DELETED
    return "" if isinstance(record.get("text"), str) else NO_TEXT


def _row(node: _Node, talk: tuple[Message, ...], answers: list[_Node]) -> dict[str, Any] | str:
    if talk[-1]["role"] == "assistant":
        return NOT_ALTERNATING
    ranked = [reply for reply in answers if not is_nothing(reply.record.get("rank"))]
    items = [{"answer": reply.record["text"], "rank": reply.record["rank"]} for reply in ranked]
    own = {key: value for key, value in node.record.items() if key not in _OWN}
    return {**own, "id": node.record.get("message_id", ""), "prompt": list(talk), "answers": items,
            "responses": [reply.record["text"] for reply in answers]}
