"""Overlap density: learn from the pairs where the teacher's labels and the student's own features
speak of the same.

The automated-researcher write-up of 2026 names four parts, which are added as z-scores, and has no
code; what each is here stands below. Its idea is that of Shin et al. 2024 (arXiv 2412.03881): what
is learned from weak labels beyond them comes from points where easy and hard features overlap.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from configs.field_types import Count, SomeShare
from src.methods.label_treatments import TREATMENTS, Taught
from src.methods.linear_probe import out_of_fold, scaled
from src.methods.log_odds import largest, sigmoid


@TREATMENTS.add("overlap")
def overlap(label: np.ndarray, features: np.ndarray, prompt: np.ndarray, seed: int,
            keep_share: SomeShare = 0.5, neighbours: Count = 10) -> Taught:
    """The share of pairs with the most overlap density; the others are dropped.

    The write-up balances what is kept over the label's classes. A pair's classes are its sides,
    and each pair that is kept is an example of both, (x, q) and (-x, 1 - q): it is balanced as it
    is, whatever is kept, and would no longer be the same for swapped sides if left were counted.
    """
    return Taught(label, kept=largest(density(label, features, prompt, seed, neighbours),
                                      keep_share))


def density(label: np.ndarray, features: np.ndarray, prompt: np.ndarray, seed: int,
            neighbours: int) -> np.ndarray:
    """(n,): sum of the z-scores of

        confidence      |2 p - 1|, p the probability of an out-of-fold probe of the weak labels
        agreement       of the k nearest pairs' labels with the pair's own: mean of (2 q - 1)(2 q_j
                        - 1) over them
        density         mean cosine of the pair's features to theirs
        middle entropy  -|H(p) - median of H(p)|

    Neighbours are looked for among all pairs and their swapped selves, with -x_j and 1 - q_j.
    """
    margins, _ = out_of_fold(features, label, prompt, seed)
    probability = sigmoid(margins)
    entropy = np.logaddexp(0.0, margins) - probability * margins
    agreement, closeness = _near(label, features, neighbours)
    return sum(map(_z_score, (np.abs(2 * probability - 1), agreement, closeness,
                              -np.abs(entropy - np.median(entropy)))))


def _near(label: np.ndarray, features: np.ndarray,
          neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) and (n,): agreement with the nearest pairs, and mean cosine to them."""
    count = min(neighbours, len(label) - 1)
    if count < 1:
        return np.zeros(len(label)), np.zeros(len(label))
    there, _ = scaled(features)
    sided = np.concatenate([2 * label - 1, 1 - 2 * label])
    search = NearestNeighbors(n_neighbors=count + 1, metric="cosine", algorithm="brute")
    distance, found = search.fit(np.concatenate([there, -there])).kneighbors(there)
    # The pair itself is not its own neighbour; among equal ones it may not come first.
    own = found == np.arange(len(label))[:, None]
    own[~own.any(axis=1), -1] = True
    distance, found = (each[~own].reshape(len(label), count) for each in (distance, found))
    return (sided[:len(label)] * sided[found].mean(axis=1)), 1 - distance.mean(axis=1)


def _z_score(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))
