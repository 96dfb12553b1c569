"""quickstart.sh on an experiment, in a clone of its own: its steps, a kill, the call after it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from src.common.files import REPO_ROOT
from tests.tiny_experiment import ENVIRONMENT, TinyExperiment, make_experiment

pytestmark = pytest.mark.launch

NEEDED = ("*.sh", "eval.py", "requirements.txt", "configs", "data", "model/*.py", "model/attention",
          "model/base", "model/hub", "src")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The repository's files as git has them, and a .venv that is this Python."""
    clone = tmp_path_factory.mktemp("clone")
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *NEEDED],
                           cwd=REPO_ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO_ROOT / name, clone / name)
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    subprocess.run("cksum < requirements.txt > .venv/.requirements", shell=True, cwd=clone,
                   check=True)
    return clone


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    """Two teachers of one rung, so that one can be done and the other begun; raw pairs below
    RAW_DIR."""
    tiny = make_experiment(tmp_path_factory.mktemp("quick"), rows=300, layers=([2], [3, 4]),
                           seeds=[0, 1], train={"trainable_layers": 1, "epochs": 3})
    path = tiny.root / "pairs.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()),
                                    "path": "${RAW_DIR}/raw.jsonl", "source": "the test"}))
    return tiny


def environment(tiny: TinyExperiment, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    return {**kept, "RAW_DIR": str(tiny.root), "WORKERS": "1", "HARDWARE": "cpu", **changes}


def test_a_raw_file_that_is_missing_is_told_before_anything_is_fetched(clone, tiny):
    """Without a .venv, which would be made first."""
    (clone / ".venv").rename(clone / "venv")
    try:
        ended = subprocess.run(["./quickstart.sh", str(tiny.config)], cwd=clone, text=True,
                               capture_output=True, timeout=60,
                               env=environment(tiny, RAW_DIR=str(tiny.root / "nowhere")))
        assert not (clone / ".venv").exists()
    finally:
        (clone / "venv").rename(clone / ".venv")
    line, = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert line.startswith("error: raw data of ") and "get raw.jsonl from the test" in line


def calls(clone: Path, *words: str) -> list[str]:
    """What quickstart.sh runs in Python, were all of it to succeed."""
    python = clone / ".venv" / "bin" / "python"
    real, log = python.read_text(), clone / "calls"
    python.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n'
                      '[ -z "$STATUS_FILE" ] || echo 0 > "$STATUS_FILE"\n')
    try:
        subprocess.run(["./quickstart.sh", *words], cwd=clone, check=True, capture_output=True,
                       timeout=60, env={**ENVIRONMENT, "WORKERS": "1", "HARDWARE": "cpu"})
        return [line for line in log.read_text().splitlines()
                if not line.startswith(("-m src.training.command_line", "-c import sys"))]
    finally:
        python.write_text(real)
        log.unlink(missing_ok=True)


def stages(experiment: str) -> list[str]:
    """How the calls of the three scripts end."""
    return [f"-m src.train --experiment {experiment} --stage {stage} --worker 0/1"
            for stage in ("teachers", "ceilings", "students")]


@pytest.mark.parametrize("words", [(), ("demo",)])
def test_without_an_experiment_it_is_the_demo_and_fetches_nothing(clone, words):
    made, prepared, *trained, evaluated = calls(clone, *words)
    assert (made, prepared) == ("data/demo.py", "data/preprocess.py --experiment demo")
    assert evaluated == "eval.py --model demo"
    for call, end in zip(trained, stages("demo"), strict=True):
        assert call.endswith(end)


def test_an_experiment_s_steps_follow_each_other(clone):
    for terms in ("", " --accept-terms"):
        asked, fetched, prepared, told, *trained, evaluated = calls(clone, "sciq", *terms.split())
        assert asked == "-m data.check_raw sciq"
        assert fetched == f"model/download.py --model sciq{terms}"
        assert prepared == "data/preprocess.py --experiment sciq"
        assert told == "-m src.evaluation.overview --experiment sciq"
        assert evaluated == "eval.py --model sciq"
        for call, end in zip(trained, stages("sciq"), strict=True):
            assert call.endswith(end)


def test_the_demo_s_pairs_are_made_for_every_experiment_on_them(clone):
    _, fetched, made, prepared, *_ = calls(clone, "demo_methods")
    assert fetched == "model/download.py --model demo_methods"
    assert made == "data/demo.py"
    assert prepared == "data/preprocess.py --experiment demo_methods"


def test_a_killed_quickstart_goes_on_and_ends_with_the_table(clone, tiny):
    runs = clone / "runs" / "tiny"
    with (clone / "log").open("w") as log:
        quick = psutil.Popen(["./quickstart.sh", str(tiny.config)], cwd=clone, stdout=log,
                             stderr=log, env=environment(tiny))
    deadline = time.monotonic() + 1200
    while not list(runs.glob("teachers/*/DONE")):
        assert time.monotonic() < deadline and quick.poll() is None, (clone / "log").read_text()
        time.sleep(0.02)
    processes = quick.children(recursive=True)
    quick.kill()
    quick.wait()
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    first = (clone / "log").read_text()
    for number, name in enumerate(("packages", "models", "data", "teachers"), 1):
        assert re.search(rf"^== step {number}/7, \d+ min so far: {name}", first, re.MULTILINE)
    assert "tiny: about " in first and "guessed from a fp32 matrix product" in first
    done = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/DONE")}
    assert not list(runs.glob("students/*"))

    ended = subprocess.run(["./quickstart.sh", str(tiny.config), "--accept-terms"], cwd=clone,
                           text=True, capture_output=True, timeout=1800, env=environment(tiny))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing to do: all of this was prepared before" in ended.stdout
    assert f"from {len(done)} finished runs" in ended.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == done
    counts = {stage: len(list(runs.glob(f"{stage}/*/DONE"))) for stage in (
        "teachers", "ceilings", "students")}
    assert counts == {"teachers": 2, "ceilings": 4, "students": 4}
    assert "tiny, step 6/7: 10 of 10 runs done, " in ended.stdout
    assert " so far, about " in ended.stdout and "all steps done in " in ended.stdout
    assert (clone / "results" / "tiny" / "pgr.csv").is_file()
