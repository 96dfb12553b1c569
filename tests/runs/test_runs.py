"""Run folders: whole or not there; one launch at a time; resumed only from what is whole."""

import dataclasses
import json
import multiprocessing
import os
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import TrainConfig
from src.common.errors import UserError
from src.common.files import REPO_ROOT, read_json, write_json, write_text
from src.common.hashing import commit
from src.common.lock import lock
from src.common.table_files import read_table, write_table
from src.runs import folders
from src.runs.folders import (
    DONE,
    RESUME,
    WEIGHTS,
    clear_unfinished,
    find_finished,
    is_done,
    mark_done,
    newest_checkpoint,
    read_run_config,
    require_finished,
)
from src.runs.freed import FREED, free_weights

IDENTITY = "0123456789abcdef"
INPUTS = {"run": IDENTITY, "data": "d"}
TABLE = pd.DataFrame({"pair_id": ["a", "b"], "reward": [0.1, -1e-30]})


class Stopped(BaseException):
    """What a kill is to the code under test."""


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("write", [
    lambda path: write_text(path, "new"), lambda path: write_json(path, {"a": 1}),
    lambda path: write_table(path, TABLE, INPUTS)], ids=["text", "json", "table"])
def test_a_killed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_text("old")

    def stop(*args):
        raise Stopped

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(Stopped):
        write(path)
    assert path.read_text() == "old" and files_in(tmp_path) == ["file"]
    monkeypatch.undo()
    write(path)
    assert path.read_bytes() != b"old" and files_in(tmp_path) == ["file"]


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff", b"a"])
def test_json_that_is_not_whole_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "f.json").write_bytes(content)
    assert read_json(tmp_path / "f.json") is None


def test_a_table_comes_back_to_the_last_bit_with_its_inputs(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE, INPUTS)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", INPUTS), TABLE,
                                  check_dtype=False, check_exact=True)


def test_a_table_of_other_inputs_cut_short_or_missing_is_none(tmp_path):
    path = tmp_path / "t.parquet"
    assert read_table(path, INPUTS) is None
    write_table(path, TABLE, INPUTS)
    assert read_table(path, {**INPUTS, "data": "e"}) is None
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_table(path, INPUTS) is None
    TABLE.to_parquet(path)  # without inputs: not ours
    assert read_table(path, INPUTS) is None


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run."""
    folder = tmp_path / "runs" / "e" / "teachers" / f"m-L2-s0-{IDENTITY[:8]}"
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"w" * 100)
    write_json(folder / "config.json", {"a": 1})
    mark_done(folder, IDENTITY)
    return folder


def test_a_finished_run_is_recognised_by_its_identity(finished):
    assert is_done(finished, IDENTITY)
    assert not is_done(finished, "f" * 16)


DAMAGE = {
    "no DONE": lambda f: (f / DONE).unlink(),
    "half a DONE": lambda f: (f / DONE).write_text((f / DONE).read_text()[:30]),
    "an empty DONE": lambda f: (f / DONE).write_text(""),
    "a DONE of other code": lambda f: (f / DONE).write_text("[]"),
    "a DONE of an older format": lambda f: (f / DONE).write_text(
        json.dumps({"identity": IDENTITY, "files": None})),
    "a DONE that names no weights": lambda f: (f / DONE).write_text(
        json.dumps({"identity": IDENTITY, "files": {}})),
    "weights cut short": lambda f: (f / WEIGHTS).write_bytes(b"w" * 99),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "half a config": lambda f: (f / "config.json").write_text("{"),
    "no config": lambda f: (f / "config.json").unlink(),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_not_done(finished, case):
    DAMAGE[case](finished)
    assert not is_done(finished, IDENTITY)
    assert find_finished(finished.parents[2], "teachers", IDENTITY) is None


@pytest.mark.parametrize("moment", ["is_file", "stat", "read_text"])
def test_a_run_stays_done_whenever_its_weights_are_freed_meanwhile(finished, monkeypatch, moment):
    (finished / WEIGHTS).write_bytes(save({"w": torch.zeros(25)}))
    mark_done(finished, IDENTITY)
    look, looks = getattr(Path, moment), []

    def another(path, *words, **options):
        """What was there, after which the weights go."""
        if path.name not in (WEIGHTS, FREED):
            return look(path, *words, **options)
        looks.append(path.name)
        monkeypatch.setattr(Path, moment, look)
        try:
            return look(path, *words, **options)
        finally:
            free_weights(finished, IDENTITY)

    monkeypatch.setattr(Path, moment, another)
    assert is_done(finished, IDENTITY)
    assert looks and not (finished / WEIGHTS).exists() and is_done(finished, IDENTITY)


def test_what_is_added_later_leaves_a_run_done(finished):
    (finished / "scores").mkdir()
    (finished / "scores" / "test.parquet").write_bytes(b"s")
    (finished / "notes.txt").write_text("mine")
    assert is_done(finished, IDENTITY)


def test_done_names_the_files_of_the_folder_itself(tmp_path):
    (tmp_path / WEIGHTS).write_bytes(b"w")
    (tmp_path / ".half.partial").write_bytes(b"p")
    (tmp_path / RESUME).mkdir()
    mark_done(tmp_path, IDENTITY)
    assert read_json(tmp_path / DONE) == {"identity": IDENTITY, "files": {WEIGHTS: 1}}
    mark_done(tmp_path, IDENTITY)  # twice is the same: DONE does not name itself
    assert is_done(tmp_path, IDENTITY)


def test_a_run_is_found_under_any_experiment_but_only_in_its_stage(finished):
    runs_dir = finished.parents[2]
    assert find_finished(runs_dir, "teachers", IDENTITY) == finished
    assert find_finished(runs_dir, "ceilings", IDENTITY) is None
    assert find_finished(runs_dir / "none", "teachers", IDENTITY) is None
    moved = runs_dir / "other" / "teachers" / f"renamed-{IDENTITY[:8]}"
    moved.parent.mkdir(parents=True)
    finished.rename(moved)
    assert find_finished(runs_dir, "teachers", IDENTITY) == moved


def test_an_unfinished_twin_does_not_hide_a_finished_run(finished):
    runs_dir = finished.parents[2]
    (runs_dir / "a" / "teachers" / f"x-{IDENTITY[:8]}").mkdir(parents=True)
    assert find_finished(runs_dir, "teachers", IDENTITY) == finished


def test_a_run_that_is_needed_and_missing_is_named_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="teachers run m-L2-01234567 is not finished: do this"):
        require_finished(tmp_path, "teachers", IDENTITY, "m-L2", "do this")


def test_clearing_keeps_only_what_can_be_resumed_from(finished):
    (finished / RESUME / "checkpoint-3").mkdir(parents=True)
    (finished / RESUME / "checkpoint-3" / "optimizer.pt").write_bytes(b"o")
    (finished / "scores").mkdir()
    (finished / "scores" / "test.parquet").write_bytes(b"s")
    clear_unfinished(finished)
    assert files_in(finished) == [f"{RESUME}/checkpoint-3/optimizer.pt"]
    clear_unfinished(finished / "nothing")


def checkpoint(folder, step, ranks=1):
    """A whole checkpoint as the trainer writes one."""
    path = folder / RESUME / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / WEIGHTS).write_bytes(b"w")
    torch.save({"step": step}, path / "optimizer.pt")
    torch.save({"step": step}, path / "scheduler.pt")
    names = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{i}.pth" for i in range(ranks)]
    for name in names:
        torch.save({"rng": step}, path / name)
    write_json(path / "trainer_state.json", {"global_step": step})
    return path


def test_the_newest_checkpoint_is_the_one_of_the_most_steps(tmp_path):
    assert newest_checkpoint(tmp_path, 1) is None
    for step in (5, 100, 20):
        checkpoint(tmp_path, step)
    (tmp_path / RESUME / "checkpoint-best").mkdir()
    assert newest_checkpoint(tmp_path, 1).name == "checkpoint-100"


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_with_a_part_missing_or_cut_short_is_passed_over(tmp_path, name):
    checkpoint(tmp_path, 5)
    part = checkpoint(tmp_path, 10) / name
    part.write_bytes(part.read_bytes()[:-10])
    assert newest_checkpoint(tmp_path, 1).name == "checkpoint-5"
    part.unlink()
    assert newest_checkpoint(tmp_path, 1).name == "checkpoint-5"


def test_a_checkpoint_of_another_number_of_ranks_is_passed_over(tmp_path):
    checkpoint(tmp_path, 5, ranks=2)
    assert newest_checkpoint(tmp_path, 2).name == "checkpoint-5"
    assert newest_checkpoint(tmp_path, 1) is None
    assert newest_checkpoint(tmp_path, 4) is None


def test_a_deepspeed_checkpoint_needs_its_shards_and_latest(tmp_path):
    path = checkpoint(tmp_path, 5)
    (path / "optimizer.pt").unlink()
    (path / "latest").write_text("global_step5")
    assert newest_checkpoint(tmp_path, 1) is None
    (path / "global_step5").mkdir()
    torch.save({}, path / "global_step5" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    torch.save({}, path / "global_step5" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    assert newest_checkpoint(tmp_path, 1) == path
    assert newest_checkpoint(tmp_path, 2) is None
    (path / "latest").unlink()
    assert newest_checkpoint(tmp_path, 1) is None


def hold(folder, pipe):
    with lock(folder, lambda text: None):
        pipe.send("held")
        pipe.poll(20)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a run folder until it is told to let go."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "e" / "run", its))
    process.start()
    assert ours.poll(20)
    yield tmp_path / "e" / "run", process, lambda: ours.send("let go")
    process.kill()
    process.join(20)


def test_a_second_launch_waits_says_so_once_and_goes_on(holder):
    folder, process, let_go = holder
    said = []

    def tell(text):
        said.append(text)
        threading.Timer(0.6, let_go).start()

    with lock(folder, tell):
        process.join(20)
        assert process.exitcode == 0
    assert said == ["run: another launch is at work on it, waiting"]


def test_a_killed_launch_does_not_block_the_next_one(holder):
    folder, process, _ = holder
    process.kill()
    process.join(20)
    with lock(folder, lambda text: pytest.fail("it waited")):
        pass


def test_runs_do_not_block_each_other_and_a_lock_leaves_the_folder_alone(holder):
    folder, _, _ = holder
    with lock(folder.with_name("other"), lambda text: pytest.fail("it waited")):
        assert not folder.with_name("other").exists()


def test_commit_names_the_repository_s_or_says_unknown(tmp_path, monkeypatch):
    assert commit() == "unknown" or (REPO_ROOT / ".git").exists()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == "unknown"


def test_clearing_keeps_checkpoints_curves_and_what_is_not_ours(tmp_path):
    for name in (folders.RESUME, folders.CURVES, "scores"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.parquet").write_text("x")
    for name in ("model.safetensors", "config.yaml", ".log.jsonl.12.partial", "notes.txt"):
        (tmp_path / name).write_text("x")
    folders.clear_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([folders.RESUME, folders.CURVES,
                                                                 "notes.txt"])


def test_a_run_that_was_made_when_its_kind_was_called_its_role_is_still_read(tmp_path):
    run = RunConfig("e", "ceiling", "m-L2", "m", "0", (0, 1), "d", "1", "t", "train_2",
                    GROUND_TRUTH, "", GROUND_TRUTH_METHOD, TrainConfig(precision="fp32"), 0)
    values = json.loads(json.dumps(dataclasses.asdict(run)))
    values["role"] = values.pop("kind")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert read_run_config(tmp_path) == run
