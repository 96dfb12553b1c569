"""Answers -> Pairs: which two answers are compared, and a reason for every comparison that is none.

The values say which is better; how they came about is no matter here. Where a config asks for
pointwise records, as the OpenAI repository makes them, each is an answer, right or wrong, and the
other side is ABSENT: a record's reward is judged against 0.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from configs.data_schema import CompareConfig
from configs.schema import DataConfig
from data.read.answers import Answers
from data.read.rules import (
    EQUAL_SCORES,
    IDENTICAL_SIDES,
    NO_PREFERENCE,
    NO_SCORES,
    ONE_ANSWER,
    TOO_CLOSE,
)
from data.read.sources import Source, read_answers
from data.records import ABSENT, Pair
from src.common.hashing import content_hash


def compared_pairs(source: Source, form: str,
                   config: DataConfig) -> Iterator[tuple[int, Pair | str]]:
    """Every comparison that the config takes: its row's number, and its Pair or the reason why it
    is none. A row that cannot be used gives one reason."""
    for number, answers in read_answers(source, form, config):
        if isinstance(answers, str):
            yield number, answers
            continue
        if form == "kto" and config.pointwise:
            yield number, lone_answer(answers)
            continue
        for pair in compare_answers(answers, config.compare):
            if config.pointwise and isinstance(pair, Pair):
                pair = one_side(pair)
            yield number, pair


def compare_answers(answers: Answers, compare: CompareConfig) -> Iterator[Pair | str]:
    """A Pair, or the reason why there is none, for each comparison that `compare` takes.

    Of answers that are merely right or wrong, two right ones or two wrong ones are no comparison.
    Otherwise two that are equally good count as EQUAL_SCORES, or NO_PREFERENCE where a column names
    the better one or all are right, or wrong.
    """
    if len(answers.texts) < 2:
        yield ONE_ANSWER
        return
    found = False
    for first, second in _comparisons(answers, compare.take):
        if _is_labelled(answers) and answers.values[first] == answers.values[second]:
            continue
        found = True
        yield _pair(answers, first, second, compare.min_ratio)
    if not found:
        named = compare.rule in ("by_id", "by_grade") or _is_labelled(answers)
        yield NO_PREFERENCE if named else EQUAL_SCORES


def _comparisons(answers: Answers, take: str) -> Iterator[tuple[int, int]]:
    """Places of two answers each."""
    places = range(len(answers.texts))
    if take == "all":
        yield from itertools.combinations(places, 2)
        return
    scored = [i for i in places if not math.isnan(answers.values[i])] or list(places)
    best = max(scored, key=lambda i: answers.values[i])
    rest = [i for i in places if i != best]
    if take == "best_vs_random":
        rest = [rest[_draw(answers, len(rest))]]
    yield from ((best, other) for other in rest)


def _draw(answers: Answers, count: int) -> int:
    """A number below `count` that the prompt fixes."""
    return int(content_hash(["other", *([m["role"], m["content"]] for m in answers.prompt)]),
               16) % count


def _is_labelled(answers: Answers) -> bool:
    return not answers.scores and set(answers.values) <= {0.0, 1.0}


def _pair(answers: Answers, first: int, second: int, min_ratio: float) -> Pair | str:
    values, texts, scores = answers.values, answers.texts, answers.scores
    if math.isnan(values[first]) or math.isnan(values[second]):
        return NO_SCORES
    if values[first] == values[second]:
        return EQUAL_SCORES
    better, worse = (first, second) if values[first] > values[second] else (second, first)
    if not texts[better].strip() or not texts[worse].strip():
        return "empty side"
    if texts[better].strip() == texts[worse].strip():
        return IDENTICAL_SIDES
    if min_ratio > 1 and not scores:
        return NO_SCORES
    if min_ratio > 1 and not scores[better] > min_ratio * scores[worse]:
        return TOO_CLOSE
    return Pair(answers.prompt, texts[better], texts[worse], *_both(scores, better, worse),
                answers.source, answers.subset, answers.difficulty)


def _both(scores: Sequence[float], better: int, worse: int) -> tuple[float | None, float | None]:
    return (scores[better], scores[worse]) if scores else (None, None)


def lone_answer(answers: Answers) -> Pair | str:
    """The record of an answer that is labelled right (value 1) or wrong (0); or why there is
    none."""
    text, = answers.texts
    if not text.strip():
        return "empty side"
    chosen, rejected = (text, ABSENT) if answers.values[0] else (ABSENT, text)
    return Pair(answers.prompt, chosen, rejected, source=answers.source, subset=answers.subset,
                difficulty=answers.difficulty)


def one_side(pair: Pair) -> Pair:
    """The pair with one side made ABSENT, by a fair coin that its pair_id fixes.

    The coin picks one of the two texts without regard to which is better: of the same two answers
    with the opposite preference the same text stays, and is found to be contradictory.
    """
    first_stays = hashlib.sha256(f"side:{pair.pair_id}".encode()).digest()[0] % 2 == 0
    if first_stays == (pair.chosen < pair.rejected):
        return replace(pair, rejected=ABSENT, score_rejected=None)
    return replace(pair, chosen=ABSENT, score_chosen=None)
