"""Pooled intervals against scipy's, closed forms and brute force."""

import numpy as np
import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.measures.cells import ALL
from src.measures.intervals import KeyedCell, components, pooled_freedom, pooled_gaps
from src.measures.pgr import Cell
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.tables import COLUMNS, pgr_table, pooled_table

PAIRS = 40
PROMPTS = np.arange(PAIRS)


def flat(weak, student, ceiling, teacher="t", rung="c"):
    """A cell in which seeds differ and pairs do not: accuracies (S,) of each role."""
    parts = (np.repeat(np.asarray(part, float)[:, None], PAIRS, axis=1)
             for part in (weak, student, ceiling))
    return KeyedCell(teacher, rung, Cell(*parts))


def noisy(rng, accuracies, seeds, pairs, teacher="t", rung="c"):
    return KeyedCell(teacher, rung, Cell(*((rng.random((seeds, pairs)) < share).astype(float)
                                           for share in accuracies)))


def test_one_cell_of_seeds_alone_has_student_s_interval():
    rng = np.random.default_rng(0)
    weak, student, ceiling = (level + 0.02 * rng.standard_normal(5) for level in (0.6, 0.7, 0.8))
    found, = pooled_gaps([flat(weak, student, ceiling)], [[0]], PROMPTS, floor=0.0)
    for figure, values in ((found.gain, student - weak), (found.gap, ceiling - weak)):
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        assert [figure.low, figure.high] == pytest.approx([expected.low, expected.high])


def test_its_pgr_holds_the_ratios_that_a_t_test_does_not_refuse():
    """Brute force: rho is at the edge where the t-test of gain - rho gap has p = 0.05."""
    rng = np.random.default_rng(1)
    weak, student, ceiling = (level + 0.01 * rng.standard_normal(5) for level in (0.6, 0.7, 0.8))
    found, = pooled_gaps([flat(weak, student, ceiling)], [[0]], PROMPTS, floor=0.0)
    for edge in (found.pgr.low, found.pgr.high):
        rest = (student - weak) - edge * (ceiling - weak)
        assert ttest_1samp(rest, 0).pvalue == pytest.approx(0.05)
    assert found.pgr.low < found.pgr.estimate < found.pgr.high


def test_prompts_alone_give_fieller_s_quadratic_of_a_paired_sample():
    """Copied seeds add nothing: what is left is the ratio of two means of n pairs."""
    rng = np.random.default_rng(2)
    n = 4000
    one = noisy(rng, (0.6, 0.7, 0.8), 1, n).cell
    copied = KeyedCell("t", "c", Cell(*(np.repeat(part, 3, axis=0) for part in
                                        (one.weak, one.student, one.ceiling))))
    found, = pooled_gaps([copied], [[0]], np.arange(n), floor=0.0)
    values = np.concatenate([one.student - one.weak, one.ceiling - one.weak])
    (gain, gap), covariance = values.mean(axis=1), np.cov(values) / n
    square = student_t.ppf(0.975, n - 1)**2
    low, high = np.sort(np.roots([gap**2 - square * covariance[1, 1],
                                  -2 * (gain * gap - square * covariance[0, 1]),
                                  gain**2 - square * covariance[0, 0]]))
    assert [found.pgr.low, found.pgr.high] == pytest.approx([low, high], rel=1e-6)


def test_a_cell_s_seed_variance_is_the_mean_over_cells():
    rng = np.random.default_rng(3)
    seeds = 4
    cells = [flat(*(level + 0.02 * rng.standard_normal(seeds) for level in (0.6, 0.7, 0.9)),
                  teacher=f"t{i}", rung=f"c{i}") for i in range(6)]
    found = pooled_gaps(cells, [[0], [1]], PROMPTS, floor=0.0)
    gains = np.array([(one.cell.student - one.cell.weak)[:, 0] for one in cells])  # (C, S)
    covariance = np.cov(gains)
    freedom = pooled_freedom(covariance, np.eye(6) / 6, seeds)
    half = student_t.ppf(0.975, freedom) * np.sqrt(np.trace(covariance) / 6 / seeds)
    for place in (0, 1):
        assert found[place].gain.high - found[place].gain.estimate == pytest.approx(half)
    assert seeds - 1 < freedom <= 6 * (seeds - 1)


def test_a_mean_of_cells_leaves_out_the_covariance_of_cells_without_a_shared_run():
    rng = np.random.default_rng(4)
    seeds, shared = 5, [[1, 1, 0], [1, 1, 1], [0, 1, 1]]  # 0 and 1 by teacher, 1 and 2 by ceiling
    cells = [flat(*(level + 0.02 * rng.standard_normal(seeds) for level in (0.6, 0.7, 0.9)),
                  teacher=teacher, rung=rung)
             for teacher, rung in (("a", "x"), ("a", "y"), ("b", "y"))]
    found, = pooled_gaps(cells, [[0, 1, 2]], PROMPTS, floor=0.0)
    gaps = np.array([(one.cell.ceiling - one.cell.weak)[:, 0] for one in cells])
    weights = np.array(shared) / 9
    variance = np.sum(np.cov(gaps) * weights) / seeds
    half = student_t.ppf(0.975, pooled_freedom(np.cov(gaps), weights, seeds)) * np.sqrt(variance)
    assert found.gap.estimate == pytest.approx(gaps.mean())
    assert found.gap.high - found.gap.estimate == pytest.approx(half)


def test_copies_of_one_cell_have_the_freedom_of_one():
    covariance = np.full((7, 7), 0.3)
    assert pooled_freedom(covariance, np.eye(7) / 7, 4) == pytest.approx(3)
    assert pooled_freedom(np.array([[0.3]]), np.eye(1), 4) == pytest.approx(3)
    assert pooled_freedom(np.eye(2), np.eye(2) / 2, 2) == 1


@pytest.mark.parametrize("seeds", [3, 5])
def test_freedom_is_that_of_the_true_covariance(seeds):
    """Nine cells of three teachers and three ceilings: nu_B of simulated seeds against
    Satterthwaite's formula with the truth in it. Ratios of estimates have a bias of their own, so
    what is compared is the t that comes of it."""
    teachers, ceilings = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    truth = (np.equal.outer(teachers, teachers) + 0.5 * np.equal.outer(ceilings, ceilings)
             + 0.7 * np.eye(9))
    weights, n = np.eye(9) / 9, seeds - 1
    product = truth @ weights
    expected = n * np.trace(product)**2 / np.trace(product @ product)
    samples = np.random.default_rng(0).multivariate_normal(np.zeros(9), truth, size=(2000, seeds))
    found = [pooled_freedom(np.cov(sample, rowvar=False), weights, seeds) for sample in samples]
    quantiles = student_t.ppf(0.975, found)
    assert np.median(quantiles) == pytest.approx(student_t.ppf(0.975, expected), rel=0.06)


def test_interaction_is_taken_out_of_what_seeds_do():
    """Seeds differ by the luck of pairs alone: B is about E, and their difference about 0."""
    rng = np.random.default_rng(5)
    cells = [noisy(rng, (0.6, 0.7, 0.8), 5, 3000, f"t{i}", f"c{i}") for i in range(12)]
    parts = components(cells, np.arange(3000))
    assert np.trace(parts.between) == pytest.approx(np.trace(parts.interaction), rel=0.35)
    exact = (0.6 * 0.4 + 0.7 * 0.3) / 3000
    assert parts.interaction[0, 0] == pytest.approx(exact, rel=0.1)


def test_pooling_narrows_at_three_seeds():
    rng = np.random.default_rng(6)
    cells = [flat(*(level + 0.01 * rng.standard_normal(3) for level in (0.6, 0.7, 0.9)),
                  teacher=f"t{i}", rung=f"c{i}") for i in range(9)]
    together = pooled_gaps(cells, [[i] for i in range(9)], PROMPTS, floor=0.0)
    alone = [pooled_gaps([cell], [[0]], PROMPTS, floor=0.0)[0] for cell in cells]
    widths = [np.median([one.gap.high - one.gap.low for one in found])
              for found in (together, alone)]
    assert widths[0] < 0.75 * widths[1]


@pytest.mark.parametrize("ceiling, floor", [(0.61, 0.0), (0.9, 0.5)])
def test_a_gap_that_carries_no_ratio_is_undefined(ceiling, floor):
    rng = np.random.default_rng(7)
    cell = noisy(rng, (0.6, 0.7, ceiling), 3, 300)
    found, = pooled_gaps([cell], [[0]], np.arange(300), floor=floor)
    assert found.status == "undefined" and found.gap.low < found.gap.estimate


def test_one_seed_or_one_prompt_is_nothing_to_pool():
    rng = np.random.default_rng(8)
    with pytest.raises(UserError, match="two seeds and two prompts"):
        pooled_gaps([noisy(rng, (0.6, 0.7, 0.8), 1, 30)], [[0]], np.arange(30), floor=0.0)
    with pytest.raises(UserError, match="two seeds and two prompts"):
        pooled_gaps([noisy(rng, (0.6, 0.7, 0.8), 3, 30)], [[0]], np.zeros(30), floor=0.0)


def experiment(rng, n=300, seeds=(0, 1, 2), without=()):
    """Two teachers and two students, less the runs named `without`."""
    ids = np.array([f"{i:016x}" for i in range(n)])
    pairs = EvalPairs("demo", "people", "test", ids, np.arange(n), np.ones(n), np.ones(n))
    runs = [RunScores(role, name, 2, teacher, method, seed, ids, level + rng.standard_normal(n))
            for seed in seeds for role, name, teacher, method, level in (
                *(("teacher", name, "", "", 0.2) for name in ("m-L2", "m-L3")),
                *(("ceiling", name, "", "", 1.2) for name in ("m-L4", "m-L8")),
                *(("student", name, teacher, "soft", 0.6) for name in ("m-L4", "m-L8")
                  for teacher in ("m-L2", "m-L3")))]
    return [one for one in runs if one.column not in without], pairs


def test_the_table_is_pgr_csv_s_but_for_its_intervals():
    runs, pairs = experiment(np.random.default_rng(9))
    config = EvalConfig(bootstrap_samples=200)
    pooled, own = pooled_table(runs, pairs, config), pgr_table(runs, pairs, config)
    assert list(pooled.columns) == COLUMNS["pooled"] == COLUMNS["pgr"]
    assert pooled.teacher.tolist() == own.teacher.tolist() and pooled.teacher.iloc[-1] == ALL
    assert pooled.seeds.tolist() == own.seeds.tolist()
    for column in ("weak", "student_accuracy", "ceiling", "gain", "gap", "pgr"):
        np.testing.assert_allclose(pooled[column], own[column])
    assert (pooled.gain_low != own.gain_low).all()


def test_every_row_takes_the_seeds_that_all_cells_have():
    runs, pairs = experiment(np.random.default_rng(10), without=("student/m-L8/m-L2/soft/1",))
    table = pooled_table(runs, pairs, EvalConfig())
    assert len(table) == 5 and set(table.seeds) == {"0 2"}


@pytest.mark.parametrize("seeds, without", [
    ((0,), ()),
    ((0, 1), ("student/m-L8/m-L2/soft/1",)),
    ((0, 1), ("ceiling/m-L4/0", "ceiling/m-L4/1", "teacher/m-L3/0", "teacher/m-L3/1")),
])
def test_where_there_is_nothing_to_pool_there_are_no_rows(seeds, without):
    runs, pairs = experiment(np.random.default_rng(11), seeds=seeds, without=without)
    assert pooled_table(runs, pairs, EvalConfig()).empty
