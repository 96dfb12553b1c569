"""Experiment -> its runs, each once, with the identity that its folder is known by: a graph.

    teacher   on train_1, human labels       ceiling   on train_2, human labels
    student   on train_2, the weak labels of a teacher that is not bigger, which it needs, and with
              some methods those of an earlier student
    link      a student between the two, which labels for the next of its chain (`through`)
    average   of a student, which it needs, and its base
    policy    a language model aligned to one of these, see src/runs/policies.py

A stage is the runs of one kind. Opens no pairs and trains nothing.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.averaging import Recipe
from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, POLICIES, RunConfig
from configs.schema import (
    DataConfig,
    ExperimentConfig,
    LadderConfig,
    MethodConfig,
    TrainConfig,
    load_config,
)
from data.manifest import read_manifest
from data.tokens.tokenised import PreparedData, TokenisedSplit
from model.base.adapters import adapter_parameters
from model.base.truncate import check_length, kept_layers
from src.common.errors import UserError
from src.common.precision import used
from src.methods.distilled_layers import check_layers
from src.methods.labelling import check_treatments, is_link, of_several, val_reader
from src.methods.losses import check_losses
from src.runs.averages import average_of, recipes_of
from src.runs.bases import BaseModel
from src.runs.policies import policy_runs
from src.runs.rungs import Rung, rung_name, rungs_of

SPLIT_OF_KIND = {"teacher": "train_1", "ceiling": "train_2", "student": "train_2"}


class Plan:
    """The runs of an experiment over its seeds, or over `seeds` if given.

    Args:
        only: beginnings of identities: of a stage, these runs alone.
    Raises:
        UserError: a method names a loss that there is not; a base model or the prepared data is
            missing, or they do not fit each other; the data have no val for a run that reads it;
            adapters are for layers that a model has not.
    """

    def __init__(self, experiment: ExperimentConfig, data_dir: Path, seeds: tuple[int, ...] = (),
                 only: tuple[str, ...] = ()):
        methods = check_losses(experiment.methods, f"experiments/{experiment.name}")
        self.experiment = dataclasses.replace(experiment, seeds=seeds or experiment.seeds,
                                              methods=methods)
        self.data = load_config(DataConfig, experiment.data)
        # What is hardest to come by is asked for first.
        self.bases = {name: BaseModel(name) for name in experiment.model_names}
        self.prepared = PreparedData(data_dir / self.data.name)
        if not self.prepared.folder.is_dir():
            raise UserError(f"{self.prepared.folder}: no prepared data: run `python "
                            f"data/preprocess.py --experiment {experiment.name}` first")
        manifest = read_manifest(self.prepared.folder)
        self.data_hash = manifest["data_hash"]
        self.teachers = self._rungs(experiment.teachers)
        self.students = self._rungs(experiment.students)
        self.links = {method.name: self._rungs(method.through) for method in methods}
        """Method -> the rungs of its chain."""
        self._refuse_equal_names()
        self.experiment = dataclasses.replace(self.experiment, methods=check_treatments(
            methods, len(self.teachers), f"experiments/{experiment.name}"))
        recipes = recipes_of(experiment.averages, f"experiments/{experiment.name}")
        self._check_taxes(recipes)
        students = self._student_runs()
        self.runs = tuple(itertools.chain(
            self._truth_runs("teacher", self.teachers), self._truth_runs("ceiling", self.students),
            students, (average_of(student, recipe) for student in students
                       if not is_link(student.method, methods) for recipe in recipes)))
        self._check_val(manifest["splits"])
        self.policies = self._policies()
        """Apart from `runs`, which are reward models."""
        self.only = only
        strange = [each for each in only if not any(
            run.identity.startswith(each) for run in (*self.runs, *self.policies))]
        if strange:
            raise UserError(f"experiments/{experiment.name} has no run {', '.join(strange)}: its "
                            "configs or its data are others than when the job was submitted: give "
                            "the same command again")

    def _check_taxes(self, recipes: Iterable[Recipe]) -> None:
        held = [each for each in recipes if each.holds_tax]
        headless = [rung.base for rung in self.students if not rung.base.has_language_head]
        if held and headless:
            raise UserError(f"{headless[0].path}: no language head, so the tax that recipe "
                            f"{held[0].name} holds cannot be measured: name a base model with its "
                            "head, or leave the recipe out")

    def _check_val(self, splits: Mapping[str, dict]) -> None:
        """Raise UserError where a run reads val and there is none: a student does, whose turn comes
        once all teachers and ceilings are trained."""
        if splits.get("val", {"pairs": 0})["pairs"]:
            return
        for run in self.runs:
            if reader := val_reader(run):
                raise UserError(f"{self.prepared.folder}: no val, which method {run.method.name} "
                                f"reads by its {reader}: raise val_pairs in the data's config "
                                f"({self.data.name}) and prepare them anew, or leave it out")

    def stage(self, stage: str) -> list[RunConfig]:
        """The runs of one of STAGES, or the policies, in the order that they are trained."""
        runs = self.policies if stage == POLICIES else self.runs
        return [run for run in runs if run.stage == stage
                and (not self.only or run.identity.startswith(self.only))]

    def split(self, run: RunConfig, split: str) -> TokenisedSplit:
        """A split's pairs under the tokenizer of `run`."""
        return self.prepared.split(run.tokenizer, split)

    def needed(self, run: RunConfig) -> list[RunConfig]:
        """The runs that have to be finished before `run` can begin."""
        return [other for other in (*self.runs, *self.policies) if other.identity in run.needs]

    def _policies(self) -> tuple[RunConfig, ...]:
        config = self.experiment.policies
        if config is None:
            return ()
        base = self.bases[config.model]
        check_length(base.hf_config, self.data.max_length + config.max_new_tokens,
                     f"experiments/{self.experiment.name}")
        kept = kept_layers(base.layers, config.layers, config.keep)
        name = rung_name(base, LadderConfig(config.model, keep=config.keep), kept)
        if not base.has_language_head:
            raise UserError(f"{base.path}: no language head, so no policy can be made of it: name "
                            "a base model with its head as policies.model")
        for lora in filter(None, (config.sft.lora, config.dpo.lora)):
            if not isinstance(lora.targets, str):
                adapter_parameters(base.hf_config, kept[-1:], lora, f"{base.config.name}, policies")
        return policy_runs(self.experiment, self.runs, {
            "experiment": self.experiment.name, "name": name,
            "model": base.key, "base": base.fingerprint, "kept": kept, "data": self.data.name,
            "data_hash": self.data_hash, "tokenizer": base.tokenizer_key})

    def _rungs(self, ladders: Iterable[LadderConfig]) -> list[Rung]:
        return rungs_of(ladders, self.experiment, self.data.max_length, self.bases, self.prepared,
                        self.data_hash)

    def _refuse_equal_names(self) -> None:
        rungs = [*self.teachers, *itertools.chain(*self.links.values()), *self.students]
        for one, other in itertools.combinations(rungs, 2):
            if one.name == other.name and one.base.key != other.base.key:
                raise UserError(f"experiments/{self.experiment.name}: {one.base.key} and "
                                f"{other.base.key} both make a rung {one.name}, which no "
                                "table could tell apart: rename one of these files")

    def _run(self, rung: Rung, **facts) -> RunConfig:
        train = dataclasses.replace(rung.trained(self.experiment.train),
                                    learning_rate=rung.learning_rate,
                                    precision=used(self.experiment.train.precision))
        if facts["kind"] != "student" or facts["method"].learner == "probe":  # nothing to stop on
            train = without_stopping(train)
        elif facts["method"].early_stopping_evals:
            train = dataclasses.replace(
                train, early_stopping_evals=facts["method"].early_stopping_evals)
        return RunConfig(
            experiment=self.experiment.name, name=rung.name, model=rung.base.key,
            base=rung.base.fingerprint, kept=rung.kept, keep=rung.keep, data=self.data.name,
            data_hash=self.data_hash, tokenizer=rung.base.tokenizer_key, train=train,
            split=SPLIT_OF_KIND[facts["kind"]], train_share=rung.train_share, **facts)

    def _truth_run(self, kind: str, rung: Rung, seed: int) -> RunConfig:
        return self._run(rung, kind=kind, labels=GROUND_TRUTH, teacher="",
                         method=GROUND_TRUTH_METHOD, seed=seed)

    def _truth_runs(self, kind: str, rungs: list[Rung]) -> list[RunConfig]:
        return [self._truth_run(kind, rung, seed)
                for seed in self.experiment.seeds for rung in rungs]

    def _student_runs(self) -> list[RunConfig]:
        groups = [(False, [teacher]) for teacher in self.teachers] + [(True, self.teachers)]
        methods = self.experiment.methods
        chains = [self._chain(student, teachers, method, seed)
                  for seed in self.experiment.seeds
                  for several, teachers in groups
                  for student in self.students
                  for method in methods if of_several(method, methods) == several
                  and self._grows(student, teachers, method)]
        students = [student for *_, student in chains]
        self._refuse_chains_of_nobody(students)
        links = {link.identity: link for *links, _ in chains for link in links}
        for student in students:  # which is a link as well, under its own name
            links.pop(student.identity, None)
        return [*links.values(), *students]

    def _chain(self, student: Rung, teachers: list[Rung], method: MethodConfig,
               seed: int) -> list[RunConfig]:
        """The student, and before it the links of its chain in their order."""
        rungs = (*self.links[method.name], student)
        return [self._student_run(rung, teachers, dataclasses.replace(
            method, through=method.through[:place]), seed) for place, rung in enumerate(rungs)]

    def _grows(self, student: Rung, teachers: list[Rung], method: MethodConfig) -> bool:
        """Whether the student is no smaller than its teachers; in a chain, each one bigger than who
        teaches it."""
        sizes = [max(teacher.parameters for teacher in teachers),
                 *(rung.parameters for rung in self.links[method.name]), student.parameters]
        fits = operator.lt if method.through else operator.le
        return all(itertools.starmap(fits, itertools.pairwise(sizes))) and all(
            self._grows(student, teachers, other)
            for other in self.experiment.methods if other.name == method.after)

    def _refuse_chains_of_nobody(self, students: list[RunConfig]) -> None:
        for method in self.experiment.methods:
            if method.through and method.name not in {run.method.name for run in students}:
                raise UserError(
                    f"experiments/{self.experiment.name}: method {method.name} goes through "
                    f"{', '.join(rung.name for rung in self.links[method.name])}: no teacher is "
                    "smaller and no student bigger, or they do not stand from the smaller to the "
                    "bigger: name rungs between the two")

    def _student_run(self, student: Rung, teachers: list[Rung], method: MethodConfig,
                     seed: int) -> RunConfig:
        names = "+".join(teacher.name for teacher in teachers)
        link = self.links[method.name][len(method.through) - 1] if method.through else None
        check_layers(method, len(student.kept),
                     [len(rung.kept) for rung in ([link] if link else teachers)],
                     student.trained(self.experiment.train), f"experiments/{self.experiment.name}")
        labels = [self._truth_run("teacher", teacher, seed).identity for teacher in teachers]
        before = [self._student_run(student, teachers, other, seed)
                  for other in self.experiment.methods if other.name == method.after]
        if link:
            shorter = dataclasses.replace(method, through=method.through[:-1])
            before = [self._student_run(link, teachers, shorter, seed)]
        return self._run(
            student, kind="student", labels="+".join(labels),
            earlier="".join(run.identity for run in before),
            method=method, seed=seed, teacher=names if len(teachers) == 1 else
            f"mean_margin-of-{names}")


def without_stopping(train: TrainConfig) -> TrainConfig:
    """The same budget without early stopping, nor what only enters it: ceilings are shared by
    experiments that stop their students differently."""
    return dataclasses.replace(train, early_stopping_evals=0, eval_frac=TrainConfig().eval_frac)
