"""The pairs that a model is surest of and wrong about, with their texts, for its report."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.reports.document import Block, Example, Text
from src.reports.format import number

TEXT_HEAD, TEXT_TAIL = 500, 250
"""Characters of a long text that are shown, from its beginning and its end."""


@dataclass(frozen=True)
class WrongPair:
    """A pair that the model ranks wrongly, with its texts."""

    pair_id: str
    source: str
    reward_chosen: float
    reward_rejected: float
    prompt: str
    chosen: str
    """Empty where the record has no such side."""
    rejected: str


def wrong_pairs(wrong: Sequence[WrongPair]) -> list[Block]:
    """The pairs with their texts, as blocks of a document."""
    if not wrong:
        return [Text("No pair is ranked wrongly.")]
    return [Text("The pairs with the lowest margins, worst first. Long texts are cut in the "
                 "middle."), *(_example(place, pair) for place, pair in enumerate(wrong, 1))]


def _example(place: int, pair: WrongPair) -> Example:
    margin = pair.reward_chosen - pair.reward_rejected
    source = f", {pair.source}" if pair.source else ""
    sides = [(f"{name}, reward {number(reward)}", shorten(text)) if text else
             (name, "absent: a pointwise record, reward 0")
             for name, reward, text in (("chosen", pair.reward_chosen, pair.chosen),
                                        ("rejected", pair.reward_rejected, pair.rejected))]
    return Example(f"{place}. margin {number(margin, signed=True)}, pair {pair.pair_id}{source}",
                   [("prompt", shorten(pair.prompt)), *sides])


def shorten(text: str) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    left_out = len(text) - TEXT_HEAD - TEXT_TAIL
    if left_out <= 0:
        return text
    return (f"{text[:TEXT_HEAD].rstrip()}\n[... {left_out:,} characters left out ...]\n"
            f"{text[-TEXT_TAIL:].lstrip()}")
