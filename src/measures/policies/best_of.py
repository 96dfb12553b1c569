"""Best of n: the reward of the answer that a reward model picks among n, for every n at once.

With N answers to a prompt in the order of what the picking model gives them, lowest first, the
picked one of n drawn without replacement is the one of rank r with probability

    C(r - 1, n - 1) / C(N, n)

so that its expectation under any other model needs no drawing, and uses all N answers.
"""

from collections.abc import Sequence
from math import comb, log

import numpy as np


def expected_best(picking: np.ndarray, values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The expected value of the answer that is picked among so many.

    Args:
        picking: (..., N) rewards that pick; of equal ones the later answer counts as higher.
        values: (..., N), of the same answers.
        sizes: each at most N.
    Returns:
        (sizes, ...)
    """
    order = np.argsort(picking, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=-1)
    total = picking.shape[-1]
    odds = np.array([[comb(rank, size - 1) / comb(total, size) for rank in range(total)]
                     for size in sizes])  # (sizes, N)
    return np.moveaxis(ranked @ odds.T, -1, 0)


def best_of_kl(size: int) -> float:
    """At most so many nats lie between the best of `size` answers and the policy that gave them:
    log n - (n - 1) / n (Beirami et al. 2024, arXiv 2401.01879)."""
    return log(size) - (size - 1) / size


def picked(picking: np.ndarray) -> np.ndarray:
    """(...,): the place of the answer that is picked among all N of `picking` (..., N)."""
    return np.argsort(picking, axis=-1, kind="stable")[..., -1]
