"""Every command of the README's day, on a stand-in: a tiny Llama and 2,000 local pairs."""

import re
import shlex
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from configs.model_schema import ModelConfig
from configs.schema import load_config
from src.common.files import REPO_ROOT
from tests.tiny_experiment import TinyExperiment, command, in_process, launch, make_experiment

pytestmark = pytest.mark.launch

SCRIPTS = {"train_teacher_model.sh": "teachers", "train_student_model.sh": "ceilings",
           "weak_to_strong.sh": "students"}
RUNS = {"teachers": 2, "ceilings": 1, "students": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    return make_experiment(tmp_path_factory.mktemp("day"), rows=2000, layers=([1, 2], [4]),
                           train={"batch_pairs": 64}, runtime={"micro_batch_tokens": 8192})


@pytest.fixture(scope="module")
def prepared(tiny) -> str:
    """What data/preprocess.py printed."""
    ended = command("python", "data/preprocess.py", "--train_path", str(tiny.raw), "--output_dir",
                    str(tiny.processed), "--tokenizer_name", str(tiny.model), "--show", "True")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def planned(tiny, prepared) -> dict[str, str]:
    """Script -> what it printed for --dry-run, before anything was trained."""
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(lambda script: launch(script, tiny, "auto", "--dry-run"), SCRIPTS)
        planned = dict(zip(SCRIPTS, ended, strict=True))
    assert all(run.returncode == 0 for run in planned.values()), planned
    assert not tiny.runs_dir.exists()
    return {script: run.stdout for script, run in planned.items()}


@pytest.fixture(scope="module")
def trained(tiny, planned) -> dict[str, str]:
    """Script -> what it printed."""
    printed = {}
    for script in SCRIPTS:
        ended = launch(script, tiny, "cpu")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        printed[script] = ended.stdout
    return printed


@pytest.fixture(scope="module")
def evaluated(tiny, trained) -> str:
    """What eval.py printed for the experiment."""
    ended = command("python", "eval.py", *tiny.evaluate())
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_preprocess_prints_counts_lengths_and_decoded_samples(prepared):
    assert "2,000 rows" in prepared or "2000 rows" in prepared
    for split in ("train_1", "train_2", "val", "test"):
        assert re.search(rf"{split} +[\d,]+ pairs", prepared)
    assert "<|start|>assistant" in prepared


def test_a_dry_run_lists_the_runs_and_trains_nothing(planned):
    for script, stage in SCRIPTS.items():
        assert f"{stage}: {RUNS[stage]} runs, 0 done" in planned[script]
        assert planned[script].count("to do ") == RUNS[stage]
        assert "nothing was trained" in planned[script]


def test_the_scripts_train_every_run_once_each_in_one_launch(tiny, trained):
    for script, stage in SCRIPTS.items():
        assert f"{RUNS[stage]} trained, 0 done before" in trained[script]
        assert len(tiny.finished(stage)) == RUNS[stage]
        assert not list(tiny.runs_dir.rglob("checkpoint-*"))  # nothing to resume is left over
    config = (tiny.finished("teachers")[0] / "config.json").read_text()
    assert '"num_labels"' not in config or '"num_labels": 1' in config
    assert '"pad_token_id": 259' in config  # not the end of turn, which the tokenizer pads with


def test_eval_writes_tables_figures_and_report(tiny, evaluated):
    accuracy = pd.read_csv(tiny.results / "accuracy.csv")
    assert accuracy.role.value_counts().to_dict() == {
        "teacher": 2, "ceiling": 1, "student": 2, "baseline": 2}
    assert len(pd.read_csv(tiny.results / "pgr.csv")) >= RUNS["students"]
    assert (tiny.results / "report.html").stat().st_size > 10_000
    assert len(list((tiny.results / "figures").glob("*.png"))) >= 4
    assert str(tiny.results / "report.html") in evaluated


def test_second_calls_do_no_work(tiny, evaluated, capsys, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in tiny.config.parent.rglob("*")
              if path.is_file()}
    assert in_process("data.preprocess", "--train_path", str(tiny.raw), "--output_dir",
                      str(tiny.processed), "--tokenizer_name", str(tiny.model)) == 0
    assert "nothing to do" in capsys.readouterr().out
    for stage, count in RUNS.items():
        assert in_process("src.train", *tiny.train(stage)) == 0
        assert f"0 trained, {count} done before: nothing to do" in capsys.readouterr().out
        assert in_process("src.train", *tiny.train(stage), "--dry-run") == 0
        assert f"{count} runs, {count} done" in capsys.readouterr().out
    assert in_process("eval", *tiny.evaluate()) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tiny.config.parent.rglob("*")
                      if path.is_file()}  # a lock comes and goes in a folder


def test_one_model_is_scored_with_the_pgr_of_its_peers_and_on_any_file(tiny, evaluated, capsys):
    student, _ = tiny.finished("students")
    assert in_process("eval", "--model", str(student), *tiny.folders) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(tiny.results / "accuracy.csv")
    row = table[(table.role == "student") & (table.teacher == "llama-L1")].iloc[0]
    assert f"accuracy {row.accuracy:.4f} [" in printed
    assert "teacher 0." in printed and "gap " in printed and "PGR " in printed
    assert in_process("eval", "--model", str(student), "--data", str(tiny.raw),
                      *tiny.folders) == 0
    printed = capsys.readouterr().out
    assert f"2,000 pairs of {tiny.raw}" in printed
    assert "accuracy 0." in printed and "PGR " in printed


def test_without_an_argument_the_scripts_name_the_download_and_the_demo():
    if load_config(ModelConfig, "llama_3_2_1b").path.is_dir():
        pytest.skip("llama_3_2_1b has been downloaded")
    calls = [("./train_teacher_model.sh",), ("./train_student_model.sh", "--dry-run"),
             ("./weak_to_strong.sh", "--dry-run")]
    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(lambda words: command(*words, WORKERS="1"), calls):
            assert ended.returncode == 2
            line, = ended.stderr.strip().splitlines()
            assert line.startswith("error: ")
            assert "python model/download.py --model llama_3_2_1b" in line
            assert "`demo` needs no download" in line


PAGES = [REPO_ROOT / "README.md", REPO_ROOT / "CONTRIBUTING.md", REPO_ROOT / "speed" / "README.md",
         *sorted((REPO_ROOT / "docs").glob("*.md"))]


def bash_blocks() -> list[str]:
    """The bash blocks of every page."""
    return [block for page in PAGES for block in
            re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)]


def test_every_link_of_a_page_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (page, target)


def documented_commands() -> list[list[str]]:
    """Words of every command in the pages' bash blocks."""
    lines = "\n".join(bash_blocks()).replace("\\\n", " ").splitlines()
    found = [words for words in (shlex.split(line, comments=True) for line in lines) if words]
    assert len(found) >= 12
    return found


def test_blocks_of_pages_are_bash():
    for block in bash_blocks():
        ended = command("bash", "-n", "-c", block)
        assert ended.returncode == 0 and not ended.stderr, block


def test_every_program_of_the_pages_exists_and_the_python_ones_give_help():
    programs = set()
    for words in documented_commands():
        while re.fullmatch(r"\w+=\S*", words[0]):  # HARDWARE=zero3 ./weak_to_strong.sh
            words = words[1:]
        if words[0].startswith("./"):
            assert (REPO_ROOT / words[0]).is_file(), words
            assert command("bash", "-n", words[0]).returncode == 0
        if words[0] in ("python", "python3", ".venv/bin/python"):
            programs.add(("python", *words[1:3 if words[1] == "-m" else 2]))
    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(lambda program: command(*program, "--help"), sorted(programs)):
            assert ended.returncode == 0 and "usage:" in ended.stdout, ended
