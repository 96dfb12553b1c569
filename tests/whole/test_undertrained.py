"""Teachers of full depth that learn from a share of the prompts, from the scripts to the tables."""

import json

import pandas as pd
import pytest

from src.runs.cards import model_card
from src.runs.folders import read_run_config
from tests.tiny_experiment import in_process, launch, make_experiment
from tests.tiny_experiment_parts import prepare_data

pytestmark = pytest.mark.launch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tiny = make_experiment(tmp_path_factory.mktemp("undertrained"), rows=170, train_pairs=44,
                           seeds=[0, 1])
    whole = tiny.settings()["students"][0] | {"layers": [4]}
    tiny.write_config(tiny.settings(), students=[whole], teachers=[
        {**whole, "train_share": share} for share in (0.25, 0.75)])
    prepare_data(tiny)
    for script, hardware in (("train_teacher_model.sh", "multi_gpu"),
                             ("train_student_model.sh", "cpu"), ("weak_to_strong.sh", "cpu")):
        ended = launch(script, tiny, hardware)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert in_process("eval", *tiny.evaluate()) == 0
    return tiny


def test_teachers_are_trained_on_their_share_and_students_on_all_that_they_label(tiny):
    pairs, steps = {}, {}
    for stage in ("teachers", "ceilings", "students"):
        for folder in tiny.finished(stage):
            run, manifest = read_run_config(folder), json.loads(
                (folder / "manifest.json").read_text())
            pairs.setdefault(run.display_name[:-3], set()).add(
                (manifest["pairs"], manifest.get("dropped_pairs", 0)))
            steps[run.display_name] = manifest["steps"]
    assert pairs == {
        "llama-L4-p25": {(11, 33)}, "llama-L4-p75": {(33, 11)}, "llama-L4": {(44, 0)},
        "llama-L4-from-llama-L4-p25-soft": {(44, 0)}, "llama-L4-from-llama-L4-p75-soft": {(44, 0)}}
    assert (steps["llama-L4-p25-s0"], steps["llama-L4-p75-s0"], steps["llama-L4-s0"]) == (1, 3, 3)
    assert "train_1, 11 pairs" in model_card(tiny.finished("teachers")[0])


def test_they_stand_in_the_tables_by_their_whole_name(tiny):
    cells = pd.read_csv(tiny.results / "pgr.csv")
    told = cells[cells.teacher.isin(["llama-L4-p25", "llama-L4-p75"])]
    assert set(told.student) == {"llama-L4"} and len(told) == 2
    assert told.gap.notna().all() and set(told.seeds.astype(str)) == {"0 1"}
    accuracy = pd.read_csv(tiny.results / "accuracy.csv")
    assert set(accuracy.name[accuracy.role == "teacher"]) == {"llama-L4-p25", "llama-L4-p75"}
