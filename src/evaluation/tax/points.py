"""One average of a run and its base: the margin of every test pair, the nats of every held-out
text; and the linear probe of the base, which costs nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.averaging import Recipe
from configs.run import RunConfig
from model.base.language_head import language_head
from src.common.hashing import content_hash
from src.evaluation.change.before_after import SPLIT, held_out_texts, runtime_of
from src.evaluation.tax.averaged import Arrays, Averaged
from src.evaluation.tax.language import window_nats
from src.measures.metrics import margins_of
from src.runs.plan import Plan
from src.scoring.hidden_states import differences
from src.scoring.labels import labels_for, prompt_numbers
from src.scoring.pairs import score
from src.scoring.trunk_cache import trunk_of
from src.scoring.windows import Windows
from src.training.linear_probe import head_of

ANSWERS = 400
"""Held-out answers that the nats are of, where no text is given."""


@dataclass(frozen=True)
class Measured:
    """What one average says."""

    margins: np.ndarray
    """(n,) of the test pairs."""
    nats: np.ndarray
    """(R,) of the held-out texts."""


def measured(averaged: Averaged, recipe: Recipe, texts: Windows) -> Measured:
    """Both of an average.

    Raises:
        UserError: the run's weights were freed, and this average was not measured before.
    """
    ids = [part.tolist() for row in range(len(texts))
           for part in texts.texts.ids([row] * 2, [0, 1])]
    return Measured(**averaged.known("margins and nats", recipe, content_hash(ids),
                                     lambda: _found(averaged, recipe, texts)))


def _found(averaged: Averaged, recipe: Recipe, texts: Windows) -> Arrays:
    run, plan, model = averaged.run, averaged.plan, averaged.model(recipe)
    nats = window_nats(model, texts, language_head(plan.bases[run.model].path))
    rewards = score(model, plan.split(run, SPLIT), runtime_of(plan), run.display_name,
                    trunk_of(run, plan, SPLIT, averaged.runs_dir))
    return {"margins": margins_of(rewards), "nats": nats}


def probe_margins(run: RunConfig, plan: Plan, runs_dir: Path) -> np.ndarray:
    """(n,) margins of the test pairs by a linear probe of the base on the run's own labels: what is
    to be had for no tax at all."""
    states, pairs = differences(run, plan, run.split, runs_dir), plan.split(run, run.split)
    taught, _ = labels_for(run, plan, runs_dir)
    head, _ = head_of(states, taught, prompt_numbers(pairs), run.seed)
    return differences(run, plan, SPLIT, runs_dir) @ head


def answers_as_windows(plan: Plan, run: RunConfig) -> Windows:
    """Held-out answers to the test pairs' prompts, which are given."""
    texts = held_out_texts(plan, run, ANSWERS)
    ids = texts.ids(range(len(texts)), [1] * len(texts))
    decode = plan.bases[run.model].tokenizer.decode
    return Windows(texts, np.array([*map(len, ids)]),
                   np.array([len(decode(each, skip_special_tokens=True).encode()) for each in ids]))
