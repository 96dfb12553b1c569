import numpy as np
import pytest
from scipy.stats import norm

from src.common.errors import UserError
from src.measures.pgr import Cell, gaps_recovered

PAIRS_PER_PROMPT = 4


def simulate(rng, accuracies, seeds, prompts, seed_sd, shared=(0.2, 0.3, 0.1, 0.15)):
    """Correctness of weak, student and ceiling by a probit model with known accuracies.

    The unit variance of the latent score is shared out to: the prompt and the pair (all models
    alike), the prompt and the pair under one model, the seed, and pair x seed. `seed_sd` is the
    standard deviation that the seed gives to an accuracy.
    """
    prompt, pair, own_prompt, own_pair = (np.sqrt(part) for part in shared)
    common = (prompt * rng.standard_normal((prompts, 1))
              + pair * rng.standard_normal((prompts, PAIRS_PER_PROMPT)))
    parts = []
    for accuracy in accuracies:
        mean = norm.ppf(accuracy)
        seed_part = seed_sd / norm.pdf(mean)
        latent = (mean + common + own_prompt * rng.standard_normal((prompts, 1))
                  + own_pair * rng.standard_normal((prompts, PAIRS_PER_PROMPT))
                  + seed_part * rng.standard_normal((seeds, 1, 1))
                  + np.sqrt(1 - sum(shared) - seed_part**2)
                  * rng.standard_normal((seeds, prompts, PAIRS_PER_PROMPT)))
        parts.append((latent > 0).reshape(seeds, -1).astype(float))
    return Cell(*parts)


def prompt_ids(prompts):
    return np.repeat(np.arange(prompts), PAIRS_PER_PROMPT)


def recovered(cells, prompts=100, floor=0.03, samples=1000, seed=0):
    return gaps_recovered([cells], prompt_ids(prompts), floor=floor, samples=samples, seed=seed)[0]


NO_MAIN_EFFECT = (0.02, 0.02, 0.02, 0.02)


@pytest.mark.parametrize("seeds, seed_sd, prompts, gap, pgr, shared", [
    (1, 0.0, 300, 0.15, 0.0, (0.2, 0.3, 0.1, 0.15)),
    (3, 0.0, 300, 0.15, 0.5, (0.2, 0.3, 0.1, 0.15)),
    (3, 0.01, 300, 0.2, 0.3, NO_MAIN_EFFECT),
    (3, 0.01, 300, 0.2, 1.0, (0.2, 0.3, 0.1, 0.15)),
    (3, 0.02, 300, 0.3, 0.3, (0.2, 0.3, 0.1, 0.15)),
    (5, 0.01, 300, 0.2, 0.0, (0.2, 0.3, 0.1, 0.15)),
    (5, 0.02, 300, 0.3, 0.7, NO_MAIN_EFFECT),
])
def test_nominal_95_intervals_cover_92_to_98(seeds, seed_sd, prompts, gap, pgr, shared):
    rng = np.random.default_rng(seeds)
    trials, batches, weak = 1000, 10, 0.6
    covered = []
    for batch in range(batches):
        groups = [[simulate(rng, (weak, weak + pgr * gap, weak + gap), seeds, prompts, seed_sd,
                            shared)] for _ in range(trials // batches)]
        for found in gaps_recovered(groups, prompt_ids(prompts), floor=0.03, samples=1000,
                                    seed=batch):
            if found.pgr is not None:
                covered.append([figure.low <= truth <= figure.high for figure, truth in
                                ((found.gain, pgr * gap), (found.gap, gap), (found.pgr, pgr))])
    assert len(covered) > 0.95 * trials  # else coverage is that of the lucky trials
    coverage = np.mean(covered, axis=0)
    assert ((coverage >= 0.92) & (coverage <= 0.98)).all(), coverage


def test_pgr_is_the_ratio_of_gain_to_gap():
    cell = simulate(np.random.default_rng(0), (0.55, 0.7, 0.85), 3, 300, 0.01)
    found = recovered([cell], 300)
    assert found.status == "ok"
    assert found.gain.estimate == pytest.approx(cell.student.mean() - cell.weak.mean())
    assert found.gap.estimate == pytest.approx(cell.ceiling.mean() - cell.weak.mean())
    assert found.pgr.estimate == pytest.approx(found.gain.estimate / found.gap.estimate)
    assert found.pgr.low < found.pgr.estimate < found.pgr.high


def test_one_seed_gives_fieller_s_interval():
    """Against Fieller's quadratic with cluster-robust variances."""
    prompts = 1000
    cell = simulate(np.random.default_rng(3), (0.6, 0.7, 0.8), 1, prompts, 0.0)
    found = recovered([cell], prompts, samples=10_000)
    differences = np.stack([cell.student[0] - cell.weak[0], cell.ceiling[0] - cell.weak[0]])
    gain, gap = differences.mean(axis=1)
    sums = (differences - [[gain], [gap]]).reshape(2, prompts, -1).sum(axis=2)
    covariance = sums @ sums.T / differences.shape[1] ** 2
    z = norm.ppf(0.975) ** 2
    low, high = np.sort(np.roots([gap**2 - z * covariance[1, 1],
                                  -2 * (gain * gap - z * covariance[0, 1]),
                                  gain**2 - z * covariance[0, 0]]))
    np.testing.assert_allclose([found.pgr.low, found.pgr.high], [low, high],
                               atol=0.04 * (high - low))


def test_nothing_is_clipped():
    worse = simulate(np.random.default_rng(0), (0.6, 0.5, 0.8), 3, 300, 0.0)
    assert recovered([worse], 300).pgr.estimate < -0.2
    better = simulate(np.random.default_rng(0), (0.6, 0.9, 0.8), 3, 300, 0.0)
    assert recovered([better], 300).pgr.estimate > 1.2


@pytest.mark.parametrize("accuracies, floor", [
    ((0.7, 0.72, 0.705), 0.0),   # the gap is noise
    ((0.8, 0.75, 0.6), 0.0),     # the ceiling is below the teacher
    ((0.6, 0.7, 0.8), 0.25),     # the gap is there, below the floor
])
def test_a_gap_that_carries_no_ratio_is_undefined(accuracies, floor):
    cell = simulate(np.random.default_rng(0), accuracies, 3, 100, 0.0)
    found = recovered([cell], floor=floor)
    assert found.status == "undefined" and found.pgr is None
    assert found.gain.low < found.gain.estimate < found.gain.high


def test_one_prompt_is_undefined():
    ones, zeros = np.ones((1, 4)), np.zeros((1, 4))
    found = recovered([Cell(zeros, ones, ones)], prompts=1)
    assert found.status == "undefined" and np.isnan(found.gap.low)


def test_seed_noise_widens_and_copied_seeds_do_not():
    rng = np.random.default_rng(0)
    one = simulate(rng, (0.6, 0.7, 0.8), 1, 300, 0.0)
    copied = Cell(*(np.repeat(part, 3, axis=0) for part in (one.weak, one.student, one.ceiling)))
    assert recovered([copied], 300).gap == recovered([one], 300).gap
    noisy = simulate(rng, (0.6, 0.7, 0.8), 3, 300, 0.03)
    calm = simulate(rng, (0.6, 0.7, 0.8), 3, 300, 0.0)
    width = [found.gap.high - found.gap.low
             for found in (recovered([noisy], 300), recovered([calm], 300))]
    assert width[0] > 2 * width[1]


def test_an_aggregate_is_the_ratio_of_sums():
    rng = np.random.default_rng(0)
    wide = simulate(rng, (0.55, 0.6, 0.85), 3, 200, 0.0)
    narrow = simulate(rng, (0.7, 0.71, 0.705), 3, 200, 0.0)
    parts = [recovered([cell], 200) for cell in (wide, narrow)]
    found = recovered([wide, narrow], 200)
    assert parts[1].status == "undefined"  # and it still enters the sums
    assert found.pgr.estimate == pytest.approx(sum(part.gain.estimate for part in parts)
                                               / sum(part.gap.estimate for part in parts))
    assert found.gap.estimate == pytest.approx(np.mean([part.gap.estimate for part in parts]))


def test_a_group_gets_the_same_result_alone_and_among_others():
    rng = np.random.default_rng(0)
    first, second = (simulate(rng, (0.6, 0.7, 0.8), 3, 100, 0.01) for _ in range(2))
    together = gaps_recovered([[first], [second]], prompt_ids(100), floor=0.03, samples=500)
    assert together[1] == recovered([second], samples=500)
    assert gaps_recovered([], prompt_ids(100), floor=0.03) == []


def test_scores_of_other_pairs_or_seeds_are_refused():
    with pytest.raises(UserError, match="same test pairs"):
        Cell(np.ones((3, 10)), np.ones((3, 10)), np.ones((3, 9)))
    cell = Cell(np.ones((3, 10)), np.ones((3, 10)), np.ones((3, 10)))
    with pytest.raises(UserError, match="the same seeds and pairs"):
        recovered([cell], prompts=4)
