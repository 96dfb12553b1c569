"""Only what carries our mark is cleared, replaced or written into: a stranger's file survives."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from configs.model_schema import ModelConfig
from configs.run import GROUND_TRUTH_METHOD, RunConfig
from configs.schema import (
    DataConfig,
    ExperimentConfig,
    MethodConfig,
    PretrainConfig,
    TrainConfig,
)
from data import preprocess
from data.records import SPLITS
from model import download, pretraining
from model.hub.files import fetch_files
from model.hub.plan import Plan
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.common.owned import MARK, claim, clear, disclaim, require_ours
from src.scoring import __main__ as score_command
from tests.evaluation.test_benchmark import ROWS
from tests.tiny_data import text_rows, write_jsonl
from tests.tiny_experiment import in_process
from tests.tiny_reward_model import make_reward_model

THESIS = "years of work"


def stranger(folder: Path) -> dict[str, str]:
    """Somebody's folder, with names that ours have too; what it holds."""
    for name in ("thesis.tex", "manifest.json", "meta.json", "pairs/train_1.parquet",
                 "tokens/key/train_1/part-0.arrow", ".notes.12.partial", "figures/mine.png",
                 "report.html", "config.json", "README.md", "hidden.bin"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(THESIS if path.suffix != ".json" else json.dumps({"of": THESIS}))
    return contents(folder)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*")
            if path.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("rm"))


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a command's main with some arguments: it must end with 2 and one line."""
    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        said = capsys.readouterr().err
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert end.value.code == 2 and len(errors) == 1 and "Traceback" not in said, said
        return errors[0]
    return run


def test_a_folder_is_ours_when_new_empty_or_marked_and_of_one_kind(tmp_path):
    claim(tmp_path / "new", "scores", "--out")
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty", "scores", "--out")
    (tmp_path / "new" / "table.csv").write_text("")
    require_ours(tmp_path / "new", "scores", "--out")
    with pytest.raises(UserError, match="holds scores, and nothing of that is touched"):
        require_ours(tmp_path / "new", "prepared data", "--out")
    before = stranger(tmp_path / "theirs")
    with pytest.raises(UserError, match="README.md, config.json and 8 more, which"):
        claim(tmp_path / "theirs", "scores", "--out")
    assert contents(tmp_path / "theirs") == before
    require_ours(tmp_path / "theirs", "scores", "--out", lambda folder: True)


@pytest.mark.parametrize("moment", ["is_dir", "iterdir", "read_text"])
@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_another_launch_claims_and_fills_meanwhile_is_still_ours(
        tmp_path, monkeypatch, moment, made):
    folder = tmp_path / "new"
    if made:
        folder.mkdir()
    look = getattr(Path, moment)

    def another(path, *words, **options):
        """What was there, after which it changes."""
        if folder not in (path, path.parent):
            return look(path, *words, **options)
        monkeypatch.setattr(Path, moment, look)
        try:
            seen = look(path, *words, **options)
            return list(seen) if moment == "iterdir" else seen
        finally:
            claim(folder, "scores", "--out")
            (folder / "table.csv").write_text("")

    monkeypatch.setattr(Path, moment, another)
    require_ours(folder, "scores", "--out")


def test_a_folder_that_another_launch_removes_meanwhile_is_a_new_one(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    claim(folder, "scores", "--out")
    look = Path.is_dir

    def another(path):
        seen = look(path)
        if path == folder:
            monkeypatch.setattr(Path, "is_dir", look)
            disclaim(folder)
        return seen

    monkeypatch.setattr(Path, "is_dir", another)
    require_ours(folder, "scores", "--out")


@pytest.mark.parametrize("folder", ["", ".", "/", str(REPO_ROOT), str(REPO_ROOT.parent), "~",
                                    str(REPO_ROOT / "data" / "..")])
def test_the_repository_and_what_holds_it_are_no_place_for_a_command(folder):
    with pytest.raises(UserError, match="name a folder of its own"):
        require_ours(Path(folder).expanduser(), "scores", "--out", lambda place: True)


def test_a_file_and_what_the_repository_holds_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        require_ours(tmp_path / "file", "scores", "--out")
    for name in ("model", "data", "src", "configs", "tests"):
        with pytest.raises(UserError, match="not ours"):
            require_ours(REPO_ROOT / name, "scores", "--out")


def test_clearing_takes_what_we_write_and_leaves_the_rest(tmp_path):
    claim(tmp_path / "ours", "scores", "--out")
    for name in ("a.csv", "kept/b.csv", "sub/deep/c.csv", "sub/notes.txt"):
        (tmp_path / "ours" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ours" / name).write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.csv").write_text(THESIS)
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "elsewhere")
    clear(tmp_path / "ours", ["*.csv"], keep=["kept"])
    assert set(contents(tmp_path / "ours")) - {"link/d.csv"} == {MARK, "kept/b.csv",
                                                                  "sub/notes.txt"}
    assert contents(tmp_path / "elsewhere") == {"d.csv": THESIS}
    claim(tmp_path / "mark alone", "scores", "--out")
    disclaim(tmp_path / "mark alone")
    assert not (tmp_path / "mark alone").exists()
    disclaim(tmp_path / "ours")
    assert (tmp_path / "ours" / MARK).is_file()


@pytest.mark.parametrize("options", [[], ["--overwrite", "True"]])
def test_preprocess_leaves_somebody_s_folder_alone(tmp_path, refused, options):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    before = stranger(tmp_path / "theirs")
    only_names = tmp_path / "names"  # no more in it than a prepared folder has
    for name in ("pairs", "tokens"):
        (only_names / name).mkdir(parents=True)
        (only_names / name / "mine.txt").write_text(THESIS)
    for place in (tmp_path / "theirs", only_names, raw, "", ".", "/", REPO_ROOT):
        refused(preprocess.main, "--train_path", raw, "--output_dir", place, *options)
    assert contents(tmp_path / "theirs") == before
    assert set(contents(only_names).values()) == {THESIS}


def test_preprocess_s_own_folder_is_replaced_and_a_stranger_s_file_in_it_stays(tmp_path, capsys):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    out = tmp_path / "out"
    call = ["--train_path", str(raw), "--output_dir", str(out)]
    assert in_process("data.preprocess", *call) == 0
    first = contents_of_pairs(out)
    for name in ("notes.txt", "pairs/notes.txt"):
        (out / name).write_text(THESIS)
    assert in_process("data.preprocess", *call, "--overwrite", "True", "--seed", "3") == 0
    assert contents_of_pairs(out) != first
    assert (out / "notes.txt").read_text() == (out / "pairs" / "notes.txt").read_text() == THESIS


def contents_of_pairs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "pairs" / f"{name}.parquet").read_bytes() for name in SPLITS}


def test_a_folder_that_was_prepared_before_there_were_marks_is_still_ours(tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    out = tmp_path / "out"
    call = ["--train_path", str(raw), "--output_dir", str(out)]
    assert in_process("data.preprocess", *call) == 0
    (out / MARK).unlink()
    before = (out / "manifest.json").read_bytes()
    assert in_process("data.preprocess", *call) == 0
    assert (out / "manifest.json").read_bytes() == before
    assert in_process("data.preprocess", *call, "--overwrite", "True", "--seed", "3") == 0


def tiny_pretrain(output_dir: str) -> PretrainConfig:
    return PretrainConfig(
        "tiny", output_dir=output_dir, max_length=12, documents=("text.txt",), tokenizer="words",
        vocab_size=300, chat_template="words.jinja", loss_after="?", hidden_size=16,
        intermediate_size=24, layers=3, heads=2, epochs=1, batch_rows=8)


def test_pretraining_removes_nobody_s_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "REPO_ROOT", tmp_path)
    monkeypatch.setattr(pretraining, "train_tokenizer", lambda config: pytest.fail("began to work"))
    before = stranger(tmp_path / "theirs")
    for place in ("", ".", "theirs", "theirs/figures", "theirs/thesis.tex", str(tmp_path), "/"):
        with pytest.raises(UserError, match="output_dir"):
            pretraining.pretrain(tiny_pretrain(place))
    assert contents(tmp_path / "theirs") == before
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}


def test_pretraining_replaces_its_own_model_and_keeps_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "REPO_ROOT", tmp_path)
    (tmp_path / "text.txt").write_text("where is it ? here . right\n" * 16)
    folder = pretraining.pretrain(tiny_pretrain("model/tiny"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "notes.txt").write_text(THESIS)
    (folder / MARK).unlink()  # as before there were marks: the card says that it was made here
    again = dataclasses.replace(tiny_pretrain("model/tiny"), seed=1)
    assert pretraining.pretrain(again) == folder
    assert (folder / "model.safetensors").read_bytes() != weights
    assert (folder / "notes.txt").read_text() == THESIS
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_a_download_neither_clears_nor_advises_away_what_it_did_not_fetch(tmp_path, monkeypatch,
                                                                          base):
    monkeypatch.setattr("configs.model_schema.REPO_ROOT", tmp_path)
    with pytest.raises(UserError, match="expected a hub id or the folder"):
        ModelConfig("mine", checkpoint="", family="llama")
    theirs = ModelConfig("mine", checkpoint="model/theirs", family="llama")
    before = stranger(tmp_path / "model" / "theirs")
    with pytest.raises(UserError) as told:
        download.fetch(Plan(theirs))
    assert "delete" not in str(told.value) and "correct `checkpoint`" in str(told.value)
    partial = stranger(tmp_path / "mine.partial")
    from model.hub.files import Listing
    with pytest.raises(UserError, match="not ours"):
        fetch_files(theirs, Listing("c" * 40, False, ()), tmp_path / "mine.partial")
    assert contents(tmp_path / "mine.partial") == partial
    assert contents(tmp_path / "model" / "theirs") == before


@pytest.mark.parametrize("options", [["--look"], []])
def test_one_model_s_reports_are_written_into_nobody_s_folder(model, tmp_path, options):
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS[4:5] * 2 if options else ROWS)
    before = stranger(tmp_path / "theirs")
    named = str(data) if options else f"reward_bench={data}"
    for place in (tmp_path / "theirs", "", ".", "/", REPO_ROOT, data):
        with pytest.raises(UserError):
            in_process("eval", "--model", str(model), "--data", named, "--output_dir", str(place),
                       *options)
    assert contents(tmp_path / "theirs") == before


def test_an_experiment_s_results_are_written_into_nobody_s_folder(finished, tmp_path):
    before = stranger(tmp_path / "results" / "tiny")
    with pytest.raises(UserError, match="not ours"):
        in_process("eval", "--model", str(finished.config), "--runs_dir", str(finished.runs_dir),
                   "--data_dir", str(finished.processed.parent), "--results_dir",
                   str(tmp_path / "results"))
    assert contents(tmp_path / "results" / "tiny") == before


def test_scores_of_a_file_overwrite_nothing_but_scores(model, tmp_path, refused):
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Why?", "response": "So."}])
    precious = tmp_path / "precious.jsonl"
    precious.write_text(THESIS)
    out = tmp_path / "out.parquet"
    call = ["--model", model, "--data", data]
    refused(score_command.main, *call, "--out", precious)
    refused(score_command.main, *call, "--out", out, "--best", precious)
    refused(score_command.main, *call, "--out", out, "--best", out)
    again = tmp_path / ".." / tmp_path.name / out.name
    refused(score_command.main, *call, "--out", out, "--best", again)
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "mine.txt").write_text(THESIS)
    best = tmp_path / "best.jsonl"
    for _ in range(2):  # the second writes over its own
        assert in_process("src.scoring", *map(str, call), "--out", str(out), "--best",
                          str(best)) == 0
    assert precious.read_text() == (parts / "mine.txt").read_text() == THESIS
    assert json.loads(best.read_text())["response"] == "So."


@pytest.mark.parametrize("name", ["../../up", "a/b", "a\\b", "", ".", "..", ".hidden", "a\nb",
                                  "x" * 300])
def test_a_name_that_would_become_a_path_is_refused_wherever_it_is_read(name):
    ladder = ({"model": "demo"},)
    made = [lambda: DataConfig(name, path="x"),
            lambda: MethodConfig(name), lambda: ExperimentConfig(name, "d", ladder, ladder),
            lambda: ModelConfig(name, "a/b", "llama"),
            lambda: dataclasses.replace(tiny_pretrain("x"), name=name),
            lambda: run_config(experiment=name), lambda: run_config(name=name),
            lambda: run_config(data=name)]
    for make in made:
        with pytest.raises(UserError, match="becomes part of a folder's name"):
            make()


def run_config(**changes) -> RunConfig:
    facts = {"experiment": "tiny", "kind": "teacher", "name": "tiny-L2", "model": "tiny",
             "base": "0", "kept": (0, 1), "data": "pairs", "data_hash": "0", "tokenizer": "0",
             "split": "train_1", "labels": "ground_truth", "teacher": "",
             "method": GROUND_TRUTH_METHOD, "train": TrainConfig(), "seed": 0}
    return RunConfig(**{**facts, **changes})


def test_a_score_file_s_model_name_cannot_leave_the_results(tmp_path):
    from tests.measures.test_benchmark_scores import V1, table
    table(*V1).to_csv(tmp_path / "made.csv", index=False)
    for name in ("../../up", "/tmp/up", ".."):
        with pytest.raises(UserError, match="becomes part of a folder's name"):
            in_process("eval", "--model", name, "--data", "reward_bench", "--scores",
                       str(tmp_path / "made.csv"), "--results_dir", str(tmp_path / "a" / "b"))
    assert {path.name for path in tmp_path.iterdir()} == {"made.csv"}
