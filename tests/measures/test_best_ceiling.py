"""Ceilings that do not rise with depth, on made scores whose every accuracy is known exactly."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from configs.schema import EvalConfig
from src.common.files import REPO_ROOT
from src.measures import tables
from src.measures.best_ceiling import (
    BEST_COLUMNS,
    CEILING_COLUMNS,
    ceilings_table,
    with_best_ceiling,
)
from src.measures.cells import ALL
from src.measures.run_scores import EvalPairs, RunScores, base_of
from src.reports.results import read_csv_table
from src.runs.rungs import LETTERS

CONFIG = EvalConfig(bootstrap_samples=500)
N = 2000
PAIR_IDS = np.array([f"{i:016x}" for i in range(N)])
PAIRS = EvalPairs("demo", "people", "test", PAIR_IDS, np.arange(N), np.ones(N), np.ones(N))
MIDDLE_BEST = {"demo-F8": 0.7, "demo-F16": 0.85, "demo-L30": 0.8}


def run(role, name, seed, right, teacher="", method="", ties=0):
    """A run that is right about the first `right` of the pairs; its scores are in another order."""
    margins = np.where(np.arange(N) < round(right * N), 1.0, -1.0)
    margins[N - ties:] = 0.0
    order = np.random.default_rng(seed).permutation(N)
    return RunScores(role, name, int(name.rpartition("-")[2][1:]), teacher, method, seed,
                     PAIR_IDS[order], margins[order], keep="all" if "-L" in name else "first")


def experiment(ceilings, students, weak=0.6, seeds=(0, 1, 2), method="soft"):
    """Runs of one teacher demo-F4, of the ceilings, and of the students: name -> accuracy."""
    return [one for seed in seeds for one in (
        run("teacher", "demo-F4", seed, weak),
        *(run("ceiling", name, seed, value) for name, value in ceilings.items()),
        *(run("student", name, seed, value, "demo-F4", method)
          for name, value in students.items()))]


def pgr_of(runs, config=CONFIG):
    return with_best_ceiling(tables.pgr_table(runs, PAIRS, config), runs, PAIRS, config)


def test_pgr_stands_against_the_student_s_own_ceiling_and_the_best():
    table = pgr_of(experiment(MIDDLE_BEST, {"demo-F8": 0.65, "demo-F16": 0.75, "demo-L30": 0.7}))
    assert list(table.columns) == tables.COLUMNS["pgr"] + BEST_COLUMNS
    assert set(table.best_ceiling_name) == {"demo-F16"} and set(table.best_status) == {"ok"}
    rows = table.set_index("student")
    assert rows.ceiling.tolist() == pytest.approx([0.7, 0.85, 0.8, 2.35 / 3])
    assert rows.pgr.tolist() == pytest.approx([0.05 / 0.1, 0.15 / 0.25, 0.1 / 0.2, 0.3 / 0.55])
    assert rows.best_ceiling.tolist() == pytest.approx([0.85] * 4)
    assert rows.best_gap.tolist() == pytest.approx([0.25] * 4)
    assert rows.best_pgr.tolist() == pytest.approx([0.05 / 0.25, 0.15 / 0.25, 0.1 / 0.25,
                                                    0.3 / 0.75])
    own = rows.loc["demo-F16"]
    assert own[["gap_low", "gap_high", "pgr_low", "pgr_high"]].tolist() == own[
        ["best_gap_low", "best_gap_high", "best_pgr_low", "best_pgr_high"]].tolist()


def test_the_interval_of_the_best_gap_is_the_paired_one():
    """Seeds that agree add nothing; the first 0.6 N pairs are right under both, so that the gap's
    variance over pairs is that of a share of 0.25."""
    row = pgr_of(experiment(MIDDLE_BEST, {"demo-F8": 0.65}),
                 EvalConfig(bootstrap_samples=4000)).iloc[0]
    half = norm.ppf(0.975) * np.sqrt(0.25 * 0.75 / N)
    assert [row.best_gap_low, row.best_gap_high] == pytest.approx([0.25 - half, 0.25 + half],
                                                                  abs=0.1 * half)


@pytest.mark.parametrize("ceilings", [
    {"demo-F8": 0.7, "demo-F16": 0.75, "demo-L30": 0.8},
    {"demo-F8": 0.8, "demo-F16": 0.7, "demo-L30": 0.8},   # a tie: none is above the deepest
    {"demo-F8": 0.7, "demo-F16": 0.65, "demo-L30": 0.8},  # falls on the way, not at its end
    {"demo-L30": 0.8},
])
def test_nothing_is_added_where_the_deepest_ceiling_is_not_beaten(ceilings):
    runs = experiment(ceilings, dict.fromkeys(ceilings, 0.7))
    assert list(pgr_of(runs).columns) == tables.COLUMNS["pgr"]
    assert ceilings_table(runs, PAIRS, CONFIG).empty


def test_the_first_columns_are_what_they_were():
    runs = experiment(MIDDLE_BEST, {"demo-F8": 0.65, "demo-L30": 0.7})
    before = tables.pgr_table(runs, PAIRS, CONFIG)
    pd.testing.assert_frame_equal(pgr_of(runs)[tables.COLUMNS["pgr"]], before, check_exact=True)


def test_of_equally_good_ceilings_the_shallowest_is_the_best():
    runs = experiment({"demo-F16": 0.85, "demo-F8": 0.85, "demo-L30": 0.8}, {"demo-L30": 0.7})
    assert pgr_of(runs).best_ceiling_name.tolist() == ["demo-F8"]


def test_of_equally_deep_ceilings_the_better_is_the_deepest():
    runs = experiment({"demo-F8": 0.82, "demo-B16": 0.7, "demo-F16": 0.8}, {"demo-F8": 0.7})
    assert ceilings_table(runs, PAIRS, CONFIG).set_index("place").name["deepest"] == "demo-F16"
    runs = experiment({"demo-F8": 0.75, "demo-B16": 0.7, "demo-F16": 0.8}, {"demo-F8": 0.7})
    assert ceilings_table(runs, PAIRS, CONFIG).empty


def test_a_tie_counts_half_in_the_choice():
    runs = [*experiment({"demo-F8": 0.7}, {"demo-F8": 0.65}, seeds=(0,)),
            run("ceiling", "demo-L30", 0, 0.7, ties=100)]  # 100 wrong ones are ties: 0.725
    assert list(pgr_of(runs).columns) == tables.COLUMNS["pgr"]


def test_a_small_best_gap_is_undefined_where_the_own_ceiling_s_is():
    """By the floor, and by an interval that holds 0; the gap itself stays in the table."""
    runs = experiment({"demo-F8": 0.62, "demo-L30": 0.61}, {"demo-L30": 0.605})
    row = pgr_of(runs).iloc[0]
    assert row.best_status == "undefined" and row.best_gap == pytest.approx(0.02)
    assert np.isnan([row.best_pgr, row.best_pgr_low, row.best_pgr_high]).all()
    runs = experiment({"demo-F8": 0.601, "demo-L30": 0.6}, {"demo-L30": 0.6})
    row = pgr_of(runs, dataclasses.replace(CONFIG, pgr_floor=0.0)).iloc[0]
    assert row.best_gap_low <= 0 and row.best_status == "undefined"


def test_the_best_ceiling_may_give_a_ratio_where_the_own_one_gives_none():
    row = pgr_of(experiment({"demo-F8": 0.7, "demo-L30": 0.61}, {"demo-L30": 0.65})).iloc[0]
    assert (row.status, row.best_status) == ("undefined", "ok")
    assert row.best_pgr == pytest.approx(0.5)


def test_seeds_are_those_that_the_best_ceiling_has_as_well():
    runs = [one for one in experiment(MIDDLE_BEST, {"demo-F8": 0.65, "demo-F16": 0.7})
            if (one.role, one.name, one.seed) != ("ceiling", "demo-F16", 1)]
    rows = pgr_of(runs).set_index("student")
    assert rows.seeds.tolist() == ["0 1 2", "0 2", "0 2"]
    assert rows.best_seeds.tolist() == ["0 2"] * 3
    assert set(ceilings_table(runs, PAIRS, CONFIG).seeds) == {"0 2"}


def test_ceilings_without_a_seed_in_common_are_not_compared():
    runs = [one for one in experiment(MIDDLE_BEST, {"demo-F8": 0.65}) if one.role != "ceiling"
            or one.seed == (0 if one.name == "demo-F16" else 1)]
    assert list(pgr_of(runs).columns) == tables.COLUMNS["pgr"]


def test_each_base_model_is_judged_on_its_own():
    """Where one falls and another rises, only students of the first have a best ceiling, and an
    aggregate over both has none; a teacher of another base changes nothing."""
    runs = experiment({**MIDDLE_BEST, "other-F8": 0.7, "other-L12": 0.95},
                      {"demo-L30": 0.7, "other-L12": 0.8})
    rows = pgr_of(runs).set_index("student")
    assert rows.loc["demo-L30", "best_pgr"] == pytest.approx(0.1 / 0.25)
    for name in ("other-L12", ALL):
        assert rows.loc[name, "best_status"] == rows.loc[name, "best_ceiling_name"] == ""
        assert np.isnan(rows.loc[name, "best_gap"])
    assert set(ceilings_table(runs, PAIRS, CONFIG).base) == {"demo"}


def test_an_aggregate_over_two_falling_bases_names_all():
    runs = experiment({**MIDDLE_BEST, "other-F8": 0.9, "other-L12": 0.7},
                      {"demo-L30": 0.7, "other-L12": 0.8})
    row = pgr_of(runs).set_index("student").loc[ALL]
    assert row.best_ceiling_name == ALL
    assert row.best_pgr == pytest.approx((0.1 + 0.2) / (0.25 + 0.3))


def test_several_teachers_and_a_combined_one_have_rows_of_their_own():
    runs = experiment(MIDDLE_BEST, {"demo-F8": 0.65})
    both = "mean-of-demo-F4+demo-F6"
    for seed in (0, 1, 2):
        runs += [dataclasses.replace(run("teacher", "demo-F6", seed, 0.65), name=both),
                 run("student", "demo-F8", seed, 0.7, both, "soft")]
    rows = pgr_of(runs).set_index("teacher")
    assert rows.best_pgr.tolist() == pytest.approx([0.05 / 0.25, 0.05 / 0.2, 0.1 / 0.45])


def test_the_difference_to_the_deepest_is_paired_and_holds_for_all_at_once():
    """With k - 1 = 2 differences each interval has the level 1 - 0.05 / 2; pairs of one seed alone,
    so that its width is that of a share of discordant pairs."""
    config = EvalConfig(bootstrap_samples=10_000)
    table = ceilings_table(experiment(MIDDLE_BEST, {}, seeds=(0,)), PAIRS, config)
    assert list(table.columns) == CEILING_COLUMNS
    assert table.name.tolist() == ["demo-F8", "demo-F16", "demo-L30"]
    assert table.place.tolist() == ["", "best", "deepest"]
    assert table.keep.tolist() == ["first", "first", "all"]
    assert table.accuracy.tolist() == pytest.approx([0.7, 0.85, 0.8])
    best, half = table.iloc[1], norm.ppf(1 - 0.05 / 4) * np.sqrt(0.05 * 0.95 / N)
    assert [best.over_deepest_low, best.over_deepest, best.over_deepest_high] == pytest.approx(
        [0.05 - half, 0.05, 0.05 + half], abs=0.1 * half)
    assert table.iloc[2][["over_deepest", "over_deepest_low"]].isna().all()
    half = norm.ppf(0.975) * np.sqrt(0.85 * 0.15 / N)
    assert [best.low, best.high] == pytest.approx([0.85 - half, 0.85 + half], abs=0.1 * half)


def test_a_best_ceiling_picked_from_equal_ones_is_rarely_told_apart_from_the_deepest():
    """Six ceilings of one true accuracy at one seed. Intervals of each difference alone would tell
    the picked one apart in 11% of trials."""
    rng, trials, found, n = np.random.default_rng(0), 400, 0, 400
    names, config = [f"demo-F{k}" for k in range(8, 14)], EvalConfig(bootstrap_samples=400)
    pairs = EvalPairs("demo", "people", "test", PAIR_IDS[:n], np.arange(n), np.ones(n), np.ones(n))
    for _ in range(trials):
        runs = [RunScores("ceiling", name, int(name[6:]), "", "", 0, PAIR_IDS[:n],
                          rng.normal(0.8, 1, n)) for name in names]
        table = ceilings_table(runs, pairs, config)
        found += bool((table[table.place == "best"].over_deepest_low > 0).any())
    assert found / trials < 0.05


def test_the_demo_s_ceilings_rise_so_that_its_tables_stay_as_they_are():
    folder = REPO_ROOT / "results" / "demo"
    ceilings = read_csv_table(folder / "accuracy.csv").query("role == 'ceiling'")
    means = ceilings.groupby("layers").accuracy.mean()
    assert means.iloc[-1] == means.max()
    header = (folder / "pgr.csv").read_text().splitlines()[0]
    assert header.split(",") == tables.COLUMNS["pgr"] and not (folder / "ceilings.csv").exists()


def test_every_rung_s_name_gives_its_base():
    assert {base_of(f"gemma_2_2b-{letter}8") for letter in LETTERS.values()} == {"gemma_2_2b"}
    assert [base_of(name) for name in ("m-K1_5", "m-L30", "m-L8-p2.5", "gpt2-xl", "gpt2")] == [
        "m", "m", "m", "gpt2-xl", "gpt2"]
