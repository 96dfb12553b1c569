"""What only a person can bring is asked for first, by a Python that has no package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.check_raw import check_raw
from src.common.errors import UserError
from src.common.files import REPO_ROOT


@pytest.fixture
def experiment(tmp_path: Path) -> str:
    """An experiment whose data are two files below RAW_DIR, one of them in a mapping."""
    (tmp_path / "pairs.yaml").write_text(
        "# not ${RAW_DIR}/other\nsource: https://example.org/pairs (CC0)   # a note\n"
        "path: ${RAW_DIR}/a/rows.json\nfiles: {test: '${RAW_DIR}/a/test.json'}\n")
    (tmp_path / "one.yaml").write_text(f"seeds: [0]\ndata: {tmp_path / 'pairs.yaml'}  # pairs\n")
    return str(tmp_path / "one.yaml")


def test_a_missing_file_is_named_with_its_source_and_place(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("RAW_DIR", str(tmp_path / "raw"))
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "rows.json").write_text("[]")
    with pytest.raises(UserError) as told:
        check_raw(experiment)
    text = str(told.value)
    assert f"no such file: {tmp_path}/raw/a/test.json: get a/test.json from " in text
    assert "https://example.org/pairs (CC0) and put it there, or set RAW_DIR to the folder" in text
    assert "rows.json" not in text and "a note" not in text and "other" not in text


def test_files_that_are_there_pass(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("RAW_DIR", str(tmp_path))
    (tmp_path / "a").mkdir()
    for name in ("rows.json", "test.json"):
        (tmp_path / "a" / name).write_text("[]")
    check_raw(experiment)


@pytest.mark.parametrize("name", ["demo", "llama_3_2_1b"])
def test_data_that_are_made_here_or_come_from_the_hub_are_not_asked_for(name, monkeypatch):
    monkeypatch.setenv("RAW_DIR", str(REPO_ROOT / "data" / "raw"))
    if name == "demo" and not (REPO_ROOT / "data" / "raw").exists():
        pytest.skip("the demo's raw pairs have not been made")
    check_raw(name)


def test_an_experiment_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(UserError, match="no experiments config 'nothing': expected one of chess"):
        check_raw("nothing")


def test_it_needs_no_package(experiment, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "data.check_raw", experiment], cwd=REPO_ROOT, text=True,
        capture_output=True, env={**os.environ, "RAW_DIR": str(tmp_path / "nowhere")}, timeout=60)
    line, = ended.stderr.splitlines()
    assert ended.returncode == 2 and line.startswith("error: raw data of ")
