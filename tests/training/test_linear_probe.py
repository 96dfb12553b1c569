"""Students that are linear probes of their base: the head is a logistic regression, all else is the
base model, and the folder is a run like any other."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize
from transformers import AutoModelForSequenceClassification

from configs.schema import ExperimentConfig, load_config
from model.reward_model import HEAD
from src.common.errors import UserError
from src.methods.label_treatments import Taught
from src.runs.cards import model_card
from src.scoring.hidden_states import differences
from src.scoring.pairs import margins, scores_of
from src.train import train_stage
from src.training.dry_run import describe
from src.training.linear_probe import head_of
from tests.tiny_experiment import TinyExperiment, in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all

METHODS = [{"name": "soft"}, {"name": "probe", "learner": "probe"},
           {"name": "sure", "learner": "probe", "treatment": "confident"},
           {"name": "again", "treatment": "strong_to_strong", "after": "probe"},
           {"name": "oracle_probe", "learner": "probe", "treatment": "truth"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    made = make_experiment(tmp_path_factory.mktemp("linear"), rows=200, train_pairs=60,
                           layers=([1], [4]), methods=METHODS)
    prepare_data(made)
    assert in_process("src.train", *made.train("teachers")) == 0
    return made


@pytest.fixture(scope="module")
def trained(tiny):
    done = tiny.copy("trained")
    train_all(done)
    return done


def folder_of(tiny, method):
    folder, = (each for each in tiny.finished("students") if f"-{method}-s" in each.name)
    return folder


def run_of(plan, method):
    return next(run for run in plan.stage("students") if run.method.name == method)


def test_the_head_is_the_logistic_regression_of_the_weak_labels(trained):
    plan, folder = sweep_of(trained), folder_of(trained, "probe")
    run = run_of(plan, "probe")
    x = differences(run, plan, "train_2", trained.runs_dir).astype(np.float64)
    size = np.sqrt((x ** 2).mean(axis=0))
    table = pd.read_parquet(next(trained.runs_dir.glob("*/teachers/*/weak_labels/train_2.parquet")))
    labels = table.set_index("pair_id").weak_label.loc[plan.split(run, "train_2").pair_ids]
    said, = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())

    def loss(w):
        found = x / size @ w
        return w @ w / 2 + said["strength"] * (np.logaddexp(0, found) - labels * found).sum()

    expected = minimize(loss, np.zeros(x.shape[1]), tol=1e-12).x / size
    head = load_file(folder / "model.safetensors")[HEAD].numpy()
    np.testing.assert_allclose(head[0], expected, atol=1e-4 * np.abs(expected).max())


def test_all_but_the_head_is_the_base_model_and_rewards_are_the_library_s(trained):
    plan, folder = sweep_of(trained), folder_of(trained, "probe")
    run, base = run_of(plan, "probe"), load_file(trained.model / "model.safetensors")
    state = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, base[name]) for name, value in state.items() if name != HEAD)
    split = plan.split(run, "val")
    found = margins(scores_of(folder, run, split, "val", plan.experiment.runtime))
    states = differences(run, plan, "val", trained.runs_dir)
    np.testing.assert_allclose(found, states @ state[HEAD][0].numpy(), atol=1e-4)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pair = split[0]
    with torch.no_grad():
        rewards = [plain(torch.tensor([[*pair["prompt_ids"], *pair[side]]])).logits.item()
                   for side in ("chosen_ids", "rejected_ids")]
    assert found[0] == pytest.approx(rewards[0] - rewards[1], abs=1e-4)


def test_a_probe_is_scored_labels_for_others_and_says_what_it_is(trained):
    assert in_process("eval", *trained.evaluate()) == 0
    table = pd.read_csv(trained.results / "accuracy.csv").set_index("method")
    assert {"probe", "again", "oracle_probe"} <= set(table.index)
    manifest = json.loads((folder_of(trained, "probe") / "manifest.json").read_text())
    assert (manifest["pairs"], manifest["steps"], manifest["tokens"]) == (60, 0, 0)
    dropped = json.loads((folder_of(trained, "sure") / "manifest.json").read_text())
    assert (dropped["pairs"], dropped["dropped_pairs"]) == (30, 30)
    assert "the head is a linear probe" in model_card(folder_of(trained, "probe"))
    assert "-probe-s0" in describe(sweep_of(trained), "students", trained.runs_dir)


@pytest.mark.parametrize("train", [{"trainable_layers": 1}, {"lora": {"rank": 2}},
                                   {"early_stopping_evals": 2}], ids=str)
def test_what_trains_in_other_students_changes_no_probe(tiny, trained, train):
    """Of the same labels, which are given: an experiment's teachers train as its students do."""
    other = tiny.copy(next(iter(train)), train=train)
    runs = [run_of(sweep_of(each), "probe") for each in (trained, other)]
    plan = sweep_of(other)
    labels = np.linspace(0, 1, 60)
    heads = []
    for each in (trained, other):
        states = differences(runs[len(heads)], sweep_of(each), "train_2", each.runs_dir)
        heads.append(head_of(states, Taught(labels), np.arange(60), 0)[0])
    np.testing.assert_allclose(*heads, atol=1e-4 * np.abs(heads[0]).max())
    assert not any(train_stage(plan, stage, other.runs_dir, 0, 1)
                   for stage in ("teachers", "students"))
    state = load_file(folder_of(other, "probe") / "model.safetensors")
    base = load_file(other.model / "model.safetensors")
    assert all(torch.equal(value, base[name]) for name, value in state.items() if name != HEAD)


def test_pairs_that_are_left_out_or_weigh_nothing_leave_no_trace():
    draw = np.random.default_rng(0)
    states, labels = draw.normal(size=(50, 3)), draw.uniform(size=50)
    some = np.arange(50) < 30
    prompt = np.arange(50) // 2
    alone, said = head_of(states[some], Taught(labels[some]), prompt[some], 0)
    kept, again = head_of(states, Taught(labels, kept=some), prompt, 0)
    assert kept.tolist() == alone.tolist() and said == again
    swapped, _ = head_of(-states, Taught(1 - labels), prompt, 0)
    np.testing.assert_allclose(swapped, head_of(states, Taught(labels), prompt, 0)[0], atol=1e-7)


def test_a_probe_by_another_loss_is_refused(tiny):
    other = tiny.copy("hard", methods=[{"name": "h", "loss": "hard_bt", "learner": "probe"}])
    with pytest.raises(UserError, match="learner probe fits the labels by soft_bt: leave out loss"):
        load_config(ExperimentConfig, str(other.config))
