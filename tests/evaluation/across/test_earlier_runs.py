"""A table that grows: seeds added to results whose own runs are not here any more."""

import shutil

import pandas as pd
import pytest

from configs.run import STAGES
from src.common.errors import UserError
from src.common.files import read_json
from src.evaluation.across.earlier_runs import earlier_runs
from src.evaluation.experiment import planned_runs
from src.runs.folders import read_run_config
from tests.tiny_experiment import in_process
from tests.tiny_experiment_parts import sweep_of


@pytest.fixture
def grown(finished):
    """The results of seed 0 alone; seed 1's runs alone are still here."""
    tiny = finished.copy("grown")
    shutil.rmtree(tiny.results, ignore_errors=True)
    assert in_process("eval", *tiny.evaluate(), "--seeds", "0") == 0
    for folder in [folder for stage in STAGES for folder in tiny.finished(stage)]:
        if read_run_config(folder).seed == 0:
            shutil.rmtree(folder)
    yield tiny
    shutil.rmtree(tiny.config.parent)


def tables(folder):
    return {path.name: pd.read_csv(path) for path in folder.glob("*.csv")}


def test_seeds_added_one_at_a_time_give_the_tables_of_all_at_once(finished, grown, tmp_path):
    assert in_process("eval", *finished.evaluate(), "--results_dir", str(tmp_path)) == 0
    assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    whole, added = tables(tmp_path / "tiny"), tables(grown.results)
    assert whole.keys() == added.keys() >= {"pgr.csv", "curves.csv", "runs.csv"}
    for table in (whole, added):
        del table["runs.csv"]["seconds"]
    for name, table in whole.items():  # margins have the 6 digits of scores.csv
        pd.testing.assert_frame_equal(added[name], table, rtol=1e-5)
    assert (grown.results / "scores.csv").read_bytes() == (
        tmp_path / "tiny" / "scores.csv").read_bytes()


def test_what_was_scored_earlier_is_said_and_nothing_is_done_twice(grown, capsys):
    before = pd.read_csv(grown.results / "runs.csv").set_index("identity")
    assert len(before) == 8 and (before.seconds > 0).all()
    for _ in range(2):
        assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    assert "nothing to do" in capsys.readouterr().out
    meta = read_json(grown.results / "meta.json")
    assert meta["seeds"] == [0, 1]
    assert meta["notes"] == ["8 of 16 runs were scored by an earlier evaluation, at commit "
                             f"{before.commit.iloc[0]}."]
    assert meta["notes"][0] in (grown.results / "report.md").read_text()
    after = pd.read_csv(grown.results / "runs.csv").set_index("identity")
    pd.testing.assert_frame_equal(after.loc[before.index], before)


def test_a_run_of_another_identity_is_not_taken_for_what_is_asked(grown, capsys):
    path = grown.results / "runs.csv"
    table = pd.read_csv(path)
    table.loc[table.run == "teacher/llama-L1/0", "identity"] = "0" * 16
    table.to_csv(path, index=False)
    assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    assert "1 runs are not finished and in no table: llama-L1-s0" in capsys.readouterr().out
    assert "teacher/llama-L1/0" not in pd.read_csv(grown.results / "scores.csv")


def test_without_the_option_results_are_of_the_runs_here_alone(grown):
    assert in_process("eval", *grown.evaluate(), "--seeds", "1") == 0
    assert set(pd.read_csv(grown.results / "accuracy.csv").seed.dropna()) == {1}


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: path.unlink(), "--add .*runs.csv: no such file: expected that of an earlier"),
    (lambda path: path.write_text("run,identity\n"), "runs.csv: not readable.*leave --add out"),
    (lambda path: path.write_text("run,identity,seconds,commit\nteacher/x/7,ab,1.0,c\n"),
     "runs.csv: teacher/x/7 is no column of scores.csv; leave --add out"),
])
def test_a_runs_csv_that_does_not_fit_is_refused(grown, change, message):
    change(grown.results / "runs.csv")
    with pytest.raises(UserError, match=message):
        earlier_runs(planned_runs(sweep_of(grown)), [], grown.results)


@pytest.mark.parametrize(("options", "message"), [
    (["--transfer", "sciq"], "--add: goes with accuracy and PGR on test pairs, not with "
                             "--transfer"),
    (["--policies"], "not with --policies")])
def test_a_table_alone_can_grow(finished, options, message):
    with pytest.raises(UserError, match=message):
        in_process("eval", *finished.evaluate(), "--add", *options)


def test_one_model_has_no_table_to_add_to(finished):
    with pytest.raises(UserError, match="--add goes with an experiment: .* is none"):
        in_process("eval", "--model", str(finished.finished("teachers")[0]), "--add")
