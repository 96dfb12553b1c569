"""The same training by one process, by two, under ZeRO-2 and ZeRO-3: the scripts' own launches.

A launch can exit 0 without being distributed, so each one proves that it was.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import open_split
from model.reload_check import plain_rewards
from src.runs.folders import read_run_config
from src.training.trainer import PairTrainer
from tests.tiny_experiment import (
    TinyExperiment,
    command,
    in_process,
    kill_at_checkpoint,
    launch,
    make_experiment,
)

pytestmark = pytest.mark.launch

STEPS = 20
WORLDS = {"cpu": 1, "multi_gpu": 2, "zero2": 2, "zero3": 2}
ENGINES = {"cpu": "LlamaForSequenceClassification", "multi_gpu": "DistributedDataParallel",
           "zero2": "DeepSpeedEngine", "zero3": "DeepSpeedEngine"}
TYPES = {"cpu": "NO", "multi_gpu": "MULTI_CPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
MODEL = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32, "num_key_value_heads": 4,
         "noise": 0.05}
"""Its matrices are bigger than what ZeRO-3 leaves whole on every rank, like any real model's."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> TinyExperiment:
    """Data and one teacher. Two epochs of 153 pairs in steps of 16: every tenth step has 9 pairs,
    which two processes cannot share evenly."""
    tiny = make_experiment(
        tmp_path_factory.mktemp("prepared"), rows=400, train_pairs=153, test_pairs=24,
        layers=([1], [2, 4]), train={"epochs": 2}, runtime={"micro_batch_tokens": 128},
        model=MODEL)
    assert command("python", "data/preprocess.py", *tiny.preprocess).returncode == 0
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return tiny


@pytest.fixture(scope="module")
def trained(prepared) -> dict[str, list[Path]]:
    """Hardware -> the run folders of its two students, trained in one launch each."""
    folders = {}
    for hardware in WORLDS:
        tiny = prepared.copy(hardware)
        ended = launch("weak_to_strong.sh", tiny, hardware)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "2 trained, 0 done before" in ended.stdout
        folders[hardware] = tiny.finished("students")
        assert len(folders[hardware]) == 2
    return folders


def facts(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["hardware"]


def matrices(folder: Path) -> int:
    """Tensors of a saved model that are no vectors, nor the head."""
    return sum(tensor.squeeze().ndim > 1
               for tensor in load_file(folder / "model.safetensors").values())


def losses(folder: Path) -> list[float]:
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in log if "loss" in entry]


def assert_same_runs(found: list[Path], expected: list[Path]) -> None:
    """Weights and losses of an uninterrupted training, and as many steps."""
    for folder, uninterrupted in zip(found, expected, strict=True):
        torch.testing.assert_close(*(load_file(f / "model.safetensors")
                                     for f in (folder, uninterrupted)), atol=1e-6, rtol=0)
        assert losses(folder) == pytest.approx(losses(uninterrupted), abs=1e-6)
        assert len(losses(folder)) == STEPS


SAID = "its checkpoints are of another launch"


@pytest.mark.parametrize("hardware", WORLDS)
def test_each_launch_was_as_distributed_as_it_says(trained, hardware):
    for folder in trained[hardware]:
        found = facts(folder)
        assert found["processes"] == WORLDS[hardware]
        assert found["distributed_type"] == TYPES[hardware]
        assert found["engine"] == ENGINES[hardware]
        assert found["partitioned_tensors"] == (matrices(folder) if hardware == "zero3" else 0)
        ranks = found["first_batch_of_rank"]
        assert len(ranks) == len(set(ranks)) == WORLDS[hardware]


@pytest.mark.parametrize("hardware", ["multi_gpu", "zero2", "zero3"])
def test_losses_are_those_of_one_process(trained, hardware):
    for folder, single in zip(trained[hardware], trained["cpu"], strict=True):
        assert len(losses(single)) == STEPS
        np.testing.assert_allclose(losses(folder), losses(single), atol=1e-4, rtol=0)


@pytest.mark.parametrize("hardware", ["multi_gpu", "zero2"])
def test_dropped_weighted_ordered_and_contrasted_pairs_are_those_of_one_process(prepared, hardware):
    """And a student that another one labels for, of the same launch."""
    methods = [{"name": "some", "treatment": "confident"},
               {"name": "weighted", "treatment": "confidence_weights", "loss": "hard_bt"},
               {"name": "ordered", "treatment": "curriculum"},
               {"name": "contrasted", "loss": "contrastive", "loss_options": {"coef": 1.0}},
               {"name": "distilled", "loss": "distil", "loss_options": {"weight": 1.0}},
               {"name": "again", "treatment": "relabel", "after": "some"}]
    changes = {"methods": methods, "students": [{**prepared.settings()["students"][0],
                                                 "layers": [2]}]}
    together, alone = (prepared.copy(f"{hardware}_{name}", **changes) for name in ("two", "one"))
    ended = launch("weak_to_strong.sh", together, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert in_process("src.train", *alone.train("students")) == 0
    assert len(alone.finished("students")) == 6
    for folder, single in zip(together.finished("students"), alone.finished("students"),
                              strict=True):
        assert folder.name == single.name and facts(folder)["processes"] == 2
        assert len(losses(folder)) == (10 if "-some-" in folder.name else STEPS)
        np.testing.assert_allclose(losses(folder), losses(single), atol=1e-4, rtol=0)


@pytest.mark.parametrize("hardware", ["multi_gpu", "zero3"])
def test_ranks_share_a_base_s_hidden_states_and_all_learn_from_the_same(prepared, hardware):
    """And a linear probe of them is what one process fits; and connectors are as if whole."""
    changes = {"methods": [{"name": "em", "treatment": "em_posterior"},
                           {"name": "distilled", "loss": "distil", "loss_options": {"weight": 1.0}},
                           {"name": "probe", "learner": "probe"}],
               "students": [{**prepared.settings()["students"][0], "layers": [2]}]}
    together, alone = (prepared.copy(f"{hardware}_states_{name}", **changes)
                       for name in ("two", "one"))
    ended = launch("weak_to_strong.sh", together, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert in_process("src.train", *alone.train("students")) == 0
    found, expected = (np.load(*each.runs_dir.glob("hidden_states/train_2-2-*.npy"))
                       for each in (together, alone))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for folder, single in zip(together.finished("students"), alone.finished("students"),
                              strict=True):
        assert folder.name == single.name and facts(folder)["processes"] == 2
        tensors, plain = (load_file(each / "model.safetensors") for each in (folder, single))
        torch.testing.assert_close(tensors, plain, atol=1e-4, rtol=0)


def test_a_step_in_one_micro_batch_is_one_in_several(prepared, trained):
    whole = prepared.copy("whole", runtime={"micro_batch_tokens": 8192})
    assert in_process("src.train", *whole.train("students")) == 0
    for folder, parts in zip(whole.finished("students"), trained["cpu"], strict=True):
        assert folder.name == parts.name  # how a batch is split is no part of a run's identity
        np.testing.assert_allclose(losses(folder), losses(parts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("hardware", WORLDS)
def test_weights_are_whole_and_score_as_those_of_one_process(prepared, trained, hardware):
    split = open_split(prepared.processed, tokenizer_key(load_tokenizer(prepared.model)), "test")
    sequences = [row["prompt_ids"] + row[side] for row in split.rows(range(8))
                 for side in ("chosen_ids", "rejected_ids")]
    for folder, single in zip(trained[hardware], trained["cpu"], strict=True):
        tensors, expected = (load_file(f / "model.safetensors") for f in (folder, single))
        assert {name: tensor.shape for name, tensor in tensors.items()} == {
            name: tensor.shape for name, tensor in expected.items()}
        assert all(tensor.numel() for tensor in tensors.values())
        torch.testing.assert_close(tensors, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(plain_rewards(folder, sequences),
                                   plain_rewards(single, sequences), atol=1e-3, rtol=0)


@pytest.mark.parametrize("hardware", WORLDS)
def test_weak_labels_are_those_of_one_process(trained, hardware):
    def labels(folder: Path) -> pd.DataFrame:
        path, = folder.parents[1].glob("teachers/*/weak_labels/train_2.parquet")
        return pd.read_parquet(path)

    found, expected = labels(trained[hardware][0]), labels(trained["cpu"][0])
    assert found.pair_id.tolist() == expected.pair_id.tolist()
    np.testing.assert_allclose(found.weak_label, expected.weak_label, atol=1e-5)


def test_zero3_resumes_after_kill_9_in_its_second_epoch(prepared, trained):
    tiny = prepared.copy("killed")
    kill_at_checkpoint("students", tiny, "zero3", 16)
    ended = launch("weak_to_strong.sh", tiny, "zero3")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert SAID not in ended.stdout
    assert_same_runs(tiny.finished("students"), trained["zero3"])


def test_a_run_of_one_process_starts_anew_on_two_and_says_so(prepared, trained, monkeypatch):
    """Left in mid-epoch, at a checkpoint from which the library would end at once."""
    tiny, step = prepared.copy("one_to_two"), PairTrainer.training_step

    def training_step(self, *arguments):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(PairTrainer, "training_step", training_step)
    with pytest.raises(KeyboardInterrupt):
        in_process("src.train", *tiny.train("students"))
    assert list(tiny.runs_dir.glob("tiny/students/*/resume/checkpoint-4"))
    ended = launch("weak_to_strong.sh", tiny, "multi_gpu")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(SAID) == 1  # of the run that had been begun
    assert_same_runs(tiny.finished("students"), trained["multi_gpu"])


def test_a_run_of_two_processes_under_zero2_starts_anew_on_one_and_says_so(prepared, trained,
                                                                          capsys):
    tiny = prepared.copy("two_to_one")
    kill_at_checkpoint("students", tiny, "zero2", 4)
    assert in_process("src.train", *tiny.train("students")) == 0
    assert capsys.readouterr().out.count(SAID) == 1
    assert_same_runs(tiny.finished("students"), trained["cpu"])


def test_ranks_fill_one_trunk_cache_and_train_as_one_process_does(prepared):
    frozen = {"train": {"epochs": 1, "trainable_layers": 1}, "seeds": [0]}
    together, alone = (prepared.copy(name, **frozen) for name in ("frozen", "frozen_alone"))
    ended = launch("train_student_model.sh", together, "zero3")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert in_process("src.train", *alone.train("ceilings")) == 0
    caches = sorted(path.relative_to(together.runs_dir)
                    for path in together.runs_dir.glob("trunks/*/hidden.bin"))
    assert len(caches) == 2
    for path in caches:
        rows = [np.fromfile(each.runs_dir / path, np.float32) for each in (together, alone)]
        np.testing.assert_allclose(*rows, atol=1e-5, rtol=0)
    for folder, single in zip(together.finished("ceilings"), alone.finished("ceilings"),
                              strict=True):
        tensors, expected = (load_file(f / "model.safetensors") for f in (folder, single))
        torch.testing.assert_close(tensors, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hardware", ["zero2", "zero3"])
def test_bf16_is_trained_with_gradients_in_fp32_and_what_is_saved_passes_its_gate(
        prepared, trained, hardware):
    tiny = prepared.copy(f"bf16_{hardware}", train={"precision": "bf16"})
    ended = launch("train_teacher_model.sh", tiny, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder, = (f for f in tiny.finished("teachers") if facts(f)["precision"] == "bf16")
    assert facts(folder)["processes"] == 2 and facts(folder)["engine"] == "DeepSpeedEngine"
    assert facts(folder)["gradients"] == {"accumulated": "float32", "communicated": "float32"}
    single, = prepared.finished("teachers")
    found, expected = (load_file(f / "model.safetensors") for f in (folder, single))
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.float(), expected[name], atol=0.02, rtol=0.02, msg=name)
    np.testing.assert_allclose(losses(folder), losses(single), atol=0.02, rtol=0)


@pytest.mark.parametrize("hardware", ["zero2", "zero3"])
def test_frozen_embeddings_stay_under_zero_and_all_else_trains_as_in_one_process(
        prepared, hardware):
    frozen = {"train": {"epochs": 1, "freeze_embeddings": True}}
    together, alone = (prepared.copy(f"{name}_tables_{hardware}", **frozen)
                       for name in ("frozen", "alone"))
    ended = launch("train_teacher_model.sh", together, hardware)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert in_process("src.train", *alone.train("teachers")) == 0
    found, expected = (load_file(folder / "model.safetensors") for tiny in (together, alone)
                       for folder in tiny.finished("teachers")
                       if read_run_config(folder).train.freeze_embeddings)
    table = "model.embed_tokens.weight"
    assert torch.equal(found[table], load_file(prepared.model / "model.safetensors")[table])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
