"""A table that grows: seeds added to results whose own runs are not here any more."""

import re
import shutil

import pandas as pd
import pytest

from configs.run import STAGES
from src.common.errors import UserError
from src.common.files import read_json
from src.evaluation.across.earlier_runs import earlier_runs, seeds_of
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
    for name, table in whole.items():  # margins have the 6 digits of scores.csv
        pd.testing.assert_frame_equal(added[name], table, rtol=1e-5)
    assert (grown.results / "scores.csv").read_bytes() == (
        tmp_path / "tiny" / "scores.csv").read_bytes()


def test_what_was_scored_earlier_is_said_and_nothing_is_done_twice(grown, capsys):
    path = grown.results / "runs.csv"
    before = pd.read_csv(path, dtype=str).assign(commit="abc1234")
    before.to_csv(path, index=False)
    for _ in range(2):
        assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    assert "nothing to do" in capsys.readouterr().out
    meta = read_json(grown.results / "meta.json")
    assert meta["seeds"] == [0, 1]
    assert meta["notes"] == ["8 of 16 runs stand as an earlier evaluation had them, at commit "
                             "abc1234."]
    assert meta["notes"][0] in (grown.results / "report.md").read_text()
    after = pd.read_csv(path, dtype=str).set_index("run")
    pd.testing.assert_frame_equal(after.loc[before.run], before.set_index("run"))
    assert sum(after.commit != "abc1234") == 8


def test_a_run_that_is_in_neither_place_is_named(grown, capsys):
    gone = next(folder for folder in grown.finished("ceilings"))
    shutil.rmtree(gone)
    assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    assert (f"1 runs are not finished and in no table: {gone.name.rsplit('-', 1)[0]}"
            in capsys.readouterr().out)


def test_seeds_of_a_table_are_those_of_its_runs(grown):
    """A seed that was asked for once by mistake is not asked for again."""
    assert in_process("eval", *grown.evaluate(), "--seeds", "1", "33", "--add") == 0
    assert read_json(grown.results / "meta.json")["seeds"] == [0, 1, 33]
    assert seeds_of(grown.results) == {0, 1}


def test_a_table_loses_no_run_that_the_experiment_no_longer_asks_for(grown):
    before = (grown.results / "scores.csv").read_bytes()
    grown.write_config(grown.settings(), methods=[{"name": "other", "loss": "soft_bt"}])
    with pytest.raises(UserError, match="runs.csv: student/.*/soft/0, .* is no run that the exp"):
        in_process("eval", *grown.evaluate(), "--seeds", "1", "--add")
    assert (grown.results / "scores.csv").read_bytes() == before


def test_what_earlier_runs_did_on_other_data_is_kept_while_they_stand(grown):
    (grown.results / "transfer.csv").write_text("seeds of long ago")
    assert in_process("eval", *grown.evaluate(), "--seeds", "1", "--add") == 0
    assert (grown.results / "transfer.csv").exists()
    assert in_process("eval", *grown.evaluate(), "--seeds", "1") == 0
    assert not (grown.results / "transfer.csv").exists()


def test_without_the_option_results_are_of_the_runs_here_alone(grown):
    assert in_process("eval", *grown.evaluate(), "--seeds", "1") == 0
    assert set(pd.read_csv(grown.results / "accuracy.csv").seed.dropna()) == {1}


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: path.unlink(), "--add .*runs.csv: no such file: expected that of an earlier"),
    (lambda path: path.write_text("run,identity\n"), "runs.csv: not readable.*leave --add out"),
    (lambda path: path.write_text("run,identity,commit\nteacher/x/7,ab,c\n"),
     "runs.csv: teacher/x/7 is no column of scores.csv; leave --add out"),
    (lambda path: path.write_text(path.read_text() * 2), "run '.*' is there twice"),
    (lambda path: path.write_text("run,identity,commit\nteacher/llama-L1/0,ab,\n"),
     "run 'teacher/llama-L1/0' is there twice or has an empty field"),
    (lambda path: path.write_text(re.sub(r"(llama-L1/0),\w+", r"\1,00000000ff", path.read_text())),
     "teacher/llama-L1/0, 00000000, is no run that the experiment asks for: its recipe, data or"),
])
def test_a_runs_csv_that_does_not_fit_is_refused(grown, change, message):
    change(grown.results / "runs.csv")
    with pytest.raises(UserError, match=message):
        earlier_runs(planned_runs(sweep_of(grown)), [], grown.results)


@pytest.mark.parametrize(("options", "message"), [
    (["--transfer", "sciq"], "can grow, not --transfer"),
    (["--policies"], "can grow, not --policies")])
def test_a_table_alone_can_grow(finished, options, message):
    with pytest.raises(UserError, match=message):
        in_process("eval", *finished.evaluate(), "--add", *options)


def test_one_model_has_no_table_to_add_to(finished):
    with pytest.raises(UserError, match="--add goes with an experiment: .* is none"):
        in_process("eval", "--model", str(finished.finished("teachers")[0]), "--add")
