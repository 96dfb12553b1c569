"""Students by every method there is: none reads a human label, and each without its own part is
soft Bradley-Terry."""

import functools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from configs.averaging import load_recipe
from data.tokens.tokenised import IDS, TokenisedSplit
from src.evaluation.experiment import finished_runs, score_runs
from src.methods.label_treatments import TREATMENTS
from src.methods.labelling import is_link
from src.methods.losses import LOSSES
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.scoring.labels import labels_for
from src.training.finish import finish
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of

SETTINGS = {"confidence": {"aux_coef": 0.5}, "relabel": {"after": "confident"},
            "strong_to_strong": {"after": "soft_bt"}, "co_supervised": {"after": "mean_margin"}}
"""What a method's YAML needs beside its name."""
ORACLES = [name for name in TREATMENTS if "truth" in TREATMENTS.asks(name)]
METHODS = [{"name": name, "loss": name, **SETTINGS.get(name, {})} for name in LOSSES]
METHODS += [{"name": f"oracle_{name}" if name in ORACLES else name, "treatment": name,
             **SETTINGS.get(name, {})} for name in TREATMENTS]
METHODS += [{"name": "probe", "learner": "probe"}, {"name": "chain"}]
"""Every loss, treatment and learner, a loss or treatment that this file does not know too; and a
student that another one of 3 layers labels for."""
NOTHING = [
    {"name": "no_aux", "loss": "confidence", "aux_coef": 1e-12},
    {"name": "no_coef", "loss": "adaptive_confidence", "loss_options": {"coef": 0}},
    {"name": "no_distil", "loss": "distil", "loss_options": {"weight": 0}},
    {"name": "no_contrast", "loss": "contrastive", "loss_options": {"coef": 0, "takeover": 1}},
    {"name": "no_beta", "loss": "product", "loss_options": {"beta": 0}},
    {"name": "no_power", "treatment": "confidence_weights", "treatment_options": {"power": 0}},
    {"name": "all_kept", "treatment": "confident", "treatment_options": {"keep_share": 1}},
    {"name": "all_first", "treatment": "curriculum", "treatment_options": {
        "share": 1, "later_rate": 1}},
    {"name": "all_sure", "treatment": "relabel", "after": "soft_bt", "treatment_options": {
        "share": 1}}]
"""Methods that are soft Bradley-Terry, by another name."""
AVERAGES = {"uniform_0.4": "{alphas: [0.4]}",
            "adaptive": "{alphas: [0.4], blocks: 2, adaptive: {}}",
            "own": "{alphas: [0.4], blocks: 2, adaptive: {target: student, solver: grid}}",
            "truth": "{alphas: [0.4], blocks: 2, adaptive: {target: oracle, pairs: 12}}",
            "held": "{alphas: [0.4], blocks: 2, adaptive: {tax_budget: 1.0e-3, steps: 10}}",
            "refitted": "{alphas: [0.4], head: refit}"}
"""Recipes; the students that they make stand under `soft_bt+adaptive`."""
AVERAGED = [f"oracle_soft_bt+{name}" if name == "truth" else f"soft_bt+{name}" for name in AVERAGES]
ROUNDING = 5e-5
"""As in test_trainer.py."""


class Turned:
    """A split in which the human labels of half of the pairs are the opposite."""

    def __init__(self, split: TokenisedSplit):
        self.split = split
        self.turned = np.random.default_rng(7).random(len(split)) < 0.5

    def __getattr__(self, name):
        return getattr(self.split, name)

    def __len__(self):
        return len(self.split)

    def ids(self, rows, columns):
        columns = np.asarray(columns)
        sided = self.turned[np.asarray(rows)] & (columns > 0)
        return self.split.ids(rows, np.where(sided, len(IDS) - columns, columns))

    def lengths(self):
        lengths = self.split.lengths()
        return np.where(self.turned[:, None], lengths[:, [0, 2, 1]], lengths)


class NoisyPlan(Plan):
    """An experiment in which only teachers see what was really preferred."""

    @functools.cache  # noqa: B019 - a test's plan may live on
    def split(self, run, split):
        usual = super().split(run, split)
        return usual if split == "train_1" else Turned(usual)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Data, and two teachers; students have a val to stop on, and are not stopped."""
    root = tmp_path_factory.mktemp("methods")
    through = {"through": [{"model": str(root / "llama.yaml"), "layers": [3]}]}
    methods = [each | (through if each["name"] == "chain" else {}) for each in METHODS]
    for name, text in AVERAGES.items():
        (root / f"{name}.yaml").write_text(text)
    tiny = make_experiment(
        root, averages=[{"recipe": str(root / f"{name}.yaml")} for name in AVERAGES],
        rows=170, train_pairs=44, layers=([1, 2], [4]),
        methods=[*methods, *NOTHING], train={"epochs": 2, "early_stopping_evals": 50,
                                             "eval_frac": 0.5, "learning_rate": 3e-3})
    prepare_data(tiny)
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return tiny


@pytest.fixture(scope="module")
def world(prepared):
    """Where students learn from the data as it is."""
    return student_of(prepared, sweep_of(prepared))


@pytest.fixture(scope="module")
def noise(prepared):
    """Where half of the human labels of what students see are the opposite of what they were. The
    teachers are the same ones, and label again."""
    tiny = prepared.copy("noise")
    for made in ("tiny/teachers/*/weak_labels/*", "tiny/teachers/*/scores/*", "hidden_states/*"):
        for path in tiny.runs_dir.glob(made):
            path.unlink()
    plan = sweep_of(tiny)
    plan.__class__ = NoisyPlan
    return student_of(tiny, plan)


def student_of(tiny, plan):
    """method -> its finished student, of both teachers together or of the first alone."""
    def student(method: str) -> SimpleNamespace:
        run = next(run for run in plan.stage("students") if run.method.name == method
                   and not is_link(run.method, plan.experiment.methods))
        finish(run, plan, tiny.runs_dir)
        folder = find_finished(tiny.runs_dir, run.stage, run.identity)
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return SimpleNamespace(run=run, folder=folder, log=log,
                               weights=load_file(folder / "model.safetensors"),
                               manifest=json.loads((folder / "manifest.json").read_text()))
    return student


def gap(first, second):
    """The largest difference between the weights of two students."""
    return max((first.weights[name] - second.weights[name]).abs().max().item()
               for name in first.weights)


@pytest.mark.parametrize("method", [*(each["name"] for each in METHODS), *AVERAGED])
def test_a_student_whose_human_labels_are_noise_has_the_same_weights(world, noise, method):
    first, second = world(method), noise(method)
    assert first.folder != second.folder
    if method in AVERAGED:  # the student moved so little that its weights would hardly tell
        notes = [one.manifest.get("notes", {}) for one in (first, second)]
        if method.startswith("oracle"):
            assert abs(notes[0]["tau"] - notes[1]["tau"]) > 0.1
            return
        for name in notes[0]:
            assert notes[0][name] == pytest.approx(notes[1][name], abs=1e-4)
    if method.startswith("oracle"):  # or this would show nothing
        assert gap(first, second) > 1e-3
        return
    assert gap(first, second) < ROUNDING
    losses = [[entry["loss"] for entry in one.log if "loss" in entry] for one in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(losses[0]) > 1 or method in ("probe", *AVERAGED)


@pytest.mark.parametrize("method", [each["name"] for each in NOTHING])
def test_a_method_without_its_own_part_has_the_weights_of_soft_bradley_terry(world, method):
    plain, found = world("soft_bt"), world(method)
    assert found.run.identity != plain.run.identity and found.log == plain.log
    assert all(torch.equal(found.weights[name], value) for name, value in plain.weights.items())


@pytest.mark.parametrize("method", [each["name"] for each in METHODS[1:]
                                    if each["name"] != "as_is"])
def test_a_method_is_no_soft_bradley_terry(world, method):
    assert gap(world(method), world("soft_bt")) > 1e-4


def test_dropped_pairs_cost_no_step_and_are_counted(world):
    plain, found = world("soft_bt").manifest, world("confident").manifest
    assert (found["pairs"], found["dropped_pairs"]) == (22, 22)
    assert plain["pairs"] == 44 and "dropped_pairs" not in plain
    assert (plain["steps"], found["steps"]) == (6, 4)
    assert 0.3 < found["tokens"] / plain["tokens"] < 0.7
    assert found["flops"] / plain["flops"] == pytest.approx(found["tokens"] / plain["tokens"])


def test_after_the_confident_half_a_curriculum_has_half_the_learning_rate(world):
    rates = [[entry["learning_rate"] for entry in world(method).log if "loss" in entry]
             for method in ("soft_bt", "curriculum")]
    first = round(0.25 * 6)
    np.testing.assert_allclose(rates[1], rates[0] * np.where(np.arange(6) < first, 1.0, 0.5))


@pytest.mark.parametrize("train", [{"trainable_layers": 1}, {"lora": {"rank": 2}}], ids=str)
def test_dropped_pairs_weights_and_a_course_do_with_a_trunk_and_with_adapters(prepared, train):
    """As they do without what is kept on disk, and with all that they may."""
    methods = [each for each in prepared.settings()["methods"]
               if each["name"] != "distil" or "lora" not in train]
    tiny = prepared.copy(next(iter(train)), train=train, methods=methods)
    plan = sweep_of(tiny)
    for teacher in plan.stage("teachers"):
        finish(teacher, plan, tiny.runs_dir)
    student = student_of(tiny, plan)
    assert student("confident").manifest["pairs"] == 22
    assert all(gap(student(method), student("soft_bt")) < 1e-9 for method in (
        "no_power", "all_kept", "all_first", "no_contrast"))
    alone = prepared.copy(f"{tiny.runs}_alone", train=train, runtime={"trunk_cache_gb": 0},
                          methods=methods)
    plan = sweep_of(alone)
    for teacher in plan.stage("teachers"):
        finish(teacher, plan, alone.runs_dir)
    found = ("confident", "confidence_weights", "curriculum", "contrastive", "distil")
    for method in found[:-1] if "lora" in train else found:
        assert gap(student_of(alone, plan)(method), student(method)) < ROUNDING
    assert (tiny.runs_dir / "trunks").is_dir() == ("trainable_layers" in train)


def test_a_student_learns_from_the_labels_of_the_student_that_it_is_after(world):
    found = world("strong_to_strong")
    earlier = world("soft_bt")
    assert found.run.needs == (earlier.run.labels, earlier.run.identity)
    table = pd.read_parquet(earlier.folder / "weak_labels" / "train_2.parquet")
    assert len(table) == 44 and table.weak_label.between(0, 1).all()


def test_at_the_end_of_a_chain_a_student_learns_what_the_one_before_it_says_and_no_more(prepared,
                                                                                       world):
    found, plan = world("chain"), sweep_of(prepared)
    teacher, link = plan.needed(found.run)
    assert (teacher.name, link.name, link.method.through) == ("llama-L1", "llama-L3", ())
    folder = find_finished(prepared.runs_dir, "students", link.identity)
    labels = pd.read_parquet(folder / "weak_labels" / "train_2.parquet").set_index("pair_id")
    taught, val = labels_for(found.run, plan, prepared.runs_dir)
    ids = plan.split(found.run, "train_2").pair_ids
    np.testing.assert_allclose(taught.labels, labels.weak_label.loc[ids], rtol=1e-15)
    assert len(val) == len(plan.split(found.run, "val"))
    assert found.run.teacher == teacher.name  # whom PGR holds it against
    assert "weak labels of llama-L1, by a chain of 1 between" in (
        found.folder / "README.md").read_text()


def test_a_link_has_no_row_in_the_tables_and_what_it_cost_is_the_chain_s(prepared, world):
    found, plan = world("chain"), sweep_of(prepared)
    done, missing = finished_runs(plan, prepared.runs_dir)
    assert "llama-L3" not in {run.name for run, _ in done} and "L3" not in " ".join(missing)
    teacher, link = plan.needed(found.run)
    chain = [(run, folder) for run, folder in done if run in (teacher, found.run)]
    costs = [score.seconds for score in score_runs(chain, plan, "test", prepared.runs_dir)]
    folder = find_finished(prepared.runs_dir, "students", link.identity)
    own = json.loads((folder / "manifest.json").read_text())["seconds"]
    assert costs[1] == pytest.approx(own + found.manifest["seconds"])


@pytest.mark.parametrize(("method", "kind"), [("co_supervised", "share"), ("raven", "weight"),
                                              ("gate", "load")])
def test_what_a_treatment_found_stands_in_the_manifest(world, method, kind):
    notes = world(method).manifest["notes"]
    assert notes[f"teacher_1_{kind}"] + notes[f"teacher_2_{kind}"] == pytest.approx(1)
    assert "notes" not in world("soft_bt").manifest


def test_an_average_is_a_run_that_needs_its_student_and_stands_as_a_method_of_it(world, prepared):
    found, student = world("soft_bt+uniform_0.4"), world("soft_bt")
    assert found.run.needs == (student.run.labels, student.run.identity)
    assert found.run.identity != world("soft_bt+adaptive").run.identity
    score, = score_runs([(found.run, found.folder)], sweep_of(prepared), "test", prepared.runs_dir)
    assert (score.role, score.method) == ("student", "soft_bt+uniform_0.4")
    base = load_file(prepared.model / "model.safetensors")
    for name, value in found.weights.items():
        tuned = student.weights[name]
        expected = tuned if name == "score.weight" else 0.4 * base[name] + 0.6 * tuned
        assert torch.allclose(value, expected, atol=1e-6), name
    assert gap(found, student) > 1e-4
    recipe = load_recipe(str(found.folder / "recipe.yaml"))
    assert recipe == found.run.average and "averaged" in (found.folder / "README.md").read_text()


def test_an_adaptive_average_keeps_its_mean_and_writes_what_it_learned(world):
    found = world("soft_bt+adaptive")
    recipe = load_recipe(str(found.folder / "recipe.yaml"))
    assert recipe.adaptive is None and recipe.blocks == (1,)
    assert np.mean(recipe.alphas) == pytest.approx(0.4, abs=1e-9)
    assert list(recipe.alphas) == found.manifest["notes"]["alphas"] != [0.4, 0.4]
    assert len(found.log) == found.manifest["steps"] == 60


def test_an_average_under_a_tax_budget_says_what_it_costs(world):
    found = world("soft_bt+held")
    notes = found.manifest["notes"]
    assert notes["tax"] <= 1e-3 and notes["alphas"] != [0.4, 0.4]
    assert load_recipe(str(found.folder / "recipe.yaml")).alphas == tuple(notes["alphas"])


def test_a_head_is_fitted_to_the_average_and_nothing_else_of_it_changes(world):
    refitted, kept = world("soft_bt+refitted"), world("soft_bt+uniform_0.4")
    changed = [name for name, value in kept.weights.items()
               if not torch.equal(value, refitted.weights[name])]
    assert changed == ["score.weight"]


def test_distilled_students_do_with_any_batches_and_keep_no_connectors(prepared, world):
    """Packed or padded, prompts shared or not, in one micro batch or many; and the layers named."""
    found = world("distil")
    assert not any("connector" in name for name in found.weights)
    for number, runtime in enumerate(({"pack": False}, {"share_prompt": False},
                                      {"micro_batch_tokens": 256})):
        other = prepared.copy(f"distil_{number}", runtime=runtime)
        for folder in other.runs_dir.glob("tiny/students/*-distil-*"):
            shutil.rmtree(folder)
        again = student_of(other, sweep_of(other))("distil")
        assert again.folder != found.folder and gap(again, found) < ROUNDING
    both = prepared.copy("distil_both", methods=[{
        "name": "both", "loss": "distil", "treatment": "mean_margin",
        "loss_options": {"layer_pairs": [[1, 0], [-1, -1]]}}])
    other = student_of(both, sweep_of(both))("both")
    assert len(list((both.runs_dir / "hidden_states").glob("train_2-llama-L[12]-*.npy"))) >= 3
    assert gap(other, world("mean_margin")) > 1e-4
