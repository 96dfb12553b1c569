"""An experiment's training in seconds: its runs, trunks and weak labels, and what is left of them.

    runs        forward and backward of what trains
    trunks      once for each split, the deepest; a deeper one begins where a shallower one ends
    labels      a forward of each teacher over train_2, and val with early stopping; one more where
                its hidden states are asked for
    states      one of the student's base over each split that treatments or probes read

What evaluation adds stands in src/evaluation/overview.py.
"""

import functools
from pathlib import Path
from typing import NamedTuple

from configs.run import STAGES, RunConfig
from model.base.trunk import frozen_of
from src.batches.steps import optimiser_steps
from src.common.files import read_json
from src.methods.distilled_layers import distils
from src.methods.label_treatments import TREATMENTS
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.scoring.hidden_states import states_path
from src.scoring.trunk_cache import MANIFEST, TRUNKS, Trunk, planned_trunk, trunk_bytes
from src.training import work
from src.training.speed import Speed, speed_of

RUN_SECONDS = 2.0
"""To build a model, save it and load it again to compare; more for bigger ones."""
LAUNCH_SECONDS = 10.0
"""Before a stage's first run: libraries are loaded, in every worker."""


class Piece(NamedTuple):
    """What a run needs to be trained, or scored."""

    run: RunConfig
    is_done: bool
    own: float
    """Operations of its training, or of scoring it. Of a run that is done, of the steps it took."""
    beside: float
    """Operations of trunks and labels that nothing has made before."""


class Estimate:
    """What `plan` takes with so many runs at a time, given what is in `runs_dir`."""

    def __init__(self, plan: Plan, runs_dir: Path, workers: int):
        self.plan, self.runs_dir, self.workers = plan, runs_dir, workers
        self.folders = {run.identity: find_finished(runs_dir, run.stage, run.identity)
                        for run in plan.runs}
        self._known: dict[Trunk, int] = {}
        """Trunks that no disk holds yet -> the turn of the run that makes it."""
        self._turn = 0
        self._labelled: set[tuple[str, str]] = set()
        self._distilled: set[str] = set()
        self._asked_states: set[Path] = set()
        self.pieces = {stage: [self._piece(run) for run in plan.stage(stage)] for stage in STAGES}

    @functools.cached_property
    def speed(self) -> Speed:
        return speed_of(self.plan, [(piece.own, self.folders[piece.run.identity])
                                    for stage in self.pieces.values() for piece in stage
                                    if piece.is_done], self.workers)

    @property
    def done(self) -> int:
        """Runs that are finished."""
        return sum(map(bool, self.folders.values()))

    def seconds_of(self, piece: Piece) -> float:
        """Of the piece on its own, done or not, without what others share."""
        return piece.own / self.speed.flops_per_second

    def stage_seconds(self, stage: str) -> float:
        """What is left of a stage: its slowest worker's share."""
        pieces = self.pieces[stage]
        shares = [sum(map(self.left, pieces[worker::self.workers]))
                  for worker in range(self.workers)]
        return max(shares) + LAUNCH_SECONDS * any(not piece.is_done for piece in pieces)

    def left(self, piece: Piece) -> float:
        """Seconds until the piece is done, with what it is the first to need."""
        if piece.is_done:
            return 0.0
        return self.seconds_of(piece) + piece.beside / self.speed.flops_per_second + RUN_SECONDS

    def scored(self, run: RunConfig, split: str, like: str, ratio: float) -> Piece:
        """Scoring a run, after those before it, on a split of which only this is known: it has
        `ratio` times the tokens of the split `like`."""
        self._turn += self.workers
        if self._has(run, "scores", split):
            return Piece(run, True, 0.0, 0.0)
        cached = self._cached(run, split, like, ratio)
        return Piece(run, False, ratio * work.scoring(run, self.plan, like, cached),
                     self._trunk(run, split, like, ratio))

    def _piece(self, run: RunConfig) -> Piece:
        done, beside = self.folders[run.identity] is not None, 0.0
        self._turn += not done
        if run.kind == "average":
            return Piece(run, done, work.averaging(run, self.plan), 0.0)
        splits = [run.split, *(["val"] if run.train.early_stopping_evals else [])]
        if not done:
            probe, asked = run.method.learner == "probe", TREATMENTS.asks(run.method.treatment)
            beside = 0.0 if probe else sum(self._trunk(run, split) for split in splits)
            if probe or "features" in asked:
                beside += sum(self._states(run, split) for split in splits)
            if "val_features" in asked:
                beside += self._states(run, "val")
            if "val_label" in asked:
                splits = list(dict.fromkeys([*splits, "val"]))
            elif run.method.stop_on == "truth":
                splits = [run.split]
            beside += sum(self._labels(other, split) for other in self.plan.needed(run)
                          for split in splits)
            if distils(run.method):
                beside += sum(map(self._hints, self.plan.needed(run)))
        own = work.training(run, self.plan, self._cached(run, run.split))
        return Piece(run, done, self._share_taken(run) * own, beside)

    def _share_taken(self, run: RunConfig) -> float:
        """Of the steps of its budget: a run that stopped early took fewer in its seconds."""
        folder = self.folders[run.identity]
        if folder is None or not run.train.early_stopping_evals:
            return 1.0
        manifest = read_json(folder / "manifest.json")
        return manifest["steps"] / optimiser_steps(run, manifest["pairs"]) if manifest else 1.0

    def _labels(self, run: RunConfig, split: str) -> float:
        """Of a run's labels, unless they are there or one before has asked for them."""
        if (run.identity, split) in self._labelled or self._has(run, "weak_labels", split):
            return 0.0
        self._labelled.add((run.identity, split))
        return self._forward(run, split)

    def _hints(self, teacher: RunConfig) -> float:
        """Of a teacher's hidden states, unless one before asks for them."""
        if teacher.identity in self._distilled:
            return 0.0
        self._distilled.add(teacher.identity)
        return self._forward(teacher, "train_2")

    def _states(self, run: RunConfig, split: str) -> float:
        """Of the hidden states of the run's base, unless they are there or one before asks."""
        path = states_path(run, self.plan, split, self.runs_dir)
        if path in self._asked_states or path.is_file():
            return 0.0
        self._asked_states.add(path)
        return self._forward(run, split)

    def _forward(self, run: RunConfig, split: str) -> float:
        """Over a split, with the trunk below it."""
        return self._trunk(run, split) + work.scoring(run, self.plan, split,
                                                      self._cached(run, split))

    def _has(self, run: RunConfig, folder: str, split: str) -> bool:
        found = self.folders[run.identity]
        return found is not None and (found / folder / f"{split}.parquet").is_file()

    def _cached(self, run: RunConfig, split: str, like: str = "", ratio: float = 1.0) -> bool:
        """Whether the layers of `run` that do not train, if any, run once for all runs."""
        return not frozen_of(run) or self._kept_trunk(run, split, like or split, ratio) is not None

    def _kept_trunk(self, run: RunConfig, split: str, like: str, ratio: float) -> Trunk | None:
        """The trunk that the run reads; None where there is none, or the disk budget is less."""
        trunk = planned_trunk(run, self.plan, split)
        if trunk is None:
            return None
        size = trunk_bytes(trunk.dtype, round(ratio * work.split_tokens(run, self.plan, like)),
                           self.plan.bases[run.model].hf_config.hidden_size)
        return trunk if size <= self.plan.experiment.runtime.trunk_cache_gb * 1e9 else None

    def _trunk(self, run: RunConfig, split: str, like: str = "", ratio: float = 1.0) -> float:
        """Of what the run's trunk needs beyond those that are there or were asked for before."""
        trunk = self._kept_trunk(run, split, like or split, ratio)
        if trunk is None or trunk in self._known or self._on_disk(trunk):
            return 0.0
        known = next((other.layers for other in trunk.shallower()
                      if self._made_before(other) or self._on_disk(other)), ())
        self._known[trunk] = self._turn
        return ratio * work.trunk(run, self.plan, like or split, trunk.layers, known)

    def _made_before(self, trunk: Trunk) -> bool:
        """Whether a run makes it that does not begin beside the present one."""
        return self._known.get(trunk, self._turn) <= self._turn - self.workers

    def _on_disk(self, trunk: Trunk) -> bool:
        return (trunk.folder(self.runs_dir / TRUNKS) / MANIFEST).is_file()
