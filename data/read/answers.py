"""Answers: what every form of raw row becomes before its answers are compared.

Standard library only. Knows no form and no rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from data.records import Message


@dataclass(frozen=True)
class Answers:
    """One prompt and the answers to it that a data set compares."""

    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    """In the order of the row; of a pair, the chosen one first. May be empty texts: a comparison
    refuses them, a benchmark scores them."""
    values: tuple[float, ...]
    """One a text, higher is better, nan where the source has none; only comparisons within the row
    mean anything. A score, or minus the rank, or 1 and 0 for right and wrong, chosen and
    rejected."""
    scores: tuple[float, ...] = ()
    """The source's own scores, one a text, where it has any; they enter Pair.score_chosen."""
    source: str = ""
    """`file:row`; of grouped rows, the first."""
    subset: str = ""
    difficulty: float | None = None
    row_id: str = ""
    """The row's own `id`, as text, where it has one."""
    notes: tuple[str, ...] = ()
    """What of the row was left out or read as something else, see data/read/row_notes.py."""


def grouped(rows: Iterator[tuple[int, Answers | str]]) -> Iterator[tuple[int, Answers | str]]:
    """Numbered rows of one answer each -> runs of the same prompt, as the first row is numbered.

    A reason passes as it is and does not end a run.
    """
    run: list[tuple[int, Answers]] = []
    for number, item in rows:
        if isinstance(item, str):
            yield number, item
            continue
        if run and run[0][1].prompt != item.prompt:
            yield run[0][0], _joined([answers for _, answers in run])
            run = []
        run.append((number, item))
    if run:
        yield run[0][0], _joined([answers for _, answers in run])


def _joined(run: Sequence[Answers]) -> Answers:
    """The answers of several rows to one prompt; what else they say is the first row's."""
    return replace(run[0], **{name: tuple(value for answers in run
                                          for value in getattr(answers, name))
                              for name in ("texts", "values", "scores")})
