"""A whole experiment on lone answers: the trainer, scorer and PGR of pairs, with the absent side's
reward 0."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.pairs.pair_files import read_pairs
from src.reports.results import read_results
from src.scoring.zero_shot import zero_shot_scores
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = make_experiment(tmp_path_factory.mktemp("pointwise"), rows=120, train_pairs=32,
                           layers=([2], [4]), train={"trainable_layers": 1})
    config = made.root / "pairs.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "pointwise": True}))
    prepare_data(made)
    train_all(made)
    assert in_process("eval", *made.evaluate()) == 0
    return made


def test_a_record_has_one_side_and_its_score_is_that_side_s_reward(tiny):
    pairs = read_pairs(tiny.processed, "test").to_pandas().set_index("pair_id")
    right = (pairs.rejected == "").to_numpy()
    assert ((pairs.chosen == "") != (pairs.rejected == "")).all() and 0 < right.sum() < len(right)
    for stage in ("teachers", "ceilings", "students"):
        for folder in tiny.finished(stage):
            scores = pd.read_parquet(folder / "scores" / "test.parquet").set_index("pair_id")
            scores = scores.loc[pairs.index]
            assert (scores.reward_rejected[right] == 0).all()
            assert (scores.reward_chosen[~right] == 0).all()
            assert (scores.reward_chosen[right] != 0).all()


def test_weak_labels_are_the_teacher_s_sigmoid_of_lone_rewards(tiny):
    teacher, = tiny.finished("teachers")
    scores = pd.read_parquet(teacher / "scores" / "train_2.parquet")
    labels = pd.read_parquet(next((teacher / "weak_labels").glob("train_2*.parquet")))
    margin = scores.reward_chosen - scores.reward_rejected
    np.testing.assert_allclose(labels.weak_label, 1 / (1 + np.exp(-margin)), atol=1e-6)


def test_accuracy_is_how_often_the_sign_of_the_reward_is_the_label(tiny):
    table = read_results(tiny.results).accuracy
    pairs = read_pairs(tiny.processed, "test").to_pandas().set_index("pair_id")
    for folder in tiny.finished("ceilings"):
        scores = pd.read_parquet(folder / "scores" / "test.parquet").set_index("pair_id")
        reward = scores.reward_chosen + scores.reward_rejected
        wanted = ((reward > 0) == (pairs.rejected == "").loc[scores.index]).mean()
        row = table[(table.role == "ceiling")].iloc[0]
        assert row.accuracy == pytest.approx(wanted) and row.n == len(pairs)


def test_lone_answers_have_no_baseline_of_how_likely_both_are(tiny):
    """The absent side, of no tokens, would win every comparison."""
    more = tiny.copy("more", methods=[{"name": "soft"}, {"name": "hard", "loss": "hard_bt"}])
    assert zero_shot_scores(sweep_of(more), "test", more.runs_dir) == []


def test_the_trunk_cache_changes_no_weight(tiny):
    plain = tiny.copy("plain", runtime={"trunk_cache_gb": 0})
    for folder in plain.runs_dir.iterdir():
        if folder.name != "trunks":
            for done in folder.rglob("DONE"):
                done.unlink()
    train_all(plain)
    for stage in ("teachers", "ceilings", "students"):
        for ours, theirs in zip(tiny.finished(stage), plain.finished(stage), strict=True):
            first, second = (load_file(each / "model.safetensors") for each in (ours, theirs))
            for name, tensor in first.items():
                torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6)
