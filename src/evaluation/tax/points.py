"""Averages of a run and its base, in memory: the margin of every test pair, the nats of every
held-out text.

    runs/fronts/<hash>.npz     margins (n,), nats (R,): the name has all that they are a function of

A point of a large model takes a minute: what was measured once is read.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from configs.averaging import Recipe
from configs.identity import facts
from configs.run import RunConfig
from model.base.average.mix import averaged_model
from model.base.language_head import language_head
from src.common.files import atomic_path
from src.common.hashing import content_hash
from src.evaluation.change.before_after import SPLIT, after, before, held_out_texts, runtime_of
from src.evaluation.tax.language import window_nats
from src.evaluation.tax.recipes import Average
from src.measures.metrics import margins_of
from src.runs.freed import run_fingerprint
from src.runs.plan import Plan
from src.scoring.hidden_states import differences
from src.scoring.labels import labels_for, prompt_numbers
from src.scoring.pairs import precision_of, score
from src.scoring.trunk_cache import trunk_of
from src.scoring.windows import Windows
from src.training.linear_probe import head_of

FORMAT = 1
FRONTS = "fronts"
ANSWERS = 400
"""Held-out answers that the nats are of, where no text is given."""


@dataclass(frozen=True)
class Measured:
    """What one average says."""

    margins: np.ndarray
    """(n,) of the test pairs."""
    nats: np.ndarray
    """(R,) of the held-out texts."""


def measure(run: RunConfig, folder: Path, plan: Plan, points: Sequence[Average], texts: Windows,
            runs_dir: Path) -> Iterator[Measured]:
    """Each average of the run and its base, measured where it was not yet.

    Raises:
        UserError: the run's weights were freed, and a point was not measured before.
    """
    models: list[PreTrainedModel] = []
    for point in points:
        path = runs_dir / FRONTS / f"{_key(run, folder, point.recipe, texts)}.npz"
        found = _stored(path)
        if found is None:
            models = models or [before(run, plan), after(run, folder, plan)]
            found = _measured(*models, point.recipe, run, plan, texts, runs_dir)
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, margins=found.margins, nats=found.nats)
        yield found


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


def _measured(base: PreTrainedModel, tuned: PreTrainedModel, recipe: Recipe, run: RunConfig,
              plan: Plan, texts: Windows, runs_dir: Path) -> Measured:
    names = [name for name, _ in tuned.named_parameters()]
    model = averaged_model(base, tuned, recipe.weights(names, len(run.kept)))
    nats = window_nats(model, texts, language_head(plan.bases[run.model].path))
    rewards = score(model, plan.split(run, SPLIT), runtime_of(plan), run.display_name,
                    trunk_of(run, plan, SPLIT, runs_dir))
    return Measured(margins_of(rewards), nats)


def _key(run: RunConfig, folder: Path, recipe: Recipe, texts: Windows) -> str:
    ids = [texts.texts.ids([row] * 2, [0, 1]) for row in range(len(texts))]
    return content_hash([FORMAT, run_fingerprint(folder), run.base, run.kept, facts(recipe),
                         run.data_hash, run.tokenizer, precision_of(run),
                         content_hash([[part.tolist() for part in pair] for pair in ids])])


def _stored(path: Path) -> Measured | None:
    try:
        with np.load(path, allow_pickle=False) as found:
            return Measured(found["margins"], found["nats"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
