"""Which form a raw row of preference data has, by its columns."""

from data.read.fields import COLUMNS, Keys, Row, lookup, opened
from data.read.message_trees import is_tree
from data.read.messages import BadRow, role_of
from data.read.unpaired import has_unpaired


def detect_form(row: Row, keys: Keys) -> str | None:
    """The form of a row of pairs, or None where it has the columns of none.

    messages: chosen and rejected are whole conversations. prompt_answers: prompt beside chosen and
    rejected. scored_answers: prompt, response_a, response_b, score_a, score_b. transcript: chosen
    and rejected are `\\n\\nHuman: ... \\n\\nAssistant: ...` strings. kto: a completion and a
    label. tree: messages with replies, see data/read/message_trees.py.
    """
    present = {name for name in COLUMNS if lookup(row, name, keys) is not None}
    if {"chosen", "rejected"} <= present:
        try:
            chosen = lookup(opened(row, keys), "chosen", keys)
        except BadRow:
            chosen = []  # a list that cannot be read: its rows are counted when their turn comes
        if isinstance(chosen, list):
            starts_inside = bool(chosen) and isinstance(chosen[0], dict) and (
                role_of(chosen[0]) == "assistant")
            return "prompt_answers" if starts_inside and "prompt" in present else "messages"
        if isinstance(chosen, str) and chosen.lstrip().startswith("Human:"):
            return "transcript"
        return "prompt_answers" if "prompt" in present else None
    scored = {"prompt", "response_a", "response_b", "score_a", "score_b"}
    if scored <= present:
        return "scored_answers"
    if has_unpaired(row, keys):
        return "kto"
    return "tree" if is_tree(row) else None
