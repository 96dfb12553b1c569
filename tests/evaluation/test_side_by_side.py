"""Runs scored by several processes: the bytes of one, and none of them outlives its command."""

import pickle
import shutil

import psutil
import pytest

from configs.run import STAGES
from configs.schema import ExperimentConfig, load_config
from src.common.errors import UserError
from src.evaluation import side_by_side
from src.runs.folders import WEIGHTS
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import TinyExperiment, command, in_process, preference_rows


def unscored(finished: TinyExperiment, name: str) -> TinyExperiment:
    tiny = finished.copy(name)
    for folder in tiny.runs_dir.glob("tiny/*/*/scores"):
        shutil.rmtree(folder)
    shutil.rmtree(tiny.results, ignore_errors=True)
    return tiny


def written(tiny: TinyExperiment) -> dict[str, bytes]:
    """All score files and tables."""
    return {str(path.relative_to(tiny.config.parent)): path.read_bytes()
            for pattern in ("runs/tiny/*/*/scores/*.parquet", "results/tiny/*.csv")
            for path in tiny.config.parent.glob(pattern)}


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_scores_and_tables_of_several_processes_are_those_of_one_to_the_byte(
        finished, monkeypatch):
    alone, together = (unscored(finished, f"by-{name}") for name in ("one", "several"))
    assert in_process("eval", *alone.evaluate(), "--workers", "1") == 0
    monkeypatch.setattr(side_by_side, "_take", lambda *args: None)  # here: the others do all
    before = children()
    assert in_process("eval", *together.evaluate(), "--workers", "2") == 0
    found = written(together)
    assert found == written(alone)
    assert sum(name.endswith("test.parquet") for name in found) == sum(
        len(together.finished(stage)) for stage in STAGES) == 16
    assert children() <= before | {pid for pid in children() if is_the_resource_tracker(pid)}


def test_another_set_is_scored_by_several_processes_as_by_one(finished, monkeypatch, tmp_path):
    data = str(write_jsonl(tmp_path / "elsewhere.jsonl", preference_rows(154, seed=9)[130:]))
    alone, together = (unscored(finished, f"elsewhere-by-{name}") for name in ("one", "several"))
    assert in_process("eval", *alone.evaluate(), "--workers", "1", "--transfer", data) == 0
    monkeypatch.setattr(side_by_side, "_take", lambda *args: None)  # here: the others do all
    assert in_process("eval", *together.evaluate(), "--workers", "2", "--transfer", data) == 0
    found = written(together)
    assert found == written(alone)
    assert sum("elsewhere-" in name for name in found) == 16


def is_the_resource_tracker(pid: int) -> bool:
    return "resource_tracker" in " ".join(psutil.Process(pid).cmdline())


def test_a_run_that_cannot_be_scored_is_told_and_no_process_stays(finished):
    tiny = unscored(finished, "broken")
    folder = tiny.finished("ceilings")[0]
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(b"\xff" * len(weights))  # as long, so the run counts as done
    with pytest.raises(UserError, match="not a whole safetensors file"):
        in_process("eval", *tiny.evaluate(), "--workers", "2")
    assert all(is_the_resource_tracker(pid) for pid in children())


HELP = """
import pickle, sys
from multiprocessing import Value, resource_tracker, set_start_method
from pathlib import Path
from src.evaluation.side_by_side import _help
set_start_method("spawn")  # as in a process that was started so
counters, made = (Value("i", 0), Value("i", 0)), []
resource_tracker.register = lambda name, kind: made.append(kind)
_help(pickle.loads(Path(sys.argv[1]).read_bytes()), *counters)
print("made:", made)
"""


def test_a_process_makes_no_semaphore_that_would_outlive_its_kill(finished, tmp_path):
    """A bar's lock is one; Python says at its end that it was left."""
    job = side_by_side.Job(load_config(ExperimentConfig, str(finished.config)),
                           finished.processed.parent, finished.runs_dir, "test", (), 1, None)
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    ended = command("python", "-c", HELP, str(tmp_path / "job"))
    assert ended.returncode == 0 and ended.stdout == "made: []\n", ended


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_a_number_of_workers_that_is_none_is_an_error(finished, workers):
    with pytest.raises(UserError, match=f"--workers {workers}: expected 1 or more"):
        in_process("eval", *finished.evaluate(), "--workers", workers)
