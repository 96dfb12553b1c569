"""A method is called better only where the interval and Wilcoxon's test both say so."""

import numpy as np
import pytest
from scipy.stats import norm, wilcoxon

from configs.schema import EvalConfig
from src.measures.cells import correctness
from src.measures.comparisons.methods import (
    BETTER,
    COST,
    METHOD_COLUMNS,
    OPEN,
    TOO_FEW,
    WORSE,
    differences,
    methods_table,
    ranking_table,
)
from src.measures.run_scores import EvalPairs, RunScores

N = 2000
PAIR_IDS = np.array([f"{i:016x}" for i in range(N)])
PAIRS = EvalPairs("demo", "people", "test", PAIR_IDS, np.arange(N), np.ones(N), np.ones(N))
CONFIG = EvalConfig(bootstrap_samples=500)
CELLS = [("demo-L2", "demo-L4"), ("demo-L2", "demo-L8"), ("demo-L4", "demo-L8")]


def run(cell, method, seed, right):
    """A student that is right about the first `right` of the pairs."""
    return RunScores("student", cell[1], 4, cell[0], method, seed, PAIR_IDS,
                     np.where(np.arange(N) < round(right * N), 1.0, -1.0))


def compared(methods, cells=CELLS, seeds=(0, 1, 2), pairs=PAIRS):
    """Students of soft at 0.7 and of each other method at 0.7 + what `methods` gives for a cell."""
    runs = [run(cell, method, seed, 0.7 + (added(place, seed) if callable(added) else added))
            for method, added in {"soft": 0.0, **methods}.items()
            for place, cell in enumerate(cells) for seed in seeds]
    return differences(correctness(runs, pairs), pairs, CONFIG)


def table_of(methods, **kwargs):
    return methods_table("demo", compared(methods, **kwargs), 0.95).set_index("method")


def test_what_is_higher_in_every_cell_is_better_and_what_is_lower_is_worse():
    table = table_of({"up": 0.03, "down": -0.03, "same": 0.0})
    assert table.verdict.to_dict() == {"up": BETTER, "down": WORSE, "same": OPEN}
    assert table.difference.tolist() == pytest.approx([0.03, -0.03, 0.0])
    assert table.wins.tolist() == [9, 0, 0] and table.win_rate.tolist() == [1.0, 0.0, 0.5]
    assert [*table.reset_index()[METHOD_COLUMNS].columns] == METHOD_COLUMNS and COST in table
    assert set(table.seeds) == {"0 1 2"} and set(table.cells) == {9} and set(table.n) == {N}


def test_p_is_scipy_s_and_corrected_for_all_methods():
    def wave(place, seed):
        return 0.01 * (place + 1) - 0.012 * seed

    table = table_of({"wave": wave, "up": 0.03})
    cells = [wave(place, seed) for place in range(3) for seed in (0, 1, 2)]
    expected = wilcoxon(np.round(cells, 12), zero_method="zsplit").pvalue
    assert table.p["wave"] == pytest.approx(expected, rel=0.02)
    assert table.p_holm["up"] == pytest.approx(2 * table.p["up"])
    assert table.p_holm["wave"] >= table.p["wave"]


def test_the_interval_is_that_of_the_paired_difference():
    """Seeds that agree add nothing: a share of 0.03 of the pairs differs, in one direction."""
    row = table_of({"up": 0.03}).loc["up"]
    half = norm.ppf(0.975) * np.sqrt(0.03 * 0.97 / N)
    assert [row.difference_low, row.difference_high] == pytest.approx(
        [0.03 - half, 0.03 + half], abs=0.15 * half)


def test_one_cell_that_carries_all_is_not_enough():
    """Its interval excludes 0, and most cells lose."""
    row = table_of({"lucky": lambda place, seed: 0.2 if place == 0 else -0.005}).loc["lucky"]
    assert row.difference_low > 0 and row.verdict == OPEN and row.losses == 6


def test_five_cells_are_too_few_for_any_verdict():
    row = table_of({"up": 0.05}, cells=[(f"t{i}", "s") for i in range(5)], seeds=(0,)).loc["up"]
    assert row.difference_low > 0 and row.wins == 5 and row.verdict == TOO_FEW


def test_cells_are_too_few_by_how_many_methods_are_compared():
    """Nine cells give no p below 2/2^9: twelve comparisons may pass, thirteen may not."""
    def verdicts(count):
        return table_of({"up": 0.03, **{f"same{i}": 0.0 for i in range(count - 1)}}).verdict

    assert verdicts(12)["up"] == BETTER and verdicts(13)["up"] == TOO_FEW
    assert verdicts(13)["same0"] == OPEN


def test_methods_that_are_the_same_are_told_apart_rarely():
    """Wilcoxon's test alone would be too sure, as cells share their seed: both must say it."""
    rng = np.random.default_rng(0)
    pairs = EvalPairs("demo", "people", "test", PAIR_IDS[:300], np.arange(300), np.ones(300),
                      np.ones(300))
    called = 0
    for _ in range(150):
        shift = 0.1 * rng.standard_normal((2, 3))  # what a seed does to all cells of a method
        runs = [RunScores("student", student, 4, teacher, method, seed, pairs.pair_ids,
                          0.5 + shift[m, seed] + rng.standard_normal(300))
                for m, method in enumerate(("soft", "other")) for teacher, student in CELLS
                for seed in (0, 1, 2)]
        found = differences(correctness(runs, pairs), pairs, EvalConfig(bootstrap_samples=200))
        called += methods_table("demo", found, 0.95).verdict[0] != OPEN
    assert called <= 0.08 * 150


def test_without_the_baseline_or_a_common_cell_there_are_no_rows():
    runs = [run(CELLS[0], "other", 0, 0.7)]
    assert differences(correctness(runs, PAIRS), PAIRS, CONFIG) == []
    runs.append(run(CELLS[1], "soft", 0, 0.7))
    assert differences(correctness(runs, PAIRS), PAIRS, CONFIG) == []
    assert methods_table("demo", [], 0.95).empty


def test_a_failed_run_takes_its_seed_out_of_the_mean_and_of_the_cells_beside_it():
    runs = [run(cell, method, seed, 0.7 + (0.02 if method == "up" else 0)) for cell in CELLS
            for method in ("soft", "up") for seed in (0, 1, 2)
            if (cell, method, seed) != (CELLS[1], "up", 1)]
    one, = differences(correctness(runs, PAIRS), PAIRS, CONFIG)
    assert list(one.seeds) == [0, 2] and len(one.cells) == 6


def test_wins_and_p_are_of_the_cells_that_the_difference_is_the_mean_of():
    """A cell of one seed leaves one seed to all: the others' seeds may say something else."""
    added = {0: 0.14, 1: -0.03, 2: -0.03}
    runs = [run(cell, method, seed, 0.7 + (added[seed] if method == "up" else 0))
            for place, cell in enumerate(CELLS) for method in ("soft", "up") for seed in added
            if place or not seed]
    found = differences(correctness(runs, PAIRS), PAIRS, CONFIG)
    row = methods_table("demo", found, 0.95).iloc[0]
    assert row.difference == pytest.approx(found[0].cells.mean()) == pytest.approx(0.14)
    assert (row.cells, row.wins, row.losses, row.seeds) == (3, 3, 0, "0")


def test_a_ranking_weighs_experiments_alike_and_puts_the_best_first():
    first = compared({"a": 0.04, "b": 0.01})
    second = compared({"a": 0.0, "c": 0.03}, cells=[(f"t{i}", "s") for i in range(9)])
    table = ranking_table({"one": first, "two": second}, 0.95)
    assert table.method.tolist() == ["c", "a", "b"]
    assert table.difference.tolist() == pytest.approx([0.03, 0.02, 0.01])
    assert table.experiment.tolist() == ["two", "one two", "one"]
    assert table.cells.tolist() == [27, 36, 9] and table.n.tolist() == [N, 2 * N, N]
    alone = methods_table("one", first, 0.95)
    width = table.difference_high - table.difference_low
    assert width[1] == pytest.approx((alone.difference_high - alone.difference_low)[0] / 2)


def test_a_cost_is_the_median_ratio_of_seconds_over_cells_that_have_them():
    runs = [run(cell, method, seed, 0.7) for method in ("soft", "half", "none") for cell in CELLS
            for seed in (0, 1, 2)]
    seconds = {one.key: {"soft": 4.0, "half": 2.0}[one.method] + one.seed for one in runs
               if one.method != "none" and one.seed < 2}
    found = differences(correctness(runs, PAIRS), PAIRS, CONFIG, seconds=seconds)
    table = methods_table("demo", found, 0.95).set_index("method")
    assert table.cost["half"] == pytest.approx(np.median([2 / 4] * 3 + [3 / 5] * 3))
    assert np.isnan(table.cost["none"])
    ranked = ranking_table({"one": found, "two": found[:1]}, 0.95).set_index("method")
    assert ranked.cost["half"] == table.cost["half"] and np.isnan(ranked.cost["none"])


def test_a_student_of_several_teachers_is_held_against_the_baseline_by_the_best_of_them():
    """By the weaker one, or by all, it would seem better for having the better one at all."""
    together = ("mean_margin-of-demo-L2+demo-L4", "demo-L8")
    runs = [run(("demo-L2", "demo-L8"), "soft", seed, 0.70) for seed in (0, 1, 2)]
    runs += [run(("demo-L4", "demo-L8"), "soft", seed, 0.75) for seed in (0, 1, 2)]
    runs += [run(together, "both", seed, 0.76) for seed in (0, 1)]
    runs += [run(("mean_margin-of-demo-L4+demo-L6", "demo-L8"), "odd", 0, 0.9)]  # no soft by L6
    seconds = {one.key: 10.0 if one.method == "soft" and one.teacher == "demo-L4" else 15.0
               for one in runs}
    found, = differences(correctness(runs, PAIRS), PAIRS, CONFIG, seconds=seconds)
    assert (found.method, found.cost) == ("both", 1.5)
    assert found.cells.tolist() == pytest.approx([0.01, 0.01]) and list(found.seeds) == [0, 1]


def test_the_best_of_several_teachers_is_chosen_on_the_seeds_that_all_have():
    """A teacher with a single lucky seed is not the best one."""
    runs = [run(("demo-L2", "demo-L8"), "soft", 0, 0.79)]
    runs += [run(("demo-L4", "demo-L8"), "soft", seed, 0.80 - 0.05 * (seed > 0))
             for seed in (0, 1, 2)]
    runs += [run(("mean_margin-of-demo-L2+demo-L4", "demo-L8"), "both", seed, 0.81)
             for seed in (0, 1, 2)]
    found, = differences(correctness(runs, PAIRS), PAIRS, CONFIG)
    assert found.cells.tolist() == pytest.approx([0.01, 0.06, 0.06])
    assert list(found.seeds) == [0, 1, 2]
