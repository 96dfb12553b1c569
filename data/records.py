"""The repository's vocabulary: what a preference pair is, what its columns and splits are called.

Standard library only, so that any file may import it.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from src.common.hashing import content_hash

SPLITS = ("train_1", "train_2", "val", "test")
"""train_1: teachers, human labels. train_2: ceilings (human) and students (weak labels). val: weak
labels only, for early stopping. test: read by `eval.py` alone."""

ROLES = ("system", "user", "assistant")

ABSENT = ""
"""The text of a side that a pointwise record does not have: it has no tokens and reward 0."""

Message = dict[str, str]
"""`{"role": one of ROLES, "content": text}`."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, in the order that ground truth gives them."""

    prompt: tuple[Message, ...]
    """The conversation up to the answer; the last message is not the assistant's."""
    chosen: str
    """Assistant text that ground truth prefers; ABSENT where a lone answer is labelled wrong."""
    rejected: str
    """Assistant text that ground truth does not prefer; ABSENT where a lone answer is right."""
    score_chosen: float | None = None
    score_rejected: float | None = None
    source: str = ""
    """Data set and row the pair came from, for example `train.jsonl:17`."""
    subset: str = ""
    """Part of its data set: a benchmark's subset, or a mixture's source."""
    difficulty: float | None = None
    """How hard the pair is, on its data set's own scale (a chess puzzle's rating)."""

    @cached_property
    def pair_id(self) -> str:
        """16 hex digits of the content. The order of the answers does not enter, so that the same
        answers with the opposite preference are recognised as the same question asked twice."""
        return content_hash([self.prompt_id, *sorted((self.chosen, self.rejected))])

    @cached_property
    def prompt_id(self) -> str:
        """See prompt_id_of."""
        return prompt_id_of(self.prompt)


def prompt_id_of(prompt: Sequence[Message]) -> str:
    """16 hex digits of a prompt: splits are disjoint by it, bootstraps resample it.

    Of its normal form: outer white space and the Unicode form of a letter make no other prompt,
    since templates trim and tokenizers normalise.
    """
    return content_hash([[m["role"], unicodedata.normalize("NFC", m["content"]).strip()]
                         for m in prompt])


def left_is_chosen(pair_id: str) -> bool:
    """Whether a trainer batch puts the chosen answer left: a fair coin fixed by the pair's id.

    Stored chosen-first, any statistic over a batch would leak the truth.
    """
    return hashlib.sha256(f"left:{pair_id}".encode()).digest()[0] % 2 == 0
