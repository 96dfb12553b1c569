"""Experiment -> the runs of each stage, each once, with the identity that its folder is known by.

    teachers   on train_1, human labels      ceilings   on train_2, human labels
    students   on train_2, the weak labels of every teacher that is not bigger
"""

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.schema import (
    GROUND_TRUTH,
    GROUND_TRUTH_METHOD,
    DataConfig,
    ExperimentConfig,
    LadderConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    load_config,
)
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import TokenisedSplit, open_split, read_manifest
from model.base.truncate import check_family, check_length, count_parameters, kept_layers
from model.base.weights import base_fingerprint, read_config
from src.batches.steps import optimiser_steps, tokens_trained
from src.batches.trees import trees_of
from src.common.errors import UserError
from src.methods.losses import check_losses
from src.scoring.trunk_cache import TrunkCache, trunk_cache

SPLIT_OF_STAGE = {"teachers": "train_1", "ceilings": "train_2", "students": "train_2"}


class BaseModel:
    """A base checkpoint on disk, with what the sweep needs to know of it, each read once."""

    def __init__(self, key: str):
        self.key = key
        """What experiments call it: the name of its config, or the config's path."""
        self.config = load_config(ModelConfig, key)
        if not (self.path / "config.json").is_file():
            raise UserError(f"base model {self.config.name} is not at {self.path}: run `python "
                            f"model/download.py --model {self.config.name}` first (the experiment "
                            "`demo` needs no download)")
        self.hf_config = read_config(self.path)
        check_family(self.hf_config, str(self.path), self.config.family)
        self.layers = self.hf_config.num_hidden_layers

    @property
    def path(self) -> Path:
        return self.config.path

    @cached_property
    def fingerprint(self) -> str:
        return base_fingerprint(self.path)

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.path, self.config.chat_template)

    @cached_property
    def tokenizer_key(self) -> str:
        return tokenizer_key(self.tokenizer)


@dataclass(frozen=True)
class Rung:
    """One size of teacher or student."""

    name: str
    base: BaseModel
    kept: tuple[int, ...]
    parameters: int
    """Without embeddings: what a forward costs, and what makes a student bigger than a teacher."""
    trained: int
    """Those of them in layers that train."""


class Sweep:
    """The runs of an experiment over its seeds, or over `seeds` if given.

    Raises:
        UserError: a method names a loss that there is not; a base model or the prepared data is
            missing, or they do not fit each other.
    """

    def __init__(self, experiment: ExperimentConfig, data_dir: Path, seeds: tuple[int, ...] = ()):
        check_losses(experiment.methods, f"experiments/{experiment.name}")
        self.experiment = dataclasses.replace(experiment, seeds=seeds or experiment.seeds)
        self.seeds = self.experiment.seeds
        self.data = load_config(DataConfig, experiment.data)
        self.processed = data_dir / self.data.name
        self._bases: dict[str, BaseModel] = {}
        for name in experiment.model_names:  # what is hardest to come by is asked for first
            self.base(name)
        if not self.processed.is_dir():
            raise UserError(f"{self.processed}: no prepared data: run `python data/preprocess.py "
                            f"--experiment {experiment.name}` first")
        self.data_hash = read_manifest(self.processed)["data_hash"]
        self._splits: dict[tuple[str, str], TokenisedSplit] = {}
        self.teachers = self._rungs(experiment.teachers)
        self.students = self._rungs(experiment.students)
        for teacher, student in itertools.product(self.teachers, self.students):
            if teacher.name == student.name and teacher.base.key != student.base.key:
                raise UserError(f"experiments/{experiment.name}: {teacher.base.key} and "
                                f"{student.base.key} both make a rung {teacher.name}, which no "
                                "table could tell apart: rename one of these files")

    def base(self, key: str) -> BaseModel:
        """The base model that the experiment calls `key`."""
        if key not in self._bases:
            self._bases[key] = BaseModel(key)
        return self._bases[key]

    def split(self, model: str, split: str) -> TokenisedSplit:
        """A split's pairs under the tokenizer of base model `model`, opened once."""
        key = (self.base(model).tokenizer_key, split)
        if key not in self._splits:
            self._splits[key] = open_split(self.processed, *key)
        return self._splits[key]

    def runs(self, stage: str) -> list[RunConfig]:
        """The runs of one of STAGES, in the order that they are trained."""
        if stage == "students":
            return [self._student_run(student, teacher, method, seed)
                    for seed in self.seeds
                    for teacher in self.teachers
                    for student in self.students if student.parameters >= teacher.parameters
                    for method in self.experiment.methods]
        rungs = self.teachers if stage == "teachers" else self.students
        return [self._truth_run(stage, rung, seed) for seed in self.seeds for rung in rungs]

    def teacher_of(self, student: RunConfig) -> RunConfig:
        """The teacher run whose weak labels `student` learns from."""
        return next(run for run in self.runs("teachers") if run.identity == student.labels)

    def rung(self, run: RunConfig) -> Rung:
        """The rung that `run` trains."""
        return next(rung for rung in (*self.teachers, *self.students) if rung.name == run.name)

    def trunk(self, run: RunConfig, split: str, runs_dir: Path) -> TrunkCache | None:
        """What the frozen layers of `run` make of a split, if it has any and they are kept."""
        base = self.base(run.model)
        return trunk_cache(run, base.path, base.tokenizer.pad_token_id,
                           self.split(run.model, split), split, self.experiment.runtime, runs_dir)

    def work(self, run: RunConfig) -> tuple[int, float]:
        """(tokens, floating-point operations) of training `run`: 6 per parameter and token. Of
        prompts that several pairs of a step share, each is counted once; of layers that do not
        train, nothing: they run once for all runs."""
        split, train = self.split(run.model, run.split), run.train
        trees = trees_of(split, self.experiment.runtime.share_prompt)
        tokens = tokens_trained(trees, train.batch_pairs, train.epochs, run.seed,
                                train.shuffle == "prompts")
        return tokens, 6.0 * tokens * self.rung(run).trained

    def steps(self, run: RunConfig) -> int:
        return optimiser_steps(run, len(self.split(run.model, run.split)))

    def _rungs(self, ladders: Iterable[LadderConfig]) -> list[Rung]:
        rungs = []
        for ladder in ladders:
            base = self.base(ladder.model)
            check_length(base.hf_config, self.data.max_length,
                         f"experiments/{self.experiment.name}")
            for count in ladder.layers or (None,):
                kept = kept_layers(base.layers, count, ladder.keep)
                top = self.experiment.train.trainable_layers or len(kept)
                counts = [count_parameters(base.hf_config, some)[1] for some in (kept, kept[-top:])]
                rungs.append(Rung(rung_name(base, ladder, kept), base, kept, *counts))
        names = [rung.name for rung in rungs]
        if len(set(names)) != len(names):
            raise UserError(f"experiments/{self.experiment.name}: rungs {', '.join(names)} repeat")
        return rungs

    def _run(self, rung: Rung, **facts) -> RunConfig:
        train = self.experiment.train
        if train.learning_rate is None:
            train = dataclasses.replace(train, learning_rate=rung.base.config.learning_rate)
        if facts["role"] != "student":  # nothing weak to stop on
            train = without_stopping(train)
        return RunConfig(
            experiment=self.experiment.name, name=rung.name, model=rung.base.key,
            base=rung.base.fingerprint, kept=rung.kept, data=self.data.name,
            data_hash=self.data_hash, tokenizer=rung.base.tokenizer_key, train=train, **facts)

    def _truth_run(self, stage: str, rung: Rung, seed: int) -> RunConfig:
        return self._run(rung, role=stage[:-1], split=SPLIT_OF_STAGE[stage], labels=GROUND_TRUTH,
                         teacher="", method=GROUND_TRUTH_METHOD, seed=seed)

    def _student_run(self, student: Rung, teacher: Rung, method: MethodConfig,
                     seed: int) -> RunConfig:
        taught_by = self._truth_run("teachers", teacher, seed)
        return self._run(student, role="student", split="train_2", labels=taught_by.identity,
                         teacher=teacher.name, method=method, seed=seed)


def without_stopping(train: TrainConfig) -> TrainConfig:
    """The same budget without early stopping, nor what only enters it: ceilings are shared by
    experiments that stop their students differently."""
    return dataclasses.replace(train, early_stopping_evals=0, eval_frac=TrainConfig().eval_frac)


def rung_name(base: BaseModel, ladder: LadderConfig, kept: tuple[int, ...]) -> str:
    """`demo-L4` evenly spaced, `demo-F4` first, `demo-K1_5` listed; the whole model is L."""
    if len(kept) == base.layers or ladder.keep == "evenly_spaced":
        return f"{base.config.name}-L{len(kept)}"
    if ladder.keep == "first":
        return f"{base.config.name}-F{len(kept)}"
    return f"{base.config.name}-K{'_'.join(map(str, kept))}"
