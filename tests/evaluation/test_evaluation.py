"""Stage 4 on a whole tiny experiment: its tables against an independent count from the scores."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from configs.run import STAGES, RunConfig
from configs.schema import from_dict, read_yaml
from src.common.errors import UserError
from src.common.files import read_json
from src.common.owned import MARK
from src.evaluation import experiment
from src.reports.figures.style import provenance
from src.reports.results import read_results
from src.runs.folders import find_finished, read_run_config
from tests.tiny_experiment import in_process
from tests.tiny_experiment_parts import sweep_of


@pytest.fixture(scope="module")
def evaluated(finished):
    """The finished experiment, after eval.py."""
    assert in_process("eval", *finished.evaluate()) == 0
    return finished


def csv(tiny, name, split=""):
    return pd.read_csv(tiny.results / split / f"{name}.csv", keep_default_na=False,
                       na_values={"layers": [""], "seed": [""], "log_loss": [""], "brier": [""],
                                  "pgr": [""], "auroc": [""]})


def score_files(tiny, split="test"):
    """(stage, run) -> the margins that its own scores file gives, by pair id."""
    for stage in STAGES:
        for folder in tiny.finished(stage):
            run = read_run_config(folder)
            table = pd.read_parquet(folder / "scores" / f"{split}.parquet").set_index("pair_id")
            yield run, table.reward_chosen - table.reward_rejected


def test_a_run_s_folder_holds_a_whole_checkpoint_and_its_facts(finished):
    for stage in STAGES:
        for folder in finished.finished(stage):
            names = {path.name for path in folder.iterdir()}
            assert {"config.yaml", "manifest.json", "log.jsonl", "model.safetensors", "README.md",
                    "config.json", "tokenizer.json", "tokenizer_config.json", "DONE"} <= names
            assert not names & {"resume", "training_args.bin"}
            run = read_run_config(folder)
            assert run.folder_name == folder.name and run.stage == stage
            facts = read_json(folder / "manifest.json")
            assert facts["identity"] == run.identity and facts["pairs"] == 32
            log = [json.loads(line) for line in (folder / "log.jsonl").open()]
            assert [entry["step"] for entry in log if "loss" in entry] == [1, 2] == list(
                range(1, facts["steps"] + 1))


def test_a_model_card_says_what_the_checkpoint_is(finished):
    for stage, labels in (("teachers", "human"), ("students", "weak labels of llama-L1")):
        folder = finished.finished(stage)[0]
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: transformers\n")
        for row in (f"| role | {stage[:-1]} |", f"| labels | {labels} |", "| experiment | tiny |"):
            assert row in card
        assert read_json(folder / "DONE")["identity"] in card


def test_students_were_trained_on_weak_labels_that_their_teachers_wrote(finished):
    for folder in finished.finished("teachers"):
        labels = pd.read_parquet(folder / "weak_labels" / "train_2.parquet")
        assert labels.weak_label.between(0, 1).all() and len(labels) == 32
        assert list(labels) == ["pair_id", "weak_label"]


def test_every_table_and_the_report_are_written(evaluated):
    names = {path.name for path in evaluated.results.iterdir()}
    assert {"scores.csv", "accuracy.csv", "pgr.csv", "companions.csv", "calibration.csv",
            "curves.csv", "meta.json", "report.html", "report.md", "figures"} <= names
    assert [name for name in names if name.startswith(".")] == [MARK]


def test_accuracy_is_that_of_each_run_s_own_scores(evaluated):
    table = csv(evaluated, "accuracy").set_index(["role", "name", "teacher", "seed"])
    runs = list(score_files(evaluated))
    assert len(table) == len(runs) + 2 and len(runs) == 16
    for run, margins in runs:
        row = table.loc[run.kind, run.name, run.teacher, run.seed]
        assert row.accuracy == pytest.approx(((margins > 0) + 0.5 * (margins == 0)).mean())
        assert row.n == len(margins) == 40 and row.low <= row.accuracy <= row.high


def test_pgr_rows_are_means_over_seeds_and_the_aggregate_a_ratio_of_sums(evaluated):
    accuracy, pgr = csv(evaluated, "accuracy"), csv(evaluated, "pgr")
    cells = pgr[pgr.teacher != "all"]
    assert len(cells) == 4 and len(pgr) == 5

    def mean(**where):
        rows = accuracy.query(" and ".join(f"{k} == {v!r}" for k, v in where.items()))
        assert sorted(rows.seed) == [0, 1]
        return rows.accuracy.mean()

    for row in cells.itertuples():
        weak = mean(role="teacher", name=row.teacher)
        strong = mean(role="student", name=row.student, teacher=row.teacher, method=row.method)
        ceiling = mean(role="ceiling", name=row.student)
        assert (row.weak, row.student_accuracy, row.ceiling) == pytest.approx(
            (weak, strong, ceiling))
        assert (row.gain, row.gap) == pytest.approx((strong - weak, ceiling - weak))
        assert (row.status == "ok") == (not np.isnan(row.pgr))
        if row.status == "ok":
            assert row.pgr == pytest.approx(row.gain / row.gap)
    total = pgr[pgr.teacher == "all"].iloc[0]
    assert total.gap == pytest.approx(cells.gap.mean())
    assert total.gain == pytest.approx(cells.gain.mean())


def test_ceilings_have_a_table_just_where_they_do_not_rise_and_an_old_one_goes(evaluated):
    (evaluated.results / "ceilings.csv").write_text("of an earlier evaluation")
    (evaluated.results / "report.html").unlink()
    assert in_process("eval", *evaluated.evaluate()) == 0
    ceilings = csv(evaluated, "accuracy").query("role == 'ceiling'")
    means = ceilings.groupby("layers").accuracy.mean().round(12)
    falls = means.max() > means.iloc[-1]
    assert (evaluated.results / "ceilings.csv").exists() == falls
    assert ("best_pgr" in csv(evaluated, "pgr")) == falls
    if falls:
        table = csv(evaluated, "ceilings").set_index("layers")
        assert table.accuracy.to_dict() == pytest.approx(means.to_dict())
        assert table.keep.iloc[-1] == "all"


def test_scores_csv_has_every_run_and_pair(evaluated):
    table = csv(evaluated, "scores").set_index("pair_id")
    assert table.shape == (40, 1 + 16 + 2)
    for run, margins in score_files(evaluated):
        method = [run.method.name] if run.teacher else []
        column = "/".join([run.kind, run.name, *filter(None, [run.teacher]), *method,
                           str(run.seed)])
        np.testing.assert_allclose(table[column].loc[margins.index], margins, rtol=1e-5, atol=1e-9)


def test_a_second_evaluation_does_nothing_and_says_so(evaluated, capsys):
    before = {path: path.stat().st_mtime_ns for path in evaluated.results.rglob("*")}
    assert in_process("eval", *evaluated.evaluate()) == 0
    assert "holds the results of these very weights, pairs and settings" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in evaluated.results.rglob("*")} == before


def test_meta_says_what_was_scored(evaluated):
    meta = read_json(evaluated.results / "meta.json")
    assert (meta["split"], meta["n_pairs"], meta["seeds"], meta["contaminated"]) == (
        "test", 40, [0, 1], False)
    assert meta["notes"] == []


def test_scores_on_the_students_own_pairs_are_marked_in_every_output(evaluated, capsys):
    tiny = evaluated.copy("contaminated")
    shutil.rmtree(tiny.results)
    assert in_process("eval", *tiny.evaluate(), "--split", "train_2") == 0
    folder = tiny.results / "train_2"
    mark = "scored on train_2"
    assert read_json(folder / "meta.json")["contaminated"] is True
    assert all(mark in (folder / name).read_text() for name in ("report.html", "report.md"))
    assert set(csv(tiny, "accuracy", "train_2").split) == {"train_2"}
    assert not (tiny.results / "accuracy.csv").exists()


def test_an_unfinished_run_is_a_missing_row_and_is_named(evaluated, capsys):
    tiny = evaluated.copy("missing")
    gone = tiny.finished("ceilings")[0]
    (gone / "DONE").unlink()
    assert in_process("eval", *tiny.evaluate()) == 0
    name = gone.name.rsplit("-", 1)[0]
    assert f"1 runs are not finished and in no table: {name}" in capsys.readouterr().out
    accuracy, pgr = csv(tiny, "accuracy"), csv(tiny, "pgr")
    assert len(accuracy) == 17
    lost = from_dict(RunConfig, read_yaml(gone / "config.yaml"), "")
    rows = pgr[(pgr.student == lost.name) & (pgr.teacher != "all")]
    assert set(rows.seeds.astype(str)) == {str(1 - lost.seed)}
    assert name in read_json(tiny.results / "meta.json")["notes"][0]


def test_weights_that_were_rounded_are_named_in_report_and_figures(finished, monkeypatch):
    tiny = finished.copy("rounded")
    shutil.rmtree(tiny.results, ignore_errors=True)  # where another test has asked before
    monkeypatch.setattr("src.evaluation.experiment.dequantised_from", lambda model: "a.Q4_1.gguf")
    assert in_process("eval", *tiny.evaluate()) == 0
    note = "The weights of llama are dequantised from a.Q4_1.gguf: rounded, not the original ones."
    assert note in (tiny.results / "report.md").read_text()
    assert provenance(read_results(tiny.results)).endswith("weights of llama dequantised")


def test_nothing_finished_names_the_three_scripts(finished, tmp_path):
    with pytest.raises(UserError, match="train_teacher_model.sh tiny.*weak_to_strong.sh tiny"):
        experiment.finished_runs(sweep_of(finished), tmp_path)


def test_results_are_current_only_for_the_same_runs_names_and_weights(finished, tmp_path):
    sweep = sweep_of(finished)
    found, missing = experiment.finished_runs(sweep, finished.runs_dir)
    inputs = experiment.inputs_hash(found, missing, sweep, "test")
    assert experiment.inputs_hash(found, missing, sweep, "test") == inputs
    renamed = finished.copy("renamed", methods=[{"name": "other", "loss": "soft_bt"}])
    other = sweep_of(renamed)
    again, _ = experiment.finished_runs(other, finished.runs_dir)
    assert len(again) == len(found)
    changed = [experiment.inputs_hash(again, missing, other, "test"),
               experiment.inputs_hash(found[1:], missing, sweep, "test"),
               experiment.inputs_hash(found, ["x"], sweep, "test"),
               experiment.inputs_hash(found, missing, sweep, "train_2")]
    assert len({inputs, *changed}) == 5


def test_two_trainings_of_an_experiment_give_the_same_weights(finished, tmp_path):
    """The same run, alone and in a folder elsewhere: bit-identical."""
    from src.training.finish import finish

    sweep = sweep_of(finished)
    run = sweep.stage("ceilings")[0]
    finish(run, sweep, tmp_path)
    new = find_finished(tmp_path, "ceilings", run.identity)
    old = find_finished(finished.runs_dir, "ceilings", run.identity)
    assert (new / "model.safetensors").read_bytes() == (old / "model.safetensors").read_bytes()


def test_early_stopping_trains_a_student_on_weak_val_labels(finished):
    from src.train import train_stage

    tiny = finished.copy("stopping", train={"early_stopping_evals": 1, "eval_frac": 0.5})
    shutil.rmtree(tiny.runs_dir / "tiny" / "students")
    assert train_stage(sweep_of(tiny, (0,)), "students", tiny.runs_dir, 0, 4) == []
    folder, = tiny.finished("students")
    log = [json.loads(line) for line in (folder / "log.jsonl").open()]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [1, 2]
    teacher = from_dict(RunConfig, read_yaml(folder / "config.yaml"), "").labels
    assert (find_finished(tiny.runs_dir, "teachers", teacher)
            / "weak_labels" / "val.parquet").is_file()
