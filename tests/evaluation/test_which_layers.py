"""Rules that choose layers: compared on the same pairs, and called best only where that is told."""

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.evaluation import overview
from src.evaluation.layer_rules import COLUMNS, rules_table
from src.measures.run_scores import EvalPairs, RunScores
from src.reports.figures.which_layers import accuracy_by_rule
from src.reports.which_layers import BEHIND, BEST, HIGHEST, LEVEL, MEAN, statements
from src.train import train_stage
from tests.tiny_experiment import in_process
from tests.tiny_experiment_parts import sweep_of

N = 2000
IDS = np.array([f"{i:016x}" for i in range(N)])
PAIRS = EvalPairs("rules", "people", "test", IDS, np.arange(N), np.ones(N), np.ones(N))


def run(name, right, seed=0, role="teacher"):
    """A run that is right about the pairs where `right` (n,) is true; in another order."""
    order = np.random.default_rng(seed).permutation(N)
    return RunScores(role, name, None, "", "", seed, IDS[order], np.where(right, 1.0, -1.0)[order])


def first(share):
    return np.arange(N) < share * N


def table_of(runs):
    return rules_table(runs, PAIRS, EvalConfig(bootstrap_samples=4000))


def by_rung(table):
    return table.set_index(["layers", "keep"])


def test_accuracies_and_paired_differences_are_those_of_the_normal_approximation():
    rows = by_rung(table_of([run("demo-F4", first(0.8)), run("demo-L4", first(0.74)),
                             run("demo-F4", first(0.9), role="ceiling")]))
    assert rows.accuracy.tolist() == pytest.approx([0.74, 0.8])
    best, behind = rows.loc[("4", "first")], rows.loc[("4", "evenly_spaced")]
    z = norm.ppf(0.975)
    for row, share in ((best, 0.8), (behind, 0.74)):
        half = z * np.sqrt(share * (1 - share) / N)
        assert (row.low, row.high) == pytest.approx((share - half, share + half), abs=0.002)
    half = z * np.sqrt(0.06 * 0.94 / N)  # of pairs, 6% are right under one rule alone
    assert behind.behind == pytest.approx(-0.06)
    assert (behind.behind_low, behind.behind_high) == pytest.approx((-0.06 - half, -0.06 + half),
                                                                    abs=0.002)
    assert best.status == BEST and behind.status == BEHIND and np.isnan(best.behind)


def test_a_rule_is_best_only_where_every_other_one_is_told_apart():
    draw = np.random.default_rng(0)
    noisy = draw.random(N) < 0.795  # a quarter of its answers differ from the highest's
    rows = by_rung(table_of([run("demo-F8", first(0.8)), run("demo-I8", noisy),
                             run("demo-B8", first(0.5))]))
    assert rows.status.to_dict() == {("8", "first"): HIGHEST, ("8", "block_influence"): LEVEL,
                                     ("8", "first_and_last"): BEHIND}


def test_seeds_that_disagree_widen_what_is_said():
    def compared(shifts):
        return by_rung(table_of([one for seed, shift in enumerate(shifts) for one in (
            run("demo-F4", first(0.8 + shift), seed), run("demo-L4", first(0.77), seed))]))

    calm, wild = compared([0, 0, 0]), compared([0.06, -0.06, 0])
    assert calm.accuracy.tolist() == pytest.approx(wild.accuracy.tolist(), abs=1e-3)
    assert calm.seeds.tolist() == ["0 1 2"] * 2
    assert calm.loc[("4", "first")].status == BEST
    assert wild.loc[("4", "first")].status == HIGHEST


def test_the_mean_over_depths_is_of_rules_that_all_depths_have():
    runs = [run("demo-F4", first(0.7)), run("demo-L4", first(0.6)), run("demo-F8", first(0.9)),
            run("demo-L8", first(0.7)), run("demo-B8", first(0.65)), run("other-F4", first(0.9)),
            run("other-L4", first(0.8))]
    table = table_of(runs)
    assert list(table.columns) == COLUMNS
    rows = by_rung(table[table.model == "demo"])
    assert rows.loc[MEAN].accuracy.to_dict() == pytest.approx({"evenly_spaced": 0.65, "first": 0.8})
    assert list(rows.loc["8"].index) == [
        "evenly_spaced", "first", "first_and_last"]
    assert set(table[table.model == "other"].layers) == {"4"}


def test_what_cannot_be_compared_is_said():
    with pytest.raises(UserError, match="rules: no two teachers of one model and depth"):
        table_of([run("demo-F4", first(0.7)), run("demo-L8", first(0.7))])
    with pytest.raises(UserError, match="demo-L4, demo-F4|demo-F4, demo-L4.*no seed in common"):
        table_of([run("demo-F4", first(0.7), 0), run("demo-L4", first(0.7), 1)])


def test_sentences_name_a_best_rule_only_where_the_table_does():
    summary, told, level, _ = statements(table_of([
        run("demo-F4", first(0.8)), run("demo-L4", first(0.7)), run("demo-F8", first(0.8)),
        run("demo-L8", first(0.8))]))
    assert summary == ("Of 2 comparisons, by intervals, evenly_spaced is best in 0 and behind in "
                       "1 and first is best in 1 and behind in 0.")
    assert told.startswith("demo on people, 4 layers: first (0.800 [") and "is best" in told
    assert "not told apart from" in level and "best" not in level


def test_experiments_that_train_one_model_otherwise_are_kept_apart():
    """Else a depth has two rows of a rule, and a sentence that tells it is behind itself."""
    one, other = (table_of([run("demo-F4", first(high)), run("demo-L4", first(low))])
                  for high, low in ((0.8, 0.7), (0.9, 0.6)))
    both = pd.concat([one, other.assign(experiment="in_full")], ignore_index=True)
    summary, *told = statements(both)
    assert summary.startswith("Of 2 comparisons, by intervals, evenly_spaced is best in 0 and "
                              "behind in 2 and first is best in 2")
    assert [line.partition(": ")[0] for line in told] == [
        "demo on people (rules), 4 layers", "demo on people (in_full), 4 layers"]
    assert "behind it are evenly_spaced by 10.0 [" in told[0]
    assert "behind it are evenly_spaced by 30.0 [" in told[1]
    figure, _, _ = accuracy_by_rule(both, 0.95)
    assert [axes.get_title() for axes in figure.axes] == ["rules", "in_full"]


def test_teachers_alone_are_trained_evaluated_and_compared_by_rule(finished, capsys):
    tiny = finished.copy("rules", students=[], seeds=[0])
    ladder = tiny.settings()["teachers"][0]
    tiny.write_config(tiny.settings(), teachers=[{**ladder, "keep": keep}
                                                 for keep in ("first", "first_and_last")])
    ask = ["src.analysis", "--what", "which_layers", "--experiment", "tiny", "--results_dir",
           str(tiny.results.parent)]
    shutil.rmtree(tiny.results, ignore_errors=True)  # other tests may have evaluated the original
    with pytest.raises(UserError, match="eval.py --model tiny"):
        in_process(*ask)
    plan = sweep_of(tiny)
    assert not train_stage(plan, "teachers", tiny.runs_dir, 0, 1)
    assert "tiny: about" in overview.table(overview.Whole(plan, tiny.runs_dir, 1))
    for stage in ("ceilings", "students"):
        assert in_process("src.train", *tiny.train(stage)) == 0
        assert f"tiny has no run of stage {stage}: nothing to do" in capsys.readouterr().out
    assert in_process("eval", *tiny.evaluate()) == 0
    assert in_process(*ask) == 0
    folder = tiny.results.parent / "which_layers"
    table = pd.read_csv(folder / "which_layers.csv")
    scored = pd.read_csv(tiny.results / "accuracy.csv").set_index("name").accuracy
    names = {"first": "llama-F2", "first_and_last": "llama-B2"}
    for row in table[table.layers == "2"].itertuples():
        assert row.accuracy == pytest.approx(scored[names[row.keep]])
    assert (folder / "figures" / "which_layers.png").stat().st_size > 10_000
    report = (folder / "report.md").read_text()
    assert capsys.readouterr().out.count("llama on pairs, 2 layers: ") == 1
    assert "llama on pairs, 2 layers: " in report and "figures/which_layers.png" in report
