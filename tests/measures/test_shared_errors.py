"""CAPA against scikit-learn's kappa, the paper's definition and finite differences."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from configs.schema import EvalConfig
from src.measures.comparisons.shared_errors import (
    SHARED_COLUMNS,
    capa,
    pseudo_values,
    shared_errors,
    shared_errors_table,
)
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.tables import pgr_table

N = 400


def probabilities(rng, related=0.7):
    """Two models' probabilities of the truth, which go together."""
    first = 0.8 + rng.standard_normal(N)
    return expit(first), expit(related * first + rng.standard_normal(N))


def test_with_sure_models_it_is_cohen_s_kappa_of_being_right():
    first, second = (side > 0.5 for side in probabilities(np.random.default_rng(0)))
    assert capa(first.astype(float), second.astype(float)) == pytest.approx(
        cohen_kappa_score(first, second))


def test_with_probabilities_it_is_the_paper_s_sum_over_options():
    """Observed: the chance that two draws agree. Expected: the mean probability of the truth, the
    rest shared out to the other options, of which there is one."""
    first, second = probabilities(np.random.default_rng(1))
    options = [np.stack([side, 1 - side], axis=1) for side in (first, second)]
    observed = sum(float(a @ b) for a, b in zip(*options, strict=True)) / N
    p, q = (side[:, 0].mean() for side in options)
    expected = p * q + (1 - p) * (1 - q) / (2 - 1)
    assert capa(first, second) == pytest.approx((observed - expected) / (1 - expected))


def test_models_that_err_apart_have_none_and_twins_that_are_sure_have_one():
    rng = np.random.default_rng(2)
    first, second = ((rng.random(20_000) < share).astype(float) for share in (0.6, 0.8))
    assert capa(first, second) == pytest.approx(0, abs=0.03)
    assert capa(first, first) == pytest.approx(1)
    unsure = np.full(N, 0.6)
    assert capa(unsure, unsure) == pytest.approx(0)
    assert np.isnan(capa(np.ones(N), np.ones(N)))


def test_pseudo_values_are_capa_and_its_derivative_by_a_pair_s_weight():
    first, second = probabilities(np.random.default_rng(3))
    found = pseudo_values(first, second)
    assert found.mean() == pytest.approx(float(capa(first, second)))

    def weighted(weights):
        share = weights / weights.sum()
        p, q = share @ first, share @ second
        chance = p * q + (1 - p) * (1 - q)
        return (share @ (first * second + (1 - first) * (1 - second)) - chance) / (1 - chance)

    for pair in (0, 7, 99):
        step = np.zeros(N)
        step[pair] = 1e-4
        slope = (weighted(1 + step) - weighted(1 - step)) / 2e-4
        assert (found[pair] - found.mean()) / N == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_the_interval_of_one_seed_is_the_normal_one_of_the_pairs():
    rng = np.random.default_rng(4)
    teacher = 0.8 + rng.standard_normal((1, N))
    ceiling = 0.6 * teacher + 0.5 + rng.standard_normal((1, N))
    found = shared_errors(teacher, ceiling, np.arange(N), samples=4000)
    values = pseudo_values(expit(teacher), expit(ceiling))[0]
    half = norm.ppf(0.975) * values.std() / np.sqrt(N)
    assert [found.capa.low, found.capa.high] == pytest.approx(
        [values.mean() - half, values.mean() + half], abs=0.1 * half)


def test_wrong_pairs_are_counted_by_hand():
    teacher = np.array([[-1, -1, -1, 1, 1, 1.0]])
    ceiling = np.array([[-1, -1, 1, -1, 1, 1.0]])
    found = shared_errors(teacher, ceiling, np.arange(6), samples=100)
    assert found.wrong_overlap == 2 / 4 and found.ceiling_errors_shared == 2 / 3
    assert np.isnan(shared_errors(teacher, np.abs(teacher), np.arange(6),
                                  samples=100).ceiling_errors_shared)


def test_the_table_has_a_row_a_cell_with_its_pgr():
    rng = np.random.default_rng(5)
    ids = np.array([f"{i:016x}" for i in range(N)])
    pairs = EvalPairs("demo", "people", "test", ids, np.arange(N), np.ones(N), np.ones(N))
    runs = [RunScores(role, name, 2, teacher, method, seed, ids, level + rng.standard_normal(N))
            for seed in (0, 1, 2) for role, name, teacher, method, level in (
                ("teacher", "demo-L2", "", "", 0.3), ("ceiling", "demo-L4", "", "", 1.0),
                ("ceiling", "demo-L8", "", "", 1.4), ("student", "demo-L4", "demo-L2", "soft", 0.6),
                ("student", "demo-L8", "demo-L2", "soft", 0.8),
                ("student", "demo-L8", "demo-L2", "other", 0.8))]
    config = EvalConfig(bootstrap_samples=200)
    table = shared_errors_table(runs, pairs, config)
    assert list(table.columns) == SHARED_COLUMNS and table.student.tolist() == ["demo-L4",
                                                                                "demo-L8"]
    pgr = pgr_table(runs, pairs, config).query("method == 'soft' and teacher != 'all'")
    for column in ("gain", "gap_low", "pgr", "pgr_high"):
        assert table[column].tolist() == pgr[column].tolist()
    assert (table.capa_low < table.capa).all() and (table.capa < table.capa_high).all()
