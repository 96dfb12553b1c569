"""The command line: a mistake is one line, told before anything that takes seconds is loaded."""

import re
import subprocess
import sys

import pytest

from src.common.files import REPO_ROOT
from tests.tiny_experiment import ENVIRONMENT, command

COMMANDS = ("eval.py", "data/preprocess.py", "data/demo.py", "model/download.py",
            "data.chess_documents", "model.pretrain", "src.training.command_line", "src.scoring",
            "src.push", "src.prune", "src.search", "src.analysis", "src.simulate_intervals",
            "data.check_raw", "src.evaluation.overview", "src.runs")
HEAVY = ("torch", "transformers", "datasets", "sklearn", "matplotlib")
RUN = """
import runpy, sys
name, *arguments = sys.argv[1:]
sys.argv = [name, *arguments]
run = runpy.run_path if name.endswith(".py") else runpy.run_module
try:
    run(name, run_name="__main__")
except SystemExit as ended:
    print("ended", ended.code, [each for each in HEAVY if each in sys.modules])
"""


def ask(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = RUN.replace("HEAVY", repr(HEAVY))
    return subprocess.run([sys.executable, "-c", code, name, *arguments], cwd=REPO_ROOT,
                          env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line_before_anything_is_loaded(name):
    for arguments in (["--whatever", "1"], ["--seed", "x", "--model"]):
        told = ask(name, *arguments)
        assert told.stdout == "ended 2 []\n", told
        lines = told.stderr.splitlines()
        assert len(lines) == 1 and re.match(r"error: .*; see python .* --help$", lines[0]), told


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_without_loading_anything(name):
    told = ask(name, "--help")
    assert told.stdout.endswith("ended 0 []\n") and "usage: python " in told.stdout, told
    assert told.stderr == ""
    sentences = re.findall(r"^[A-Z][^\n]{30,}\.$", told.stdout, re.M)
    assert len(set(sentences)) == len(sentences)  # what it is for is said once


BAD_SETTINGS = {"WORKERS": ("0", "-1", "1.5", "x", "100"), "NPROC": ("0", "-2", "1.5"),
                "MASTER_PORT": ("x", "-1", "70000"), "HARDWARE": ("abacus",)}


@pytest.mark.parametrize(("words", "settings", "message"), [
    (["demo", "--whatever"], {}, "--whatever"), (["demo", "--seeds", "one"], {}, "--seeds"),
    (["nothing"], {}, "no experiments config 'nothing'"),
    (["demo", "--worker", "3/2"], {}, "--worker 3/2"),
    (["demo"], {"LAUNCH": "moon"}, "'moon': expected LAUNCH=local for this machine, one of slurm"),
    *((["demo"], {name: value}, f"{name}={value}") for name, values in BAD_SETTINGS.items()
      for value in values)])
def test_the_scripts_check_what_they_are_given_before_they_launch(words, settings, message):
    told = command("./weak_to_strong.sh", *words, **{
        "HARDWARE": "zero2" if "NPROC" in settings else "cpu", **settings})
    errors = told.stderr.splitlines()
    assert told.returncode == 2 and len(errors) == 1, told
    assert errors[0].startswith("error: ") and message in errors[0]
    assert "run(s) at a time" not in told.stdout


@pytest.mark.parametrize("script", ["train_teacher_model.sh", "train_student_model.sh",
                                    "weak_to_strong.sh", "dpo.sh"])
def test_a_script_s_help_is_its_own_and_not_that_of_what_it_starts(script):
    told = command(f"./{script}", "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("Stage ") and f"usage: ./{script} [EXPERIMENT]" in told.stdout
    for word in ("--dry-run", "--seeds", "HARDWARE", "NPROC", "WORKERS", "LAUNCH",
                 "--runs_dir"):
        assert word in told.stdout
    assert "set -euo" not in told.stdout


def quickstart(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "quickstart.sh", *words], cwd=REPO_ROOT, text=True,
                          capture_output=True, timeout=120)


@pytest.mark.parametrize(("words", "message"), [
    (["--dry-run"], "--dry-run: quickstart.sh takes an experiment and --accept-terms"),
    (["demo", "--seeds"], "--seeds: quickstart.sh takes an experiment"),
    (["one", "two"], "one two: quickstart.sh takes one experiment"),
    (["nothing"], "no experiments config 'nothing'")])
def test_the_quickstart_starts_nothing_where_it_is_not_understood(words, message):
    told = quickstart(*words)
    line, = told.stderr.splitlines()
    assert (told.returncode, told.stdout) == (2, "")
    assert line.startswith("error: ") and message in line


def test_the_quickstart_s_help_teaches_its_steps():
    told = quickstart("--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("usage: ./quickstart.sh [EXPERIMENT]")
    for word in ("train_teacher_model.sh", "eval.py", "--accept-terms", "RAW_DIR", "WORKERS"):
        assert word in told.stdout
