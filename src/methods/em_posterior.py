"""An EM posterior over the true label, from how the teacher errs and from what the base knows.

The automated-researcher write-up of 2026 names the parts and has no code: a channel P(weak label |
truth, x) whose true- and false-positive rates are sigmoids of features, a prior from the base's own
margins, and 2 rounds. It is Dawid & Skene's (1979) model of one rater, whose errors depend on x.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from configs.field_types import Number
from src.methods.label_treatments import TREATMENTS
from src.methods.linear_probe import fit, out_of_fold, scaled
from src.methods.log_odds import log_odds, sigmoid, temperature

ROUNDS = 2
CHANNEL_STRENGTH = 1.0
"""See `fit`: three coefficients are hardly held back by it."""


@TREATMENTS.add("em_posterior")
def em_posterior(label: np.ndarray, features: np.ndarray, prompt: np.ndarray, seed: int,
                 confidence: Annotated[Number, Field(gt=0.5, lt=1)] = 0.73) -> np.ndarray:
    """P(t = +1 | y, x), where t = +1 if left is truly better, else -1, and y = +1 where the teacher
    says left, else -1:

        prior       P(t = +1 | x) = sigmoid(m(x))
        channel     P(y = t | t, x) = sigmoid(a . s(x))
        posterior   log-odds m(x) + y a . s(x)

    s is what does not change with the sides: 1, the teacher's |log-odds| and the norm of x. The
    false-positive rate is 1 - the true-positive rate, for a teacher that errs more often for left
    cannot be, where left is picked by a hash; so swapped sides swap the posterior and nothing else.

    m is the margin of an out-of-fold probe of the base's features. Of what the base could say
    without a human label, this asks for no further forward, and has a sign and a size, which a
    principal component has not. The probe is fitted on the teacher's labels at first, then on the
    last posterior, never on that of the pair's own prompt. Where x tells how the teacher errs, it
    errs alike. The first posterior takes the teacher's log-odds for the channel, with the mean
    confidence that `calibrated` gives them, and for its reason. A round fits channel and prior to
    the posterior, and takes the posterior anew.
    """
    said, margin = np.sign(label - 0.5), log_odds(label)
    x, _ = scaled(features)
    same = _unswapped(np.stack([np.abs(margin), np.linalg.norm(x, axis=1)], axis=1))
    told = margin / temperature(margin, confidence)
    prior, _ = out_of_fold(features, label, prompt, seed)
    for _ in range(ROUNDS):
        posterior = sigmoid(prior + told)
        told = said * (same @ channel(said, same, posterior))
        prior, _ = out_of_fold(features, posterior, prompt, seed)
    return sigmoid(prior + told)


def channel(said: np.ndarray, same: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """a (p,): how often the teacher is right, from what it said (n,) in {-1, 0, 1}, s (n, p) and
    P(t = +1) (n,); of what it did not decide, half is right."""
    right = (1 + said * (2 * posterior - 1)) / 2
    return fit(same, right, CHANNEL_STRENGTH)


def _unswapped(sizes: np.ndarray) -> np.ndarray:
    """s (n, 1 + p): 1, and standardised columns, which may be shifted as no sign tells sides."""
    spread = sizes.std(axis=0)
    sizes = (sizes - sizes.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    return np.column_stack([np.ones(len(sizes)), sizes])
