"""What a policy learns from, as token ids: answers to fine-tune on, or preferred answers.

Preferences are hard: P(chosen > rejected) above a half prefers the one answer, below a half the
other, and a half neither, so that the pair is left out. Which answer people preferred decides
nothing where labels are weak.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from configs.run import GROUND_TRUTH, RunConfig
from data.tokens.formatting import TokenIds, answer_end
from data.tokens.tokenised import IDS, TokenisedSplit
from src.common.errors import UserError
from src.common.join import in_order
from src.runs.folders import require_finished
from src.runs.plan import Plan
from src.scoring.trunk_cache import trunk_of
from src.scoring.weak_labels import weak_labels_of

Row = dict[str, TokenIds]
T = TypeVar("T")
IGNORED = -100
"""The label of a token that no loss is taken on."""


@dataclass(frozen=True)
class Rows:
    """Rows as a trainer of TRL takes them, and what was left out of the split by which reason."""

    rows: list[Row]
    left_out: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if not self.rows:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise UserError(f"no rows to train a policy on ({why or 'the split is empty'}): raise "
                            "policies.max_new_tokens, or prepare more pairs")


def answer_rows(split: TokenisedSplit, end: int, longest: int, most: int = 0,
                seed: int = 0) -> Rows:
    """Each prompt with its chosen answers, once each: for supervised fine-tuning.

    Args:
        end: the token that ends an answer, see `answer_end`.
        longest: tokens of an answer; longer ones are left out.
        most: rows, drawn by `seed`; 0 for all.
    """
    seen, too_long = {}, 0
    for prompt, chosen, _ in _texts(split):
        answer = ended(chosen, end)
        if len(answer) > longest:
            too_long += 1
        elif chosen:
            seen.setdefault((*prompt, IGNORED, *answer), supervised(prompt, answer))
    return Rows(drawn(list(seen.values()), most, seed), _counted(**{"answers too long": too_long}))


def _texts(split: TokenisedSplit) -> Iterator[list[TokenIds]]:
    """Prompt, chosen and rejected answer of each pair, as token ids."""
    for row in range(len(split)):
        yield [ids.tolist() for ids in split.ids([row] * len(IDS), range(len(IDS)))]


def supervised(prompt: TokenIds, answer: TokenIds) -> Row:
    """A row whose loss is the answer's alone."""
    return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + list(answer)}


def preference_rows(split: TokenisedSplit, labels: np.ndarray, end: int, longest: int,
                    most: int = 0, seed: int = 0) -> Rows:
    """Pairs with the answer that `labels` (n,) prefer first; see the top of this file. The pairs
    that are drawn, at `most` so many, do not depend on the labels."""
    whole, absent, too_long = [], 0, 0
    for (prompt, *sides), label in zip(_texts(split), labels, strict=True):
        answers = [ended(side, end) for side in sides]
        if not all(sides):
            absent += 1
        elif max(map(len, answers)) > longest:
            too_long += 1
        else:
            whole.append((prompt, answers, label))
    rows, ties = [], 0
    for prompt, answers, label in drawn(whole, most, seed):
        if label == 0.5:
            ties += 1
            continue
        better, worse = answers if label > 0.5 else answers[::-1]
        rows.append({"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse})
    return Rows(rows, _counted(**{"pairs without preference": ties, "pairs of one side": absent,
                                  "pairs too long": too_long}))


def drawn(items: list[T], most: int, seed: int) -> list[T]:
    """At `most` so many of them, drawn by `seed`, in their order; all where it is 0."""
    if not most or len(items) <= most:
        return items
    places = np.random.default_rng(seed).permutation(len(items))[:most]
    return [items[place] for place in np.sort(places)]


def ended(answer: Sequence[int], end: int) -> TokenIds:
    """The answer up to the token that ends it, which it gets where the template writes none."""
    return list(answer[:answer.index(end) + 1]) if end in answer else [*answer, end]


def rows_of_split(run: RunConfig, plan: Plan, runs_dir: Path) -> Rows:
    """The rows of an sft or dpo run."""
    split, end = plan.split(run, run.split), answer_end(plan.bases[run.model].tokenizer)
    limits = run.policy.max_new_tokens, run.policy.pairs, run.seed
    if run.policy.step == "sft":
        return answer_rows(split, end, *limits)
    return preference_rows(split, _labels(run, plan, runs_dir), end, *limits)


def labeller_of(run: RunConfig, plan: Plan, runs_dir: Path) -> tuple[RunConfig, Path]:
    """The reward model that labels for a policy, and its folder."""
    labeller = next(other for other in plan.needed(run) if other.identity == run.labels)
    return labeller, require_finished(runs_dir, labeller.stage, labeller.identity,
                                      labeller.display_name, f"run ./dpo.sh {run.experiment} again")


def _labels(run: RunConfig, plan: Plan, runs_dir: Path) -> np.ndarray:
    """(n,) P(chosen > rejected) of the run's pairs by whoever labels for it."""
    split = plan.split(run, run.split)
    if run.labels == GROUND_TRUTH:
        return np.ones(len(split))
    labeller, folder = labeller_of(run, plan, runs_dir)
    own = plan.split(labeller, run.split)
    labels = weak_labels_of(folder, labeller, own, run.split, plan.experiment.runtime,
                            lambda: trunk_of(labeller, plan, run.split, runs_dir))
    return in_order(labels, own.pair_ids, split.pair_ids, f"labels of {labeller.display_name}",
                    "prepare the data once for all models")


def _counted(**reasons: int) -> dict[str, int]:
    return {reason: count for reason, count in reasons.items() if count}
