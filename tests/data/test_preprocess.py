"""The command: what it accepts, what it says, and that no row of the source is unaccounted for."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import data.pairs.build
from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data import preprocess
from data.manifest import read_manifest
from data.pairs.pair_files import read_pairs
from data.records import SPLITS
from data.tokens.tokenised import open_split
from src.common.errors import run_command
from src.common.files import REPO_ROOT
from tests.tiny_data import TURNS, gpt2_like, llama_like, messages_row, save, text_rows, write_jsonl


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process: exit code, standard output, standard error."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data/preprocess.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(preprocess.main)
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err
    return run


def pairs_of(folder):
    """Split -> its pairs as a list of dicts."""
    return {name: read_pairs(folder, name).to_pylist() for name in SPLITS
            if (folder / "pairs" / f"{name}.parquet").exists()}


def mixed_rows(seed=0):
    """300 rows: sound ones, copies, contradictions, and one of each kind of bad row."""
    rows = text_rows(290, per_prompt=3)
    rows += [rows[0], rows[1], {**rows[5], "chosen": rows[5]["rejected"],
                               "rejected": rows[5]["chosen"]}]
    rows += [{"prompt": "p", "chosen": "c"}, {"prompt": "p", "chosen": 1, "rejected": "r"},
             {"prompt": "p", "chosen": "", "rejected": "r"},
             {"prompt": "p", "chosen": "r", "rejected": "r"}, b"\xff", b"{", b"[]"]
    random.Random(seed).shuffle(rows)
    return rows


@pytest.mark.parametrize("options", [[], ["--fraction", "0.4"], ["--train_pairs", "30"],
                                     ["--tokenizer_name", "TINY", "--max_length", "59"]])
def test_every_row_of_the_source_is_in_a_split_or_counted(call, tmp_path, options):
    options = [save(llama_like(), tmp_path / "t") if o == "TINY" else o for o in options]
    raw = write_jsonl(tmp_path / "raw.jsonl", mixed_rows())
    code, _, err = call("--train_path", raw, "--output_dir", tmp_path / "out", "--max_bad_frac",
                        "0.05", *options)
    assert code == 0, err
    manifest = read_manifest(tmp_path / "out")
    kept = sum(len(rows) for rows in pairs_of(tmp_path / "out").values())
    assert kept == sum(entry["pairs"] for entry in manifest["splits"].values())
    dropped = sum(entry["count"] for entry in manifest["dropped"].values())
    assert kept + dropped + sum(manifest["unused"].values()) + manifest["over_length"][
        "count"] == manifest["source"][0]["rows"] == 300
    for entry in manifest["dropped"].values():
        assert entry["count"] == len(set(entry["rows"]))
        assert all(row.startswith("raw.jsonl:") for row in entry["rows"])


def test_splits_and_hash_do_not_depend_on_the_order_of_the_rows(call, tmp_path):
    outs = []
    for seed in (0, 1):
        raw = write_jsonl(tmp_path / f"{seed}.jsonl", mixed_rows(seed))
        outs.append(tmp_path / f"out{seed}")
        assert call("--train_path", raw, "--output_dir", outs[-1], "--max_bad_frac", "0.05")[0] == 0
    first, second = (
        {name: [(r["pair_id"], r["prompt"], r["chosen"], r["rejected"]) for r in rows]
         for name, rows in pairs_of(out).items()} for out in outs)
    assert first == second
    assert read_manifest(outs[0])["data_hash"] == read_manifest(outs[1])["data_hash"]


def test_hash_changes_with_a_preference(call, tmp_path):
    rows, hashes = text_rows(60), []
    for name in ("a", "b"):
        raw = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        assert call("--train_path", raw, "--output_dir", tmp_path / name)[0] == 0
        hashes.append(read_manifest(tmp_path / name)["data_hash"])
        rows[9]["chosen"], rows[9]["rejected"] = rows[9]["rejected"], rows[9]["chosen"]
    assert hashes[0] != hashes[1]


def test_no_prompt_is_in_two_splits(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(400, per_prompt=3))
    assert call("--train_path", raw, "--output_dir", tmp_path / "out")[0] == 0
    prompts = [{row["prompt"] for row in rows} for rows in pairs_of(tmp_path / "out").values()]
    assert len(prompts) == 4
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 134


def test_second_identical_call_does_no_work_and_says_so(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    arguments = ["--train_path", raw, "--output_dir", tmp_path / "out", "--tokenizer_name",
                 save(llama_like(), tmp_path / "t")]
    code, out, _ = call(*arguments)
    assert code == 0 and "nothing to do" not in out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    code, out, _ = call(*arguments)
    assert code == 0 and "nothing to do" in out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_prepared_data_is_used_where_the_source_has_gone(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    assert call("--train_path", raw, "--output_dir", tmp_path / "out")[0] == 0
    raw.unlink()
    code, out, _ = call("--train_path", raw, "--output_dir", tmp_path / "out")
    assert code == 0 and "nothing to do" in out


def test_tokens_are_added_to_pairs_that_are_there_already(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    where = ["--train_path", raw, "--output_dir", tmp_path / "out"]
    assert call(*where)[0] == 0
    assert not (tmp_path / "out" / "tokens").exists()
    written = (tmp_path / "out" / "pairs" / "test.parquet").stat().st_mtime_ns
    assert call(*where, "--tokenizer_name", save(llama_like(), tmp_path / "t"))[0] == 0
    key, = read_manifest(tmp_path / "out")["tokenizers"]
    assert len(open_split(tmp_path / "out", key, "test")) == 20
    assert (tmp_path / "out" / "pairs" / "test.parquet").stat().st_mtime_ns == written


def test_show_prints_decoded_samples_counts_and_lengths(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", [messages_row(f"Q{i}?", f"Good {i}", f"Bad {i}")
                                               for i in range(80)])
    code, out, _ = call("--train_path", raw, "--output_dir", tmp_path / "out", "--show", "True",
                        "--tokenizer_name", save(llama_like(), tmp_path / "t"))
    assert code == 0
    assert "80 rows of form messages" in out
    assert "<|begin|><|start|>user\\nQ" in out and "<|end|>'" in out
    assert "quantile" in out and "train_2" in out and "20 pairs" in out
    code, out, _ = call("--train_path", raw, "--output_dir", tmp_path / "out", "--show", "True")
    assert "user: Q" in out


def test_separate_test_file_and_column_names(call, tmp_path):
    rows = [{"question": r["prompt"], "good": r["chosen"], "bad": r["rejected"]}
            for r in text_rows(100)]
    train, test = (write_jsonl(tmp_path / name, part) for name, part in (
        ("train.jsonl", rows[:80]), ("test.jsonl", rows[70:])))
    code, _, err = call("--train_path", train, "--test_path", test, "--output_dir",
                        tmp_path / "out", "--prompt_key", "question", "--chosen_key", "good",
                        "--rejected_key", "bad", "--val_pairs", "0")
    assert code == 0, err
    assert {name: len(rows) for name, rows in pairs_of(tmp_path / "out").items()} == {
        "train_1": 36, "train_2": 34, "test": 30}
    lost = read_manifest(tmp_path / "out")["dropped"]["prompt also in test"]
    assert lost["rows"] == [f"train.jsonl:{i}" for i in range(71, 81)]


def test_a_test_file_for_a_described_data_set_leaves_its_training_pairs(call, tmp_path):
    train, val, own, test = (write_jsonl(tmp_path / f"{name}.jsonl", [
        {**row, "prompt": f"{name} {row['prompt']}"} for row in text_rows(count)])
        for name, count in (("train", 60), ("val", 6), ("own", 8), ("test", 4)))
    for i, (place, expected) in enumerate((
            (f"path: {train}\nval_pairs: 0", {"train_1": 30, "train_2": 30, "test": 4}),
            (f"files: {{train: {train}, val: {val}, test: {own}}}",
             {"train_1": 30, "train_2": 30, "val": 6, "test": 4}))):
        (tmp_path / f"{i}.yaml").write_text(place)
        code, _, err = call("--data", tmp_path / f"{i}.yaml", "--test_path", test, "--output_dir",
                            tmp_path / f"out{i}")
        assert code == 0, err
        found = pairs_of(tmp_path / f"out{i}")
        assert {name: len(rows) for name, rows in found.items()} == expected
        assert all("test Q" in row["prompt"] for row in found["test"])


def test_test_file_alone_is_enough_to_score_on(call, tmp_path):
    test = write_jsonl(tmp_path / "test.jsonl", text_rows(10))
    assert call("--test_path", test, "--output_dir", tmp_path / "out")[0] == 0
    assert list(pairs_of(tmp_path / "out")) == ["test"]


def test_files_of_a_config_are_its_splits(call, tmp_path, monkeypatch):
    """The layout of hh_single_turn: three transcript files, prompts shared between them."""
    monkeypatch.setenv("RAW_DIR", str(tmp_path))
    (tmp_path / "hh_single_turn").mkdir()
    for name, first in (("train_gt", 0), ("train_w2s", 100), ("test", 90)):
        write_jsonl(tmp_path / "hh_single_turn" / f"harmless_{name}.jsonl", [
            {side: f"\n\nHuman: Question {i}\n\nAssistant: {side} {i}"
             for side in ("chosen", "rejected")} for i in range(first, first + 100)])
    code, _, err = call("--data", "hh_single_turn", "--output_dir", tmp_path / "out")
    assert code == 0, err
    assert {name: len(rows) for name, rows in pairs_of(tmp_path / "out").items()} == {
        "train_1": 90, "train_2": 10, "test": 100}
    dropped = read_manifest(tmp_path / "out")["dropped"]
    assert {reason: entry["count"] for reason, entry in dropped.items()} == {
        "prompt also in test": 100}


def test_experiment_gives_its_data_and_every_tokenizer(call, tmp_path, monkeypatch):
    config_root = tmp_path / "configs"
    for folder in ("data", "models", "experiments", "templates"):
        (config_root / folder).mkdir(parents=True)
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    (config_root / "data" / "mine.yaml").write_text(f"path: {raw}\nfraction: 0.5\n")
    save(llama_like(), tmp_path / "llama")
    save(gpt2_like(), tmp_path / "gpt2")
    template = CONFIG_ROOT / "templates" / "plain.jinja"
    for name, extra in (("llama", ""), ("gpt2", f"chat_template: {template}\n")):
        (config_root / "models" / f"{name}.yaml").write_text(
            f"checkpoint: {tmp_path / name}\nfamily: {name}\n{extra}")
    (config_root / "experiments" / "both.yaml").write_text(
        "data: mine\nteachers: [{model: gpt2}]\nstudents: [{model: llama}]\n")
    monkeypatch.setattr("configs.schema.CONFIG_ROOT", config_root)
    monkeypatch.setattr(preprocess, "REPO_ROOT", tmp_path)
    code, _, err = call("--experiment", "both")
    assert code == 0, err
    manifest = read_manifest(tmp_path / "data" / "processed" / "mine")
    assert sorted(entry["name"] for entry in manifest["tokenizers"].values()) == ["gpt2", "llama"]
    assert manifest["config"]["fraction"] == 0.5
    (tmp_path / "gpt2").rename(tmp_path / "gone")
    code, _, err = call("--experiment", "both")
    assert code == 2 and "model/download.py --model gpt2" in err


def bad_calls(tmp_path):
    """Name -> arguments that must end with exit code 2, and what the one line must say."""
    good = write_jsonl(tmp_path / "good.jsonl", text_rows(40))
    half_bad = write_jsonl(tmp_path / "half.jsonl", text_rows(40) + [b"{"] * 40)
    few = write_jsonl(tmp_path / "few.jsonl", text_rows(2))
    (tmp_path / "config.yaml").write_text(f"path: {good}\nfractoin: 0.5\n")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    no_template = save(gpt2_like(), tmp_path / "gpt2")
    short = save(llama_like(model_max_length=1024), tmp_path / "short")
    train = ["--train_path", good]
    return {
        "no data": ([], "nothing to prepare"),
        "unknown option": ([*train, "--frac", "0.5", "--whatever", "1"], "--whatever"),
        "ambiguous value": ([*train, "--show", "maybe"], "True or False"),
        "not a number": ([*train, "--max_length", "long"], "--max_length"),
        "missing file": (["--train_path", tmp_path / "none.jsonl"], "no such file"),
        "unknown config": (["--data", "none"], "no data config"),
        "unknown key": (["--data", tmp_path / "config.yaml"], "fractoin"),
        "unknown experiment": (["--experiment", "none"], "no experiments config"),
        "two sources": (["--experiment", "none", *train], "leave out"),
        "fraction": ([*train, "--fraction", "1.5"], "fraction 1.5"),
        "max_length": ([*train, "--max_length", "0"], "max_length 0"),
        "truncation": ([*train, "--truncation", "right"], "'right'"),
        "form": ([*train, "--form", "pairs"], "'pairs'"),
        "num_proc": ([*train, "--num_proc", "0"], "--num_proc 0"),
        "bad share": (["--train_path", half_bad], "40 of 80 rows"),
        "wrong form": ([*train, "--form", "messages"], "wrong type of chosen"),
        "wrong key": ([*train, "--chosen_key", "best"], "found columns prompt, chosen, rejected"),
        "too few": (["--train_path", few], "too few"),
        "foreign folder": ([*train, "--output_dir", foreign], "which is not ours"),
        "no template": ([*train, "--tokenizer_name", no_template], "no chat template"),
        "short context": ([*train, "--tokenizer_name", short], "--max_length 1024"),
        "no tokenizer": ([*train, "--tokenizer_name", tmp_path / "none"], "no tokenizer"),
    }


def test_each_mistake_ends_in_one_line_and_exit_2_with_nothing_left_behind(call, tmp_path):
    for name, (arguments, message) in bad_calls(tmp_path).items():
        out = tmp_path / "out"
        if "--output_dir" not in arguments:
            arguments = [*arguments, "--output_dir", out]
        code, _, err = call(*arguments)
        assert code == 2, name
        assert message in err and len(err.strip().splitlines()) == 1, (name, err)
        assert not out.exists(), name
    assert (tmp_path / "foreign" / "thesis.tex").read_text() == "precious"


def test_other_choices_or_another_source_need_another_folder_or_overwrite(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    where = ["--train_path", raw, "--output_dir", tmp_path / "out"]
    assert call(*where)[0] == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    code, _, err = call(*where, "--fraction", "0.5")
    assert code == 2 and "fraction: 1.0, not 0.5" in err
    write_jsonl(raw, text_rows(90))
    code, _, err = call(*where)
    assert code == 2 and "another content" in err
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert call(*where, "--overwrite", "True")[0] == 0
    assert sum(len(rows) for rows in pairs_of(tmp_path / "out").values()) == 90


def test_half_written_manifest_and_missing_pairs_are_made_again(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    where = ["--train_path", raw, "--output_dir", tmp_path / "out"]
    assert call(*where)[0] == 0
    manifest = tmp_path / "out" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    assert call(*where)[0] == 0
    (tmp_path / "out" / "pairs" / "val.parquet").unlink()
    assert call(*where)[0] == 0
    assert manifest.read_bytes() == whole
    assert len(pairs_of(tmp_path / "out")) == 4


def test_what_a_killed_call_left_behind_is_no_obstacle(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    where = ["--train_path", raw, "--output_dir", tmp_path / "out"]
    assert call(*where)[0] == 0
    names = sorted(p.relative_to(tmp_path) for p in (tmp_path / "out").rglob("*"))
    (tmp_path / "out" / "manifest.json").rename(tmp_path / "out" / ".manifest.json.17.partial")
    (tmp_path / "out" / "pairs" / ".test.parquet.17.partial").write_text("half")
    (tmp_path / "out" / ".work" / "pairs").mkdir(parents=True)
    assert call(*where)[0] == 0
    assert sorted(p.relative_to(tmp_path) for p in (tmp_path / "out").rglob("*")) == names


def test_full_disk_is_a_user_error_and_the_rest_can_be_done_later(call, tmp_path, monkeypatch):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))

    def full(*_arguments):
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "pairs"))

    with monkeypatch.context() as patched:
        patched.setattr(data.pairs.build, "_write_split", full)
        code, _, err = call("--train_path", raw, "--output_dir", tmp_path / "out")
    assert code == 2 and "no space left" in err
    assert not (tmp_path / "out").exists()
    assert call("--train_path", raw, "--output_dir", tmp_path / "out")[0] == 0


def test_a_known_hub_id_takes_its_config(call, tmp_path, monkeypatch):
    import datasets

    data = datasets.Dataset.from_list([messages_row(f"Q{i}?", f"Good {i}", f"Bad {i}")
                                       for i in range(80)])
    data.save_to_disk(str(tmp_path / "hub"))
    data = datasets.load_from_disk(str(tmp_path / "hub"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_named: data)
    code, out, err = call("--train_path", "hendrydong/preference_700K", "--output_dir",
                          tmp_path / "out")
    assert code == 0, err
    assert "configs/data/preference_700K.yaml" in out
    assert pairs_of(tmp_path / "out")["test"][0]["score_rejected"] == 0.5


@pytest.mark.parametrize("path", sorted((CONFIG_ROOT / "data").glob("*.yaml")),
                         ids=lambda path: path.stem)
def test_every_data_config_loads_and_names_its_public_source(path):
    config = load_config(DataConfig, str(path))
    assert config.source


def test_all_three_ways_of_calling_give_help_with_examples():
    ways = [(["data/preprocess.py"], REPO_ROOT), (["-m", "data.preprocess"], REPO_ROOT),
            (["preprocess.py"], REPO_ROOT / "data")]
    for command, folder in ways:
        done = subprocess.run([sys.executable, *command, "--help"], cwd=folder,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--experiment llama_3_2_1b" in done.stdout and "Traceback" not in done.stderr


def test_manifest_records_source_hash_form_and_config(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    assert call("--train_path", raw, "--output_dir", tmp_path / "out")[0] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    sha256 = subprocess.run(["sha256sum", raw], capture_output=True, text=True).stdout.split()[0]
    assert manifest["source"] == [{"path": str(raw), "sha256": sha256, "rows": 80}]
    assert manifest["form"] == "prompt_answers" and manifest["format"] == 2
    assert manifest["config"]["path"] == str(raw)
    assert Path(manifest["source"][0]["path"]).name == "raw.jsonl"


def test_a_call_that_failed_does_not_block_the_corrected_one(call, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", text_rows(80))
    tokenizer = save(llama_like(), tmp_path / "model")
    where = ["--train_path", raw, "--output_dir", tmp_path / "out", "--tokenizer_name", tokenizer]
    code, _, err = call(*where, "--max_length", "1")
    assert code == 2 and "80 longer than max_length" in err and not (tmp_path / "out").exists()
    assert call(*where, "--max_length", "512")[0] == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    other = save(llama_like(TURNS + "x" * 600), tmp_path / "wordy")
    assert call(*where[:-1], other, "--max_length", "512")[0] == 2  # what was there stays
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
