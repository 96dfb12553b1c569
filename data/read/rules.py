"""What each answer of a row is worth: the rules of `compare`.

Only the order of the values means anything, and only within their row.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.data_schema import CompareConfig
from configs.schema import DataConfig
from data.files.raw_arrow import meaning
from data.read.fields import NO_SCORE, Row, column, need, number, optional_text
from data.read.messages import BadRow

DELETED = "deleted message"
EQUAL_SCORES = "equal scores"
IDENTICAL_SIDES = "identical sides"
NO_PREFERENCE = "no preference"
NO_SCORES = "no score"
ONE_ANSWER = "prompt has one answer"
TOO_CLOSE = "scores too close"
TIE = -1
HARMLESS = (DELETED, EQUAL_SCORES, IDENTICAL_SIDES, NO_PREFERENCE, NO_SCORES, ONE_ANSWER,
            TOO_CLOSE)
"""Reasons that say nothing against the source: such rows are counted but are not bad rows."""


def answer_values(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    """The value of each of a row's answers, higher is better; nan where it has no score.

    Args:
        items: the answers as the row has them, texts or records.
    Raises:
        BadRow: a rank, score or name that is missing or of the wrong type; no preference.
    """
    return _RULES[config.compare.rule](row, items, config)


def _by_score(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    """The mean of the scores that an answer has."""
    names = config.compare.scores or (config.keys.get("score", "score"),)
    values = []
    for item in items:
        found = [_score(row, item, name) for name in names]
        known = [number(value, "score") for value in found if value not in NO_SCORE]
        values.append(math.fsum(known) / len(known) if known else math.nan)
    return values


def _score(row: Row, item: Any, name: str) -> Any:
    """The score in an answer's own record, or else in the row."""
    own = column(item, name) if isinstance(item, Mapping) else None
    return column(row, name) if own is None else own


def _by_rank(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    if not all(isinstance(item, Mapping) for item in items):
        raise BadRow("missing key rank")
    return [-number(need(item, "rank", config.keys), "rank") for item in items]


def _by_id(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    """1 for the answer that the column `better`, or most of the votes, names; 0 for the others, and
    for all where none is better."""
    names = config.compare.votes or (config.keys.get("better", "better"),)
    votes = [_place(need(row, "better", {"better": name}), config.compare) for name in names]
    (best, count), *others = Counter(votes).most_common()  # of equals the one that comes first
    if others and others[0][1] == count and config.compare.split_votes == "none":
        best = TIE
    if best >= len(items):
        raise BadRow("better names an answer that is not there")
    return [float(i == best) for i in range(len(items))]


def _place(value: Any, compare: CompareConfig) -> int:
    """Which answer a value of `better` names; TIE for one that says that none is better.

    The label of a class is known by its name, or else by its number.
    """
    for each in (meaning(value), value):
        written = optional_text({"better": each}, "better", {})
        if written in compare.ties:
            return TIE
        for place, known in enumerate(compare.names):
            if written in known:
                return place
    raise BadRow("better names no answer and no tie")


def _by_grade(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    """1 for the answer that the grade is nearer to than the threshold, 0 for the other; 0 for both
    within the tie band."""
    if len(items) != 2:
        raise BadRow("not two answers")
    compare, value = config.compare, need(row, "better", config.keys)
    if optional_text({"better": value}, "better", {}) in compare.ties:
        return [0.0, 0.0]
    grade = number(value, "better")
    if not min(compare.grades) <= grade <= max(compare.grades):
        raise BadRow("better is beyond the grades")
    beyond = round(grade - compare.middle, 9)  # 1.6 - 1.5 is not quite 0.1
    if abs(beyond) <= compare.tie_band:
        return [0.0, 0.0]
    is_second = (beyond > 0) == (compare.grades[1] > compare.grades[0])
    return [float(not is_second), float(is_second)]


def _first_is_better(row: Row, items: Sequence[Any], config: DataConfig) -> list[float]:
    return [float(len(items) - 1 - i) for i in range(len(items))]


_RULES: dict[str, Callable[[Row, Sequence[Any], DataConfig], list[float]]] = {
    "by_score": _by_score, "by_rank": _by_rank, "by_id": _by_id,
    "by_grade": _by_grade, "first_is_better": _first_is_better}
