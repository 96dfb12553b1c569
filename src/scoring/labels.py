"""What a run learns from: human labels, or those of the runs that it needs, as its method treats
them.
"""

import dataclasses
from pathlib import Path

import numpy as np

from configs.run import RunConfig
from data.records import left_is_chosen
from data.tokens.tokenised import TokenisedSplit
from src.batches.steps import ALL_PAIRS, Course, count_kept, optimiser_steps
from src.common import distributed
from src.methods.distilled_layers import distils, layer_pairs
from src.methods.label_treatments import TREATMENTS, Hints, Taught
from src.methods.labelling import treat
from src.methods.losses import LOSSES
from src.runs import folders
from src.runs.plan import Plan
from src.scoring.hidden_states import differences
from src.scoring.teacher_states import teacher_states
from src.scoring.trunk_cache import trunk_of
from src.scoring.weak_labels import weak_labels_of

SCRIPTS = {"teachers": "train_teacher_model.sh", "ceilings": "train_student_model.sh",
           "students": "weak_to_strong.sh"}


def labels_for(run: RunConfig, plan: Plan, runs_dir: Path) -> tuple[Taught, np.ndarray | None]:
    """What `run` learns from its split, chosen left and rejected right; and P(chosen > rejected) of
    val where it stops early.

    Human labels are all 1. A student's are those of the runs that it needs, each under its own
    tokenizer.
    """
    if run.kind != "student":
        pairs = plan.split(run, run.split)
        kept = None if run.train_share == 1 else prompts_kept(
            prompt_numbers(pairs), run.train_share, run.seed)
        return Taught(np.ones(len(pairs)), kept=kept), None
    given = Given(run, plan, runs_dir)
    val = given.stopping() if run.train.early_stopping_evals else None
    taught = given.treated(run.split)
    if "votes" in LOSSES.asks(run.method.loss):
        taught = dataclasses.replace(taught, votes=given.votes(run.split))
    if distils(run.method):
        taught = dataclasses.replace(taught, hints=given.hints(run.split))
    return taught, val


def course_of(run: RunConfig, taught: Taught) -> Course:
    """Which pairs the steps of `run` take."""
    if taught.kept is None and taught.first is None:
        return ALL_PAIRS
    steps = optimiser_steps(run, count_kept(len(taught.labels), taught.kept))
    return Course(taught.kept, taught.first, max(1, round(taught.first_frac * steps)),
                  taught.later_rate)


class Given:
    """What a student's treatment may ask for, looked up where it does.

    Treatments see each pair with its sides as a batch has them, picked by a hash: `chosen` is the
    human label, and none of them can read what it does not get.
    """

    def __init__(self, run: RunConfig, plan: Plan, runs_dir: Path):
        self.run, self.plan, self.runs_dir = run, plan, runs_dir
        self.needed = {kind: [(other, self._folder(other)) for other in plan.needed(run)
                              if other.kind == kind] for kind in ("teacher", "student")}
        self.labelling = self.needed["student" if run.method.through else "teacher"]
        """Whose labels it is taught: in a chain, those of the one before it."""

    def treated(self, split: str) -> Taught:
        """What the student learns from the pairs of a split, chosen left again. One process finds
        it: ranks that rounded a choice of pairs differently would wait for each other."""
        given = {asked: self._find(asked, split)
                 for asked in TREATMENTS.asks(self.run.method.treatment)}
        found = distributed.on_main(lambda: treat(self.run.method, given))
        return dataclasses.replace(found, labels=self._turned(found.labels, split))

    def stopping(self) -> np.ndarray:
        """P(chosen > rejected) of val that the student stops on."""
        if self.run.method.stop_on == "truth":
            return np.ones(len(self.plan.split(self.run, "val")))
        return self.treated("val").labels

    def votes(self, split: str) -> np.ndarray:
        """(k, n): P(chosen > rejected) by each teacher."""
        return np.stack([self._weak_labels(*one, split) for one in self.labelling])

    def hints(self, split: str) -> Hints:
        """The hidden states that the method's loss asks for, of each teacher."""
        layers: list[int] = []
        states: list[np.ndarray] = []
        for teacher, folder in self.labelling:
            pairs = layer_pairs(self.run.method, len(self.run.kept), len(teacher.kept))
            layers += [own for own, _ in pairs]
            states += teacher_states(folder, teacher, self.plan, split,
                                     [theirs for _, theirs in pairs], self.runs_dir)
        return Hints(tuple(layers), tuple(states))

    def _find(self, asked: str, split: str) -> int | np.ndarray:
        if asked == "seed":
            return self.run.seed
        if asked == "prompt":
            return prompt_numbers(self.plan.split(self.run, split))
        if asked == "truth":
            return self._left_is_chosen(split).astype(float)
        place = "val" if asked.startswith("val_") else split
        if asked.endswith("features"):
            return self._features(place)
        whose = self.needed["student"] if asked == "earlier" else self.labelling
        labels = [self._turned(self._weak_labels(*one, place), place) for one in whose]
        return np.stack(labels) if asked == "labels" else labels[0]

    def _features(self, split: str) -> np.ndarray:
        """State of the left response minus that of the right one."""
        found = differences(self.run, self.plan, split, self.runs_dir)
        return np.where(self._left_is_chosen(split)[:, None], found, -found)

    def _weak_labels(self, other: RunConfig, folder: Path, split: str) -> np.ndarray:
        return weak_labels_of(folder, other, self.plan.split(other, split), split,
                              self.plan.experiment.runtime,
                              lambda: trunk_of(other, self.plan, split, self.runs_dir))

    def _folder(self, other: RunConfig) -> Path:
        return folders.require_finished(
            self.runs_dir, other.stage, other.identity, other.display_name,
            f"run ./{SCRIPTS[other.stage]} {self.run.experiment} first")

    def _left_is_chosen(self, split: str) -> np.ndarray:
        ids = self.plan.split(self.run, split).pair_ids
        return np.array([left_is_chosen(pair_id) for pair_id in ids], bool)

    def _turned(self, labels: np.ndarray, split: str) -> np.ndarray:
        """P(chosen > rejected) -> P(left > right), or back, which gives the same numbers again."""
        return np.where(self._left_is_chosen(split), labels, 1 - labels)


def prompt_numbers(pairs: TokenisedSplit) -> np.ndarray:
    """(n,) int: number of each pair's prompt."""
    return np.unique(pairs.prompt_ids, return_inverse=True)[1]


def prompts_kept(prompts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) bool: the pairs of so large a share of the prompts, one prompt at least, drawn by lot.
    Of the same seed, those of a smaller share are among those of a larger one.

    Args:
        prompts: (n,) int, the number of each pair's prompt, from 0 on.
    """
    count = int(prompts.max()) + 1
    place = np.random.default_rng(seed).permutation(count)
    return place[prompts] < max(1, round(share * count))
