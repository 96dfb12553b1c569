import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.measures import tables
from src.measures.cells import ALL
from src.measures.pgr import Cell, gaps_recovered
from src.measures.run_scores import EvalPairs, RunScores

CONFIG = EvalConfig(bootstrap_samples=200)
N = 400
PAIR_IDS = np.array([f"{i:016x}" for i in range(N)])
ABILITY = {"teacher": 0.1, "student": 0.5, "ceiling": 1.0, "baseline": 0.2}


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    return EvalPairs("demo", "people", "test", PAIR_IDS, np.repeat(np.arange(N // 4), 4),
                     rng.integers(1, 50, N), rng.integers(1, 50, N))


def make_run(role, name, seed, teacher="", method=""):
    """Scores in an order of their own, from a generator that the run's identity seeds."""
    rng = np.random.default_rng([len(name), len(teacher + method), seed or 0, len(role)])
    order = rng.permutation(N)
    margins = rng.normal(ABILITY[role], 1, size=N)
    return RunScores(role, name, None if role == "baseline" else int(name[-1]), teacher, method,
                     seed, PAIR_IDS[order], margins[order], [(10, 0.7), (20, 0.6)])


def grid(seeds=(0, 1, 2)):
    return [run for seed in seeds for run in (
        make_run("teacher", "demo-L2", seed), make_run("ceiling", "demo-L4", seed),
        make_run("ceiling", "demo-L6", seed),
        make_run("student", "demo-L4", seed, "demo-L2", "soft"),
        make_run("student", "demo-L6", seed, "demo-L2", "soft"),
        make_run("student", "demo-L6", seed, "demo-L2", "confidence"))]


def without(runs, role, name, seed):
    return [run for run in runs if (run.role, run.name, run.seed) != (role, name, seed)]


def margins_of(run):
    return run.margins[np.argsort(run.pair_ids)]


def test_accuracy_has_one_row_a_run_joined_on_pair_id(pairs):
    runs = [*grid(), make_run("baseline", "length_only", None), make_run("baseline", "tfidf", None)]
    table = tables.accuracy_table(runs, pairs, CONFIG)
    assert list(table.columns) == tables.COLUMNS["accuracy"]
    assert len(table) == len(runs)
    for run, row in zip(runs, table.itertuples(), strict=True):
        assert row.accuracy == pytest.approx(np.mean(margins_of(run) > 0))
        assert row.low < row.accuracy < row.high and row.n == N
    shorter = pairs.length_chosen < pairs.length_rejected
    same = pairs.length_chosen == pairs.length_rejected
    assert table.length_only.unique() == pytest.approx([np.mean(shorter + 0.5 * same)])


def test_a_baseline_has_empty_fields_and_seeds_stay_whole_numbers(pairs):
    runs = [make_run("teacher", "demo-L2", 0), make_run("baseline", "length_only", None)]
    text = tables.accuracy_table(runs, pairs, CONFIG).to_csv(index=False)
    found = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    assert (found.layers[0], found.seed[0], found.teacher[0]) == ("2", "0", "")
    assert (found.layers[1], found.seed[1], found.log_loss[1], found.brier[1]) == ("", "", "", "")


def test_pgr_row_equals_pgr_of_its_cell(pairs):
    runs = grid()
    table = tables.pgr_table(runs, pairs, CONFIG).set_index(["teacher", "student", "method"])
    row = table.loc["demo-L2", "demo-L6", "soft"]
    parts = [np.stack([margins_of(run) > 0 for run in runs
                       if (run.role, run.name, run.method) == key])
             for key in (("teacher", "demo-L2", ""), ("student", "demo-L6", "soft"),
                         ("ceiling", "demo-L6", ""))]
    expected, = gaps_recovered([[Cell(*(part.astype(float) for part in parts))]], pairs.prompt_ids,
                               floor=0.03, samples=200)
    assert (row.seeds, row.n, row.status) == ("0 1 2", N, "ok")
    assert row[["weak", "student_accuracy", "ceiling"]].tolist() == pytest.approx(
        [part.mean() for part in parts])
    assert row[["pgr", "pgr_low", "pgr_high"]].tolist() == pytest.approx(
        [expected.pgr.estimate, expected.pgr.low, expected.pgr.high])


def test_an_aggregate_row_stands_for_several_cells_of_a_method(pairs):
    table = tables.pgr_table(grid(), pairs, CONFIG)
    assert list(table.columns) == tables.COLUMNS["pgr"]
    aggregate, = table[table.student == ALL].to_dict("records")
    cells = table[(table.method == "soft") & (table.student != ALL)]
    assert (aggregate["teacher"], aggregate["method"]) == (ALL, "soft")
    assert aggregate["pgr"] == pytest.approx(cells.gain.sum() / cells.gap.sum())
    assert aggregate["gap"] == pytest.approx(cells.gap.mean())


def test_pgr_names_only_the_seeds_that_all_three_runs_have(pairs):
    table = tables.pgr_table(without(grid(), "ceiling", "demo-L4", 1), pairs, CONFIG)
    seeds = table.set_index(["student", "method"]).seeds
    assert seeds["demo-L4", "soft"] == "0 2"
    assert seeds["demo-L6", "soft"] == "0 1 2"
    assert seeds[ALL, "soft"] == "0 2"


def test_no_seed_in_common_is_no_row(pairs):
    runs = [run for run in grid() if run.role != "teacher"]
    assert tables.pgr_table(runs, pairs, CONFIG).empty
    assert tables.companions_table(runs, pairs).empty
    assert list(tables.pgr_table([], pairs, CONFIG).columns) == tables.COLUMNS["pgr"]


def test_an_undefined_pgr_leaves_its_fields_empty(pairs):
    table = tables.pgr_table(grid(), pairs, dataclasses.replace(CONFIG, pgr_floor=0.9))
    assert set(table.status) == {"undefined"}
    assert table[["pgr", "pgr_low", "pgr_high"]].isna().all(axis=None)
    assert table[["gain", "gain_low", "gap", "gap_high"]].notna().all(axis=None)


def test_companions_compare_a_student_with_its_teacher_of_the_same_seed(pairs):
    runs = without(grid(), "teacher", "demo-L2", 2)
    table = tables.companions_table(runs, pairs)
    assert list(table.columns) == tables.COLUMNS["companions"]
    assert sorted(table.seed.unique()) == [0, 1]
    teacher, student = margins_of(runs[0]) > 0, margins_of(runs[3]) > 0
    assert table.agreement[0] == pytest.approx(np.mean(teacher == student))
    assert table.agreement_teacher_wrong[0] == pytest.approx(np.mean(~student[~teacher]))
    assert table.errors_inherited[0] == pytest.approx(np.mean(~teacher[~student]))


def test_calibration_pools_seeds_and_leaves_out_the_length_rule(pairs):
    runs = [*grid(), make_run("baseline", "length_only", None)]
    table = tables.calibration_table(runs, pairs)
    assert list(table.columns) == tables.COLUMNS["calibration"]
    totals = table.groupby(["role", "name", "teacher", "method"]).n.sum()
    assert set(totals) == {3 * N} and len(totals) == 6


def test_curves_hold_every_logged_step(pairs):
    table = tables.curves_table(grid((0,)), pairs)
    assert list(table.columns) == tables.COLUMNS["curves"]
    assert table.loss.tolist() == [0.7, 0.6] * 6 and table.step.tolist() == [10, 20] * 6


def test_scores_have_one_column_a_run_and_six_digits(pairs):
    run = dataclasses.replace(make_run("student", "demo-L4", 0, "demo-L2", "soft"),
                              pair_ids=PAIR_IDS, margins=np.full(N, 1 / 3e-7))
    table = tables.scores_table([run, make_run("teacher", "demo-L2", 0)], pairs)
    assert list(table.columns) == ["pair_id", "prompt_id", "student/demo-L4/demo-L2/soft/0",
                                   "teacher/demo-L2/0"]
    assert table["student/demo-L4/demo-L2/soft/0"][0] == 3333330.0


@pytest.mark.parametrize("change, message", [
    (lambda run: {"pair_ids": run.pair_ids[1:], "margins": run.margins[1:]},
     "scores: 399 for 400 pairs, each of which needs one; 1 missing"),
    (lambda run: {"pair_ids": np.append(run.pair_ids, "new"),
                  "margins": np.append(run.margins, 1.0)}, "401 for 400 pairs"),
    (lambda run: {"pair_ids": np.append(run.pair_ids[:-1], run.pair_ids[0])}, "1 repeated"),
    (lambda run: {"margins": run.margins[1:]}, "399 for 400 pairs"),
])
def test_scores_of_other_pairs_are_refused(pairs, change, message):
    run = make_run("teacher", "demo-L2", 0)
    with pytest.raises(UserError, match=message):
        tables.accuracy_table([dataclasses.replace(run, **change(run))], pairs, CONFIG)


def test_a_run_that_is_there_twice_is_refused(pairs):
    with pytest.raises(UserError, match="teacher/demo-L2/0 is there twice"):
        tables.scores_table([make_run("teacher", "demo-L2", 0)] * 2, pairs)


def test_repeated_pairs_are_refused():
    with pytest.raises(UserError, match="2 pairs, 1 different ids"):
        EvalPairs("demo", "people", "test", np.array(["a", "a"]), *(np.array([1, 2]),) * 3)
