"""From the scores that an evaluation left to a ranking of methods; no model in between."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from configs.schema import EvalConfig
from src.analysis import ANALYSES
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.evaluation.across.committed_scores import committed_scores
from src.evaluation.across.methods import rank_methods
from src.measures import tables
from tests.scored_experiment import write_scores
from tests.tiny_experiment import in_process


def test_scores_are_read_back_as_they_were_written(tmp_path):
    runs, pairs = write_scores(tmp_path / "demo")
    again, pairs_again = committed_scores(tmp_path / "demo")
    assert [one.key for one in again] == [one.key for one in runs]
    config = EvalConfig(bootstrap_samples=200)
    pd.testing.assert_frame_equal(tables.pgr_table(again[1:], pairs_again, config),
                                  tables.pgr_table(runs[1:], pairs, config), check_exact=True)


def test_an_experiment_without_scores_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="python eval.py --model demo"):
        committed_scores(tmp_path / "demo")
    write_scores(tmp_path / "other")
    path = tmp_path / "other" / "scores.csv"
    path.write_text(path.read_text().replace("teacher/demo-L2/0", "teacher/demo-L2", 1))
    with pytest.raises(UserError, match="column teacher/demo-L2: expected role/name/seed"):
        committed_scores(tmp_path / "other")


def test_a_ranking_is_written_over_all_experiments(tmp_path):
    for name in ("first", "second"):
        write_scores(tmp_path / name)
    said = rank_methods(["first", "second"], tmp_path, tmp_path / "methods")
    table = pd.read_csv(tmp_path / "methods" / "methods.csv")
    assert table.experiment.tolist() == ["first second"] and table.verdict.tolist() == ["better"]
    assert "up is better than soft" in said and "18" in said
    assert table.cost.isna().all()
    assert (tmp_path / "methods" / "figures" / "methods.png").stat().st_size > 10_000


def test_an_answer_of_one_s_own_leaves_the_committed_one_alone(tmp_path):
    for name in ("first", "second"):
        write_scores(tmp_path / name)
    ask = ("src.analysis", "--what", "methods", "--results_dir", str(tmp_path), "--experiment")
    assert in_process(*ask, "first", "second") == 0
    committed = (tmp_path / "methods" / "methods.csv").read_bytes()
    for _ in range(2):  # its own is replaced
        assert in_process(*ask, "first", "--output_dir", str(tmp_path / "mine")) == 0
    assert (tmp_path / "methods" / "methods.csv").read_bytes() == committed
    assert pd.read_csv(tmp_path / "mine" / "methods.csv").experiment.tolist() == ["first"]
    with pytest.raises(UserError, match="first: holds .* which is not ours"):
        in_process(*ask, "first", "--output_dir", str(tmp_path / "first"))
    with pytest.raises(UserError, match="python eval.py --model third"):
        in_process(*ask, "third", "--output_dir", str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists() and (tmp_path / "mine" / "methods.csv").is_file()
    with pytest.raises(UserError, match="--what pooled: --output_dir is for methods,"):
        in_process("src.analysis", "--what", "pooled", "--experiment", "first", "--output_dir",
                   str(tmp_path / "mine"))


def test_the_same_pairs_under_two_names_are_not_twice_as_many(tmp_path):
    interval = ["difference", "difference_low", "difference_high"]
    found = []
    for name in ("first", "again"):
        write_scores(tmp_path / name)
    for names in (["first"], ["first", "again"]):
        rank_methods(names, tmp_path, tmp_path / "methods")
        found.append(pd.read_csv(tmp_path / "methods" / "methods.csv")[interval])
    pd.testing.assert_frame_equal(*found)


def test_a_ranking_takes_costs_from_the_experiments(tmp_path):
    for name, cost in (("first", 2.0), ("second", 3.0)):
        write_scores(tmp_path / name)
        rank_methods([name], tmp_path, tmp_path / "methods")
        table = pd.read_csv(tmp_path / "methods" / "methods.csv").assign(cost=cost)
        table.to_csv(tmp_path / name / "methods.csv", index=False)
    rank_methods(["first", "second"], tmp_path, tmp_path / "methods")
    assert pd.read_csv(tmp_path / "methods" / "methods.csv").cost.tolist() == [2.5]


def test_one_method_alone_is_nothing_to_compare(tmp_path):
    write_scores(tmp_path / "demo", methods=("soft",))
    with pytest.raises(UserError, match="no method beside soft"):
        rank_methods(["demo"], tmp_path, tmp_path / "methods")


@pytest.mark.parametrize(("names", "message"), [
    (["demo", "configs/experiments/demo.yaml"], "--experiment demo demo: name each experiment on"),
    (["results/demo"], "--experiment 'results/demo' becomes part of a folder's name"),
    ([""], "--experiment '' becomes part of a folder's name")])
def test_experiments_are_named_once_by_name_or_file(names, message):
    with pytest.raises(UserError, match=message):
        in_process("src.analysis", "--what", "methods", "--experiment", *names)


def test_the_command_tells_a_mistake_in_one_line(tmp_path):
    command = [sys.executable, "-m", "src.analysis", "--what", "methods", "--experiment", "nothing",
               "--results_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nothing" in done.stderr


def test_the_page_of_results_has_every_question():
    page = (REPO_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = page.split("| question |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == set(ANALYSES)
