"""Treatments of several teachers against closed forms; by one teacher they do nothing."""

import numpy as np
import pytest
from scipy.special import expit, logit, xlogy

from configs.schema import MethodConfig
from src.methods.label_treatments import TREATMENTS
from src.methods.labelling import treat

DRAW = np.random.default_rng(0)
LABELS = DRAW.uniform(size=(3, 60))
EARLIER = DRAW.uniform(size=60)
FEATURES = DRAW.standard_normal((60, 4))
SEVERAL = [name for name in TREATMENTS if "labels" in TREATMENTS.asks(name)]


def treated(name, labels=LABELS, earlier=EARLIER, **options):
    given = {"labels": labels, "earlier": earlier, "features": FEATURES[:len(earlier)], "seed": 0,
             "prompt": np.arange(len(earlier))}
    return treat(MethodConfig("m", treatment=name, treatment_options=options), given)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("teachers", [1, 2, 3])
@pytest.mark.parametrize("label", [LABELS[0], np.array([0.0, 1.0, 0.5, 1e-9])], ids=["any", "sure"])
def test_teachers_who_say_the_same_are_one_teacher_bit_for_bit(name, teachers, label):
    found = treated(name, np.stack([label] * teachers), EARLIER[:len(label)])
    assert np.array_equal(found.labels, label)


def test_disagreement_weighs_by_confidence_and_by_the_spread_of_margins():
    margins = logit(LABELS)
    mean = margins.mean(axis=0)
    spread = ((margins - mean) ** 2).mean(axis=0)
    expected = np.tanh(np.abs(mean) / 2) * np.clip(1 - spread / 1.5**2, 0, None)
    found = treated("disagreement", tau=1.5)
    np.testing.assert_allclose(found.labels, expit(mean), atol=1e-12)
    np.testing.assert_allclose(found.weights, expected / expected.mean(), atol=1e-12)
    assert (expected == 0).any() and found.weights.mean() == pytest.approx(1)


def test_without_disagreement_the_weights_are_those_of_confidence_and_without_power_all_one():
    equal = np.stack([LABELS[0]] * 2)
    confidence = treat(MethodConfig("m", treatment="confidence_weights"), {"label": LABELS[0]})
    assert np.array_equal(treated("disagreement", equal).weights, confidence.weights)
    assert treated("disagreement", equal, power=0).weights.tolist() == [1.0] * 60


def test_teachers_who_never_agree_leave_all_pairs_with_one_weight():
    apart = np.stack([np.full(5, 1e-4), np.full(5, 1 - 1e-4)])
    assert treated("disagreement", apart).weights.tolist() == [1.0] * 5


def test_co_supervised_takes_the_teacher_of_the_least_cross_entropy():
    losses = -(xlogy(LABELS, EARLIER) + xlogy(1 - LABELS, 1 - EARLIER))
    chosen = losses.argmin(axis=0)
    found = treated("co_supervised")
    assert np.array_equal(found.labels, LABELS[chosen, np.arange(60)])
    assert found.notes == {f"teacher_{k + 1}_share": np.mean(chosen == k) for k in range(3)}
    assert sum(found.notes.values()) == pytest.approx(1) and min(found.notes.values()) > 0
