"""Hidden states of the bases that students begin with: the library's own, computed once for all."""

import functools
import shutil

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel

from configs.schema import DataConfig, load_config
from data.prepare import TokenizerSpec, prepare
from data.records import left_is_chosen
from model.reward_model import build_reward_model
from src.batches.trees import trees_of
from src.methods.label_treatments import TREATMENTS
from src.runs.plan import Plan
from src.scoring import hidden_states, pairs
from src.scoring.hidden_states import differences, last_states, states_path
from src.scoring.labels import labels_for
from src.scoring.pairs import read_pairs
from src.training.estimate import Estimate
from tests.families import FAMILIES, PAD
from tests.scoring.test_scoring import RUNTIME, SPLIT
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process, make_experiment, preference_rows
from tests.tiny_experiment_parts import prepare_data, sweep_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    made = make_experiment(tmp_path_factory.mktemp("states"), rows=120, train_pairs=32,
                           layers=([2], [2, 4]), seeds=[0, 1])
    prepare_data(made)
    return made


@pytest.fixture
def computed(monkeypatch):
    """The names of all states that are computed."""
    names, real = [], hidden_states._computed

    def counted(run, plan, split, title, trunk):
        names.append(title)
        return real(run, plan, split, title, trunk)

    monkeypatch.setattr(hidden_states, "_computed", counted)
    return names


@pytest.fixture
def taught():
    """What the treatment `spying` was given of each split; it is there for one test."""
    given = []

    @TREATMENTS.add("spying")
    def spying(label: np.ndarray, features: np.ndarray, val_features: np.ndarray) -> np.ndarray:
        given.append((label, features, val_features))
        return label

    yield given
    del TREATMENTS["spying"]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_library_s_last_ones_of_one_sequence_at_a_time(base, tmp_path, family):
    model = build_reward_model(base(family), (1, 4), 0, pad_token_id=PAD)
    model.save_pretrained(tmp_path / "cut")
    found = read_pairs(model, SPLIT, RUNTIME, "", functools.partial(last_states, model))
    plain = AutoModel.from_pretrained(tmp_path / "cut", dtype=torch.float32,
                                      attn_implementation="eager").eval()
    for row in range(len(SPLIT)):
        for side, name in enumerate(("chosen_ids", "rejected_ids")):
            ids = torch.tensor([SPLIT[row]["prompt_ids"] + SPLIT[row][name]])
            with torch.no_grad():
                states = plain(ids, output_hidden_states=True).hidden_states
            np.testing.assert_allclose(found[row, side], states[-1][0, -1], atol=1e-5)


def test_states_do_not_depend_on_the_batch_or_the_layout(tiny):
    found = []
    for changes in ({}, {"share_prompt": False}, {"pack": False}, {"score_batch_tokens": 1}):
        other = tiny.copy(f"layout{len(found)}", runtime=changes)
        plan = sweep_of(other)
        found.append(differences(plan.stage("students")[0], plan, "val", other.runs_dir))
        np.testing.assert_allclose(found[-1], found[0], atol=1e-5)


def test_ranks_share_the_forwards_and_one_without_any_agrees(base, monkeypatch):
    model, parts = build_reward_model(base("llama"), (1, 4), 0, pad_token_id=PAD), []

    def read():
        return read_pairs(model, SPLIT, RUNTIME, "", functools.partial(last_states, model))

    whole = read()
    with monkeypatch.context() as patched:
        patched.setattr(pairs, "_merge", lambda trees, *part: parts.append(part))
        patched.setattr("src.common.distributed.world_size", lambda: 20)
        for rank in range(20):
            patched.setattr("src.common.distributed.rank", lambda rank=rank: rank)
            read()
    assert not all(len(numbers) for numbers, _ in parts)
    monkeypatch.setattr("src.common.distributed.gather", lambda part: parts)
    np.testing.assert_allclose(pairs._merge(trees_of(SPLIT, True), *parts[-1]), whole, atol=1e-5)


def test_all_runs_of_a_base_and_split_read_one_file(tiny, computed):
    plan = sweep_of(tiny)
    for run in plan.stage("students"):
        found = differences(run, plan, "train_2", tiny.runs_dir)
        assert found.shape == (32, 32) and found.dtype == np.float32
        assert found.tolist() == np.load(states_path(run, plan, "train_2", tiny.runs_dir)).tolist()
    assert sorted(name.rsplit("-", 1)[0] for name in computed) == ["train_2-2", "train_2-4"]
    differences(plan.stage("students")[0], plan, "val", tiny.runs_dir)
    assert len(computed) == 3 and not list(tiny.runs_dir.glob("hidden_states/.*"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_layers_that_do_not_train_are_read_from_their_trunk(tiny, dtype, monkeypatch):
    found, skipped, real = [], [], pairs.begin_above
    monkeypatch.setattr(pairs, "begin_above", lambda model, below: (
        skipped.append(below), real(model, below)))
    for train in ({}, {"trainable_layers": 1, "trunk_cache_dtype": dtype}):
        other = tiny.copy(f"trunk_{dtype}_{len(found)}", train=train)
        shutil.rmtree(other.runs_dir / "hidden_states", ignore_errors=True)  # of other tests
        plan = sweep_of(other)
        run = plan.stage("students")[-1]
        found.append(differences(run, plan, "train_1", other.runs_dir))
        name = states_path(run, plan, "train_1", other.runs_dir).name
        plain = sweep_of(tiny)
        assert (name == states_path(plain.stage("students")[-1], plain, "train_1",
                                    other.runs_dir).name) == (dtype == "fp32" or not train)
    assert skipped == [3]
    np.testing.assert_allclose(*found, atol={"fp32": 1e-5, "bf16": 0.2}[dtype])


def test_states_in_bf16_of_other_depths_or_of_none_are_kept_apart(tiny):
    names = []
    for number, (trainable, room) in enumerate([(1, 50), (2, 50), (None, 50), (1, 0), (2, 0)]):
        other = tiny.copy(f"depth{number}", runtime={"trunk_cache_gb": room}, train={
            "trainable_layers": trainable, "trunk_cache_dtype": "bf16"})
        plan = sweep_of(other)
        names.append(states_path(plan.stage("students")[-1], plan, "train_1", other.runs_dir).name)
    assert len({*names[:3]}) == 3 and {*names[2:]} == {names[2]}


def test_pairs_in_another_order_get_their_own_states(tmp_path):
    """The same four files under another seed: equal data, by its hash, in another order."""
    tiny, rows, files = make_experiment(tmp_path, layers=([1], [2])), preference_rows(80), {}
    for number, split in enumerate(("train_1", "train_2", "val", "test")):
        files[split] = str(tmp_path / f"{split}.jsonl")
        write_jsonl(tmp_path / f"{split}.jsonl", rows[20 * number:20 * number + 20])
    config = tmp_path / "pairs.yaml"
    values = {**yaml.safe_load(config.read_text()), "files": files}
    del values["path"]
    found = []
    for seed in (0, 1):
        config.write_text(yaml.safe_dump({**values, "seed": seed}))
        shutil.rmtree(tiny.processed, ignore_errors=True)
        prepare(load_config(DataConfig, str(config)), tiny.processed,
                [TokenizerSpec("tiny", str(tiny.model))])
        plan = sweep_of(tiny)
        run = plan.stage("students")[0]
        states = differences(run, plan, "train_2", tiny.runs_dir)
        found.append((run.identity, plan.split(run, "train_2").pair_ids, states))
    (one, ids, states), (other, moved, others) = found
    assert one == other and ids.tolist() != moved.tolist()
    place = [ids.tolist().index(pair) for pair in moved]
    np.testing.assert_allclose(others, states[place], atol=1e-5)


def test_a_file_that_was_cut_short_is_made_again(tiny, computed):
    other = tiny.copy("short")
    plan = sweep_of(other)
    run = plan.stage("students")[0]
    whole = differences(run, plan, "train_1", other.runs_dir)
    path = states_path(run, plan, "train_1", other.runs_dir)
    for content in (path.read_bytes()[:-1], b"", b"\x93NUMPY", b"no array"):
        path.write_bytes(content)
        assert differences(run, plan, "train_1", other.runs_dir).tolist() == whole.tolist()
    assert len(computed) == 1 + 4


def test_a_treatment_gets_left_minus_right_of_its_split_and_of_val(tiny, taught):
    """And an estimate counts each forward once."""
    spy, plain = (tiny.copy(treatment, methods=[{"name": "m", "treatment": treatment}],
                            runtime={"last_layer_shortcut": False})
                  for treatment in ("spying", "as_is"))
    shutil.rmtree(spy.runs_dir / "hidden_states", ignore_errors=True)  # of other tests
    assert in_process("src.train", *spy.train("teachers")) == 0
    plan = sweep_of(spy)
    extra = [sum(piece.beside for piece in Estimate(each, spy.runs_dir, 1).pieces["students"])
             for each in (plan, sweep_of(plain))]
    run = plan.stage("students")[0]
    labels_for(run, plan, spy.runs_dir)
    (label, features, val_features), = taught
    left = {split: np.array([left_is_chosen(pair) for pair in plan.split(run, split).pair_ids])
            for split in ("train_2", "val")}
    for split, found in (("train_2", features), ("val", val_features)):
        sign = np.where(left[split], 1, -1)[:, None]
        np.testing.assert_array_equal(found * sign, differences(run, plan, split, spy.runs_dir))
    assert 0 < left["train_2"].mean() < 1 and len(label) == len(features)
    after = sum(piece.beside for piece in Estimate(plan, spy.runs_dir, 1).pieces["students"])
    assert extra[0] - extra[1] == pytest.approx(forwards(plan)) and after < extra[0]


def forwards(plan: Plan) -> float:
    """Operations of one forward of each student's base over train_2 and val."""
    run = plan.stage("students")[0]
    tokens = sum(trees_of(plan.split(run, split), True).total_tokens
                 for split in ("train_2", "val"))
    return 2.0 * tokens * sum(rung.parameters for rung in plan.students)
