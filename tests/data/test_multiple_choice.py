"""Questions of the tax's tasks, from raw rows to the file that lm-eval reads."""

import json

import pytest
import yaml

from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data.prepare import prepare
from data.questions import NOT_ONE, questions, task_names
from data.read.sources import fixture_path
from src.common.errors import UserError
from tests.tiny_experiment import in_process

FIXTURES = {"sciq": "sciq_local", "boolq": "boolq", "cosmos_qa": "cosmos_qa"}


def fixture(name):
    return f"{name}={fixture_path(load_config(DataConfig, name))}"


@pytest.mark.parametrize("task", FIXTURES)
def test_each_question_has_its_choices_and_the_right_one(task, tmp_path):
    found, left_out = questions(fixture(FIXTURES[task]), tmp_path)
    first = {"sciq": ("Which gas do green leaves take in?", "carbon dioxide"),
             "boolq": ("Question: tin melts before iron", "Yes"),
             "cosmos_qa": ("Question: Why did I pack food?", "The ride is long.")}[task]
    assert found[0]["question"].endswith(first[0])
    assert found[0]["choices"][found[0]["gold"]] == first[1]
    assert all(len(one["choices"]) > 1 for one in found) and NOT_ONE not in left_out


def test_questions_that_may_have_taught_a_model_are_left_out(tmp_path):
    """Of prepared data only the test split's are asked."""
    config = load_config(DataConfig, "sciq_local")
    raw = tmp_path / "sciq.json"
    raw.write_text(json.dumps({str(number): {
        "question": f"Which number comes after {number}?", "option1": str(number + 1),
        "option2": str(number + 5), "option3": "none", "option4": "all", "answer_index": 1}
        for number in range(40)}))
    small = yaml.safe_load((CONFIG_ROOT / "data" / "sciq_local.yaml").read_text())
    small |= {"path": str(raw), "test_pairs": 10, "val_pairs": 4, "expected": {}}
    (tmp_path / "sciq_local.yaml").write_text(yaml.safe_dump(small))
    config = load_config(DataConfig, str(tmp_path / "sciq_local.yaml"))
    everything, _ = questions(str(tmp_path / "sciq_local.yaml"), tmp_path)
    prepare(config, tmp_path / "sciq_local", [])
    found, left_out = questions(str(tmp_path / "sciq_local.yaml"), tmp_path)
    assert (len(everything), len(found), sum(left_out.values())) == (40, 10, 30)


def test_the_command_writes_a_file_a_task_or_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAW_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no such file.*dev.jsonl"):
        in_process("data.multiple_choice", "--tasks", "boolq", "--data_dir", str(tmp_path))
    (tmp_path / "boolq").mkdir()
    rows = fixture_path(load_config(DataConfig, "boolq")).read_text()
    (tmp_path / "boolq" / "dev.jsonl").write_text(rows)
    in_process("data.multiple_choice", "--tasks", "boolq", "--data_dir", str(tmp_path))
    lines = (tmp_path / "tax" / "boolq.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["choices"] == ["No", "Yes"] and "questions" in capsys.readouterr(
    ).out


@pytest.mark.parametrize("name", task_names())
def test_every_task_file_names_itself_and_its_data(name):
    task = yaml.safe_load((CONFIG_ROOT / "tax" / f"{name}.yaml").read_text())
    assert task["task"] == name and task["output_type"] == "multiple_choice"
    data = task["metadata"]["data"].partition("=")[0]
    assert load_config(DataConfig, data).form == "answers"
