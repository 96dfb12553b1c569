"""eval.py on one reward model: ours with its peers, ours on a file, anybody's."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from data.tokens.formatting import encode_pair, load_tokenizer
from model.reload_check import plain_rewards
from src.common.errors import UserError
from src.evaluation.inspect import inspect_model
from src.evaluation.one_model import evaluate_one, find_peers, training_prompts_mark
from src.evaluation.sets import trained_prompts
from src.runs.folders import read_run
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process, preference_rows


def ask(tiny, folder, data=None, split="test", runs_dir=None):
    return evaluate_one(folder, data and str(data), split, runs_dir or tiny.runs_dir,
                        tiny.processed.parent)


def student(tiny):
    return next(path for path in tiny.finished("students") if "L4-from-llama-L1" in path.name)


def number(text, name):
    return float(re.search(rf"{name} ([+-]?[\d.]+)", text)[1])


def test_a_student_is_scored_beside_its_teacher_and_ceiling(finished):
    folder = student(finished)
    run = read_run(folder)
    peers = find_peers(run, finished.runs_dir)
    assert read_run(peers["teacher"]).identity == run.labels
    ceiling = read_run(peers["ceiling"])
    assert (ceiling.kind, ceiling.name, ceiling.seed) == ("ceiling", run.name, run.seed)
    text = ask(finished, folder)
    strong, weak, ceiling = (number(text, name) for name in ("accuracy", "teacher", "ceiling"))
    assert number(text, "gain") == pytest.approx(strong - weak, abs=2e-4)
    assert number(text, "gap") == pytest.approx(ceiling - weak, abs=2e-4)
    assert "PGR" in text and "40 pairs of pairs, test" in text


def test_a_ceiling_is_found_whatever_the_student_stops_on(finished):
    tiny = finished.copy("one", train={"early_stopping_evals": 1, "eval_frac": 0.5})
    from src.train import train_stage
    from tests.tiny_experiment_parts import sweep_of

    sweep = sweep_of(tiny, (0,))
    shutil.rmtree(tiny.runs_dir / "tiny" / "students")
    assert train_stage(sweep, "students", tiny.runs_dir, 0, 4) == []
    run = read_run(tiny.finished("students")[0])
    assert run.train.early_stopping_evals == 1
    assert set(find_peers(run, tiny.runs_dir)) == {"teacher", "ceiling"}


def test_intervals_are_those_of_the_experiment_s_tables(finished, tmp_path, monkeypatch):
    """Of both ways of looking at a run: its experiment's level, samples and floor, not the
    defaults."""
    tiny = finished.copy("levels", eval={"level": 0.5, "bootstrap_samples": 300, "pgr_floor": 0.99})
    assert in_process("eval", *tiny.evaluate()) == 0
    run, table = read_run(student(tiny)), pd.read_csv(tiny.results / "accuracy.csv")
    row, = table[(table.role == "student") & (table.name == run.name) & (table.seed == run.seed)
                 & (table.teacher == run.teacher)].to_dict("records")
    where = tmp_path / "experiments" / "tiny.yaml"
    where.parent.mkdir()
    shutil.copy(tiny.config, where)
    monkeypatch.setattr("src.evaluation.one_model.CONFIG_ROOT", tmp_path)
    text = ask(tiny, student(tiny))
    assert f"[{row['low']:.4f}, {row['high']:.4f}] (50%, prompts resampled)" in text
    assert "PGR undefined: the gap is not clearly above 0, or below 0.99" in text
    said = "intervals: level 50%, 300 samples, as configs/experiments/tiny.yaml says"
    assert text.endswith(said)
    printed = inspect_model(student(tiny), None, "test", tiny.processed.parent, tmp_path, None)
    output = tmp_path / "tiny" / "look" / student(tiny).name / "pairs"
    summary = pd.read_csv(output / "summary.csv").set_index("figure")
    assert summary.loc["accuracy", ["low", "high"]].tolist() == pytest.approx(
        [row["low"], row["high"]], abs=1e-9)
    assert said in printed and said.removeprefix("intervals: ") in (
        output / "report.md").read_text()


def test_an_experiment_that_is_no_config_of_ours_gets_the_defaults_and_says_so(
        finished, tmp_path, monkeypatch):
    monkeypatch.setattr("src.evaluation.one_model.CONFIG_ROOT", tmp_path)
    assert ask(finished, student(finished)).endswith(
        "intervals: level 95%, 10,000 samples, the defaults: there is no "
        "configs/experiments/tiny.yaml")


def test_an_experiment_of_default_settings_needs_no_words(finished, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    settings = finished.settings()
    del settings["eval"]
    (tmp_path / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr("src.evaluation.one_model.CONFIG_ROOT", tmp_path)
    assert "intervals:" not in ask(finished, student(finished))


@pytest.mark.parametrize("stage", ["teachers", "ceilings"])
def test_a_teacher_or_ceiling_has_an_accuracy_and_no_pgr(finished, stage):
    text = ask(finished, finished.finished(stage)[0])
    assert 0 <= number(text, "accuracy") <= 1 and "PGR" not in text


def test_a_student_without_its_peers_says_that_pgr_needs_them(finished, tmp_path):
    assert "PGR needs the teacher's and the ceiling's run" in ask(finished, student(finished),
                                                                  runs_dir=tmp_path)


def test_another_split_is_marked(finished):
    assert ask(finished, student(finished), split="train_2").startswith("! scored on train_2")


def test_training_prompts_of_data_that_were_prepared_anew_cannot_be_told(finished):
    run = read_run(student(finished))
    data = finished.processed.parent
    prompts = trained_prompts(data / run.data)
    assert "are training prompts" in training_prompts_mark(run, prompts, data)
    other = dataclasses.replace(run, data_hash="0" * 16)
    assert "cannot be told" in training_prompts_mark(other, prompts, data)


def test_an_unfinished_run_is_refused(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(student(finished), folder)
    (folder / "DONE").unlink()
    with pytest.raises(UserError, match="not finished"):
        ask(finished, folder)


@pytest.fixture
def foreign(finished, tmp_path):
    """A reward model without a run's config: made elsewhere."""
    folder = tmp_path / "foreign"
    shutil.copytree(finished.finished("ceilings")[0], folder)
    for name in ("config.yaml", "DONE", "manifest.json"):
        (folder / name).unlink()
    return folder


def test_anybody_s_reward_model_is_scored_on_a_file_like_the_library_does(finished, foreign,
                                                                          tmp_path):
    rows = preference_rows(30, seed=5)
    text = ask(finished, foreign, data=write_jsonl(tmp_path / "mine.jsonl", rows))
    tokenizer = load_tokenizer(foreign)
    right = []
    for row in rows:
        answers = [row[side][-1]["content"] for side in ("chosen", "rejected")]
        prompt, chosen, rejected = encode_pair(tokenizer, row["chosen"][:-1], *answers)
        good, bad = plain_rewards(foreign, [prompt + chosen, prompt + rejected]).tolist()
        right.append(good > bad)
    assert number(text, "accuracy") == pytest.approx(np.mean(right), abs=1e-4)
    assert "30 pairs of" in text and "PGR" not in text


def test_a_data_set_s_name_stands_for_its_test_split(finished, tmp_path):
    """The run's own data, named: the pairs and the numbers are those of its own test."""
    folder = finished.finished("ceilings")[0]
    named = evaluate_one(folder, str(finished.root / "pairs.yaml"), "test", finished.runs_dir,
                         tmp_path)
    assert "40 pairs of" in named
    mark, _, *numbers = named.splitlines()  # elsewhere the run's own data are not at hand
    assert "cannot be told" in mark and numbers == ask(finished, folder).splitlines()[1:]


def test_a_model_made_elsewhere_needs_a_file(finished, foreign):
    with pytest.raises(UserError, match="--data FILE"):
        ask(finished, foreign)


def test_pairs_longer_than_the_model_are_left_out_and_not_scored(finished, foreign, tmp_path):
    rows = preference_rows(12, seed=5)
    rows[3]["chosen"][-1]["content"] = "word " * 200  # a thousand bytes, and as many tokens
    text = ask(finished, foreign, data=write_jsonl(tmp_path / "mine.jsonl", rows))
    assert "11 pairs of" in text and "1 too long" in text


def test_data_prepared_anew_is_refused(finished, tmp_path):
    from data.manifest import read_manifest, write_manifest

    processed = tmp_path / "processed"
    shutil.copytree(finished.processed.parent, processed)
    write_manifest(processed / "pairs", {**read_manifest(processed / "pairs"), "data_hash": "x"})
    with pytest.raises(UserError, match="prepared anew"):
        evaluate_one(student(finished), None, "test", finished.runs_dir, processed)


def test_the_command_prints_the_same_lines(finished, capsys):
    folder = student(finished)
    assert in_process("eval", "--model", str(folder), *finished.folders) == 0
    assert capsys.readouterr().out.strip() == ask(finished, folder)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "nothing_here"], "neither a folder nor an experiment"),
    (["--model", "demo", "--data", "f.jsonl"], "go with one reward model"),
    (["--model", "demo", "--inspect"], "go with one reward model")])
def test_the_command_refuses_what_it_cannot_score(arguments, message):
    with pytest.raises(UserError, match=message):
        in_process("eval", *arguments)


def test_a_language_model_is_no_reward_model(finished, tmp_path):
    data = write_jsonl(tmp_path / "mine.jsonl", preference_rows(8))
    with pytest.raises(UserError, match="reward model"):
        ask(finished, finished.model, data=data)


def test_margins_do_not_change_what_lies_in_the_run_s_folder(finished):
    folder = student(finished)
    before = sorted(path.name for path in folder.iterdir())
    ask(finished, folder)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert isinstance(pd.read_json(folder / "manifest.json", typ="series"), pd.Series)


def test_training_prompts_in_a_file_are_counted_and_marked(finished, tmp_path):
    from data.pairs.pair_files import read_pairs

    def rows_of(split, take):
        return [{"prompt": json.loads(row["prompt"]), "chosen": row["chosen"],
                 "rejected": row["rejected"]}
                for row in read_pairs(finished.processed, split).to_pylist()[:take]]

    folder = finished.finished("teachers")[0]
    mixed = write_jsonl(tmp_path / "mixed.jsonl", rows_of("train_1", 9) + rows_of("test", 5))
    first, *_ = ask(finished, folder, mixed).splitlines()
    assert first.startswith("! 9 of 14 prompts (9 of 14 pairs) are training prompts of pairs")
    clean = write_jsonl(tmp_path / "clean.jsonl", rows_of("test", 5))
    assert "training prompts" not in ask(finished, folder, clean)
    spaced = [{**row, "prompt": [{**m, "content": f" {m['content']}\n"} for m in row["prompt"]]}
              for row in rows_of("train_2", 4)]
    assert "! 4 of 4 prompts" in ask(finished, folder, write_jsonl(tmp_path / "s.jsonl", spaced))
    assert "cannot be told" in evaluate_one(folder, str(clean), "test", finished.runs_dir, tmp_path)


def test_a_look_and_a_benchmark_mark_training_prompts_as_well(finished, tmp_path, capsys):
    from data.pairs.pair_files import read_pairs

    rows = [{"prompt": json.loads(row["prompt"])[-1]["content"], "chosen": row["chosen"],
             "rejected": row["rejected"], "subset": "mt-bench-easy", "id": i}
            for i, row in enumerate(read_pairs(finished.processed, "train_1").to_pylist()[:20])]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    folder = finished.finished("teachers")[0]
    where = ["--model", str(folder), "--data_dir", str(finished.processed.parent)]
    assert in_process("eval", *where, "--data", str(data), "--look", "--output_dir",
                      str(tmp_path / "look")) == 0
    assert "20 of 20 prompts" in (tmp_path / "look" / "report.md").read_text()
    capsys.readouterr()
    assert in_process("eval", *where, "--data", f"reward_bench={data}", "--output_dir",
                      str(tmp_path / "bench")) == 0
    assert "! 20 of 20 prompts" in capsys.readouterr().out


def test_advice_about_a_file_names_no_flag_that_eval_lacks(finished, tmp_path):
    folder = finished.finished("teachers")[0]
    files = {
        "columns": [{"question": "Q?", "good": "A.", "bad": "B."}] * 4,
        "bad rows": [{"prompt": "Q?", "chosen": "A.", "rejected": None}] * 4,
        "too long": [{"prompt": f"Q{i}?", "chosen": "A" * 9000, "rejected": "B."}
                     for i in range(4)],
        "equal": [{"prompt": f"Q{i}?", "chosen": "A.", "rejected": "A. "} for i in range(4)]}
    for name, rows in files.items():
        with pytest.raises(UserError) as told:
            ask(finished, folder, write_jsonl(tmp_path / f"{name}.jsonl", rows))
        said = re.sub(r"\(data/preprocess.py: [^)]*\)", "", str(told.value))
        assert not re.findall(r"--[a-z_]+", said), said
        assert re.search(r"found columns|4 of 4 rows|4 longer|4 identical", said), said
