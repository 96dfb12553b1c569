"""A pair, or a labelled answer -> a pointwise record: an answer, right or wrong, and no other side.

So the OpenAI repository makes a text and a label of every question: the true answer or a wrong one,
with equal chance. The other side is ABSENT, so a record's reward is judged against 0.
"""

import hashlib
from dataclasses import replace

from data.answers import Answers
from data.records import ABSENT, Pair


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
