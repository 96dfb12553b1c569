"""The report of one reward model: its figures, its length bias, the pairs it is most wrong about.

Knows neither models nor files of pairs: measured numbers in, blocks of a document out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from src.measures.bootstrap import Interval
from src.measures.length_bias import Correlation, LengthBias
from src.measures.reward_profile import RewardProfile
from src.reports.document import Bullets, Element, Example, Heading, Picture, Table, Text
from src.reports.figures.parts import KINDS
from src.reports.figures.rewards import Subject
from src.reports.figures.style import Drawn
from src.reports.format import MISSING, count, interval_text, number

FILES = {
    "summary.csv": "accuracy and the figures of the rewards",
    "groups.csv": "accuracy by subset, length and difficulty",
    "length_bias.csv": "correlations, accuracy by which answer is longer, baseline",
    "calibration.csv": "the bins of the calibration figure",
    "rewards.csv": "both rewards of every pair",
    "meta.json": "what was scored, where the numbers come from",
}
READING_LENGTH = (
    "Lengths are tokens of the answer. Pairs that have both sides are compared; pointwise records "
    "have no second length and are left out.",
    "In the order chosen - rejected every pair has the same label, so a correlation there says "
    "how margins vary with length between pairs.",
    "Left and right by hash: the two answers of a pair are put left and right by a coin that the "
    "pair's id fixes, and left - right rewards are correlated with left - right lengths. A model "
    "that knows the truth correlates with length wherever the truth does.",
    "The label held fixed: r(m, d | s) = (r(m, d) - r(m, s) r(d, s)) / sqrt((1 - r(m, s)^2) "
    "(1 - r(d, s)^2)), where m is the left - right margin, d the left - right length and s the "
    "label, 1 where left is chosen, else -1; for Spearman, on ranks. Above 0: the model favours "
    "longer answers beyond what the truth explains; below 0: shorter ones.",
    "With each pair entered both ways round, the Pearson correlation with the label held fixed "
    "would equal that in the order chosen - rejected; here they differ by the coin's noise.",
)


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


def blocks(view: RewardProfile, subject: Subject, figures: Mapping[str, Drawn],
           wrong: Sequence[WrongPair], facts: Mapping[str, str]) -> list[Element]:
    """The whole report below its title, in reading order."""
    mark = [Text(subject.mark, "warning")] if subject.mark else []
    return [
        *mark, Text(headline(view), "lead"),
        Heading("Rewards"), Picture(figures["rewards"]), summary_table(view),
        *_pointwise_note(view),
        Heading("Accuracy in parts"), *_parts(view, figures),
        Heading("Length bias"), *_length(view, figures),
        Heading("Most confidently wrong"), *wrong_pairs(wrong),
        Heading("What was scored"),
        Table("", ["fact", "value"], [[name, value or MISSING] for name, value in facts.items()],
              words=2),
        Heading("Files"), Bullets(list(FILES.items())),
    ]


def headline(view: RewardProfile) -> str:
    """The answer in a sentence or two."""
    text = f"Accuracy {_span(view.accuracy)} on {count(view.n)} pairs"
    if view.bias is None:
        return f"{text}, all of them pointwise records."
    rule = view.bias.longer_wins
    text += (f"; preferring the longer answer scores {_span(rule)}, the shorter "
             f"{number(1 - rule.estimate)}")
    bias = view.bias.given_label.pearson
    if math.isnan(bias.low):
        return f"{text}. Length bias cannot be measured: lengths or margins do not vary enough."
    held = ("favours longer answers" if bias.low > 0 else "favours shorter answers"
            if bias.high < 0 else "favours neither longer nor shorter answers")
    return (f"{text}. With the label held fixed the model {held}: correlation of margin and length "
            f"difference {_span(bias, 2, signed=True)}.")


def _span(span: Interval, digits: int = 3, signed: bool = False) -> str:
    return (f"{number(span.estimate, digits, signed)} "
            f"{interval_text(span.low, span.high, digits)}").strip()


def summary_table(view: RewardProfile) -> Table:
    """Accuracy, the rewards' level and spread, and the four figures by their names."""
    figures = view.figures
    rows = [
        ["accuracy", _span(view.accuracy), "a tie counts half"],
        ["reward mean", number(figures.reward_mean), "over all answers"],
        ["reward standard deviation", number(figures.reward_std), "over all answers"],
        ["better_data_mean", number(figures.better_data_mean), "mean reward of chosen answers"],
        ["worse_data_mean", number(figures.worse_data_mean), "mean reward of rejected answers"],
        ["worse_better_than_better_count", count(figures.worse_better_than_better_count),
         "pairs whose rejected answer scores above the chosen one"],
        ["worse_worse_than_better_count", count(figures.worse_worse_than_better_count),
         "pairs whose rejected answer scores below the chosen one"],
        ["ties", count(figures.ties), "pairs with equal rewards, in neither count"],
        ["AUROC", number(view.auroc), "of the left - right margin for the label"],
        ["log-loss", number(view.log_loss), "0.693 is what knowing nothing costs"],
        ["Brier", number(view.brier), "0.25 is what knowing nothing costs"],
        ["ECE", number(view.calibration_error), "expected calibration error, ten bins"],
    ]
    return Table(f"{count(view.n)} pairs of {count(view.prompts)} prompts; in brackets the "
                 f"{100 * view.level:.6g}% interval over prompts.",
                 ["figure", "what it is", "value"],
                 [[name, meaning, value] for name, value, meaning in rows], words=2)


def _pointwise_note(view: RewardProfile) -> list[Element]:
    if not view.pointwise:
        return []
    return [Text(f"{count(view.pointwise)} of {count(view.n)} are pointwise records: one text, "
                 "right or wrong. The absent side has reward 0 by definition; it enters margins "
                 "and counts, but no mean of rewards and no comparison of lengths.")]


def _parts(view: RewardProfile, figures: Mapping[str, Drawn]) -> list[Element]:
    if not view.groups:
        return [Text("The pairs name no subset and no difficulty, and are all equally long.")]
    parts: list[Element] = []
    for kind, groups in view.groups.items():
        rows = [[group.name, _span(group.accuracy), count(group.n)] for group in groups]
        parts += [Picture(figures[f"by_{kind}"]),
                  Table(f"By {KINDS[kind]}.", [kind, "accuracy", "n"], rows)]
    return parts


def _length(view: RewardProfile, figures: Mapping[str, Drawn]) -> list[Element]:
    if view.bias is None:
        return [Text("No pair has two sides, so there are no lengths to compare.")]
    bias = view.bias
    return [Picture(figures["length"]), _correlations(bias), _length_accuracies(bias),
            Bullets(READING_LENGTH)]


def length_lines(bias: LengthBias) -> list[list[str]]:
    """(name, value) of everything about length, for the terminal."""
    lines = [[f"{kind.title()}, margin and length, {name}", _span(getattr(one, kind), signed=True)]
             for name, one in correlations(bias).items() for kind in ("pearson", "spearman")]
    return [*lines, *(row[:2] for row in _length_accuracies(bias).rows)]


def _correlations(bias: LengthBias) -> Table:
    rows = [[name, _span(one.pearson, signed=True), _span(one.spearman, signed=True)]
            for name, one in correlations(bias).items()]
    return Table(f"Correlation of margin and length difference, {count(bias.n)} pairs.",
                 ["order", "Pearson", "Spearman"], rows)


def correlations(bias: LengthBias) -> dict[str, Correlation]:
    """The three correlations by what they are called in tables."""
    return {"chosen - rejected": bias.truth_order, "left - right by hash": bias.by_hash,
            "left - right, the label held fixed": bias.given_label}


def _length_accuracies(bias: LengthBias) -> Table:
    rows = [[f"accuracy where {group.name}", _span(group.accuracy), count(group.n)]
            for group in bias.groups]
    rows += [["baseline: longer wins (shorter wins: 1 - it)", _span(bias.longer_wins),
              count(bias.n)],
             ["how often the model prefers the longer answer", _span(bias.prefers_longer),
              count(bias.n)]]
    return Table("Which answer is longer. In the last two rows equal lengths count half.",
                 ["measure", "value", "n"], rows)


def wrong_pairs(wrong: Sequence[WrongPair]) -> list[Element]:
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
