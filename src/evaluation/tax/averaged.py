"""A run and its base, averages of the two in memory, and what was found of these, on disk:

    runs/fronts/<hash>.npz      the name has all that the arrays are a function of

A point of a large model takes a minute or more: what was found once is read.
"""

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from configs.averaging import Recipe
from configs.identity import facts
from configs.run import RunConfig
from model.base.average.mix import averaged_model
from src.common.files import atomic_path
from src.common.hashing import content_hash
from src.evaluation.change.before_after import after, before
from src.runs.freed import run_fingerprint
from src.runs.plan import Plan
from src.scoring.pairs import precision_of

FORMAT = 1
FRONTS = "fronts"
Arrays = dict[str, np.ndarray]


class Averaged:
    """Models are read when an average is asked for that nothing is known of yet."""

    def __init__(self, run: RunConfig, folder: Path, plan: Plan, runs_dir: Path):
        self.run, self.folder, self.plan, self.runs_dir = run, folder, plan, runs_dir

    @functools.cached_property
    def models(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        """The base, cut as the run is, and the run; UserError where its weights were freed."""
        return before(self.run, self.plan), after(self.run, self.folder, self.plan)

    def model(self, recipe: Recipe) -> PreTrainedModel:
        """A new model."""
        base, tuned = self.models
        names = [name for name, _ in tuned.named_parameters()]
        return averaged_model(base, tuned, recipe.weights(names, len(self.run.kept)))

    def known(self, what: str, recipe: Recipe, given: object,
              find: Callable[[], Arrays]) -> Arrays:
        """What `find` gives, or gave before of the same.

        Args:
            what: names the question.
            given: what else the answer is a function of, as JSON takes it.
        """
        run = self.run
        key = content_hash([FORMAT, what, given, facts(recipe), run_fingerprint(self.folder),
                            run.base, run.kept, run.data_hash, run.tokenizer, precision_of(run)])
        path = self.runs_dir / FRONTS / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            found = find()
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
        return found
