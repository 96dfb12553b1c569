"""Two models on one benchmark: exact tests, corrected for the number of subsets."""

from math import comb

import pandas as pd
import pytest

from src.common.errors import UserError
from src.measures.benchmarks.against import differences
from src.measures.multiple_tests import holm
from src.reports.figures.benchmark import differences_figure
from tests.evaluation.test_benchmark import ROWS, run
from tests.measures.test_benchmark_scores import table
from tests.tiny_data import write_jsonl
from tests.tiny_reward_model import make_reward_model


def rewards(**right: list[int]) -> pd.DataFrame:
    """A row for each entry of a subset: 1 right, 0 wrong, 2 a tie, -1 no reward."""
    made = {1: ([1.0], [0.0]), 0: ([0.0], [1.0]), 2: ([1.0], [1.0]), -1: ([float("nan")], [1.0])}
    return table(*((name.replace("_", "-"), *made[each]) for name, own in right.items()
                   for each in own))


def test_each_subset_has_mcnemar_s_exact_test_and_holm_s_correction():
    mine = rewards(mt_bench_easy=[1] * 9 + [0, 1], donotanswer=[1, 0, 1, 0], hep_go=[1, 1])
    its = rewards(mt_bench_easy=[0] * 9 + [1, 1], donotanswer=[0, 1, 1, 0], hep_go=[1, 1])
    easy, safe, code = differences("reward_bench", mine, its)
    assert (easy.n, easy.score, easy.other) == (11, pytest.approx(10 / 11), pytest.approx(2 / 11))
    p = 2 * (comb(10, 0) + comb(10, 1)) / 2**10  # of ten rows that one gets right, nine are mine
    assert easy.p == pytest.approx(p) and easy.p_holm == pytest.approx(3 * p)
    assert easy.difference == pytest.approx(8 / 11)
    assert easy.low <= easy.difference <= easy.high
    assert (safe.p, safe.p_holm, code.p, code.difference) == (1, 1, 1, 0)


def test_holm_s_correction_is_that_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_tie_is_wrong_and_a_row_without_a_reward_is_in_neither_score():
    mine, its = rewards(hep_go=[2, 1, -1, 1]), rewards(hep_go=[1, 1, 1, -1])
    found, = differences("reward_bench", mine, its)
    assert (found.n, found.score, found.other) == (2, 0.5, 1.0)


def test_models_that_have_scored_other_rows_are_not_compared():
    with pytest.raises(UserError, match="other rows"):
        differences("reward_bench", rewards(hep_go=[1, 1]), rewards(hep_go=[1]))
    with pytest.raises(UserError, match="other rows"):
        differences("reward_bench", rewards(hep_go=[1]), rewards(hep_js=[1]))
    with pytest.raises(UserError, match="compared on pairs"):
        differences("rm_bench", rewards(chat=[1]), rewards(chat=[1]))


def test_the_figure_has_a_line_for_each_subset():
    mine, its = rewards(hep_go=[1, 1, 0], hep_js=[1, 0]), rewards(hep_go=[0, 1, 0], hep_js=[1, 0])
    figure, title = differences_figure(differences("reward_bench", mine, its), "a", "b",
                                       "reward_bench")
    assert [each.get_text() for each in figure.axes[0].get_yticklabels()] == ["hep-go", "hep-js"]
    assert title == "a against b on reward_bench"


def test_eval_compares_two_models_and_two_score_files(tmp_path, capsys):
    first, second = (make_reward_model(tmp_path / name, name=name, seed=seed)
                     for seed, name in enumerate(("one", "two")))
    data = f"reward_bench={write_jsonl(tmp_path / 'rows.jsonl', ROWS)}"
    run(tmp_path, "--model", first, "--data", data, "--against", second, "--results_dir",
        tmp_path / "results")
    found = pd.read_csv(tmp_path / "out" / f"against_{second.name}.csv")
    made = [pd.read_parquet(place) for place in (
        tmp_path / "out" / "rewards.parquet",
        tmp_path / "results" / "benchmarks" / second.name / "reward_bench" / "rewards.parquet")]
    assert found.subset.tolist() == ["mt-bench-easy", "mt-bench-med", "donotanswer"]
    for side, name in zip(made, ("score", "other"), strict=True):
        easy = side[side.subset == "mt-bench-easy"].reward.to_numpy().reshape(-1, 2)
        assert found[name][0] == (easy[:, 0] > easy[:, 1]).mean()
    assert "of 3 subsets differ" in capsys.readouterr().out
    for side, name in zip(made, ("a", "b"), strict=True):
        side.to_csv(tmp_path / f"{name}.csv")
    run(tmp_path, "--model", "a", "--data", "reward_bench", "--scores", tmp_path / "a.csv",
        "--against", tmp_path / "b.csv")
    again = pd.read_csv(tmp_path / "out" / "against_b.csv")
    assert again.score.tolist() == found.score.tolist()


def test_against_without_a_benchmark_is_refused(tmp_path):
    model = make_reward_model(tmp_path / "rm")
    with pytest.raises(UserError, match="goes with --data and the name of a benchmark"):
        run(tmp_path, "--model", model, "--against", model)


def test_two_models_of_one_name_are_refused(tmp_path):
    model = make_reward_model(tmp_path / "rm")
    data = f"reward_bench={write_jsonl(tmp_path / 'rows.jsonl', ROWS)}"
    with pytest.raises(UserError, match="results are kept by name"):
        run(tmp_path, "--model", model, "--data", data, "--against", model)
