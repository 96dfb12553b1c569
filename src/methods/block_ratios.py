"""Ratios of blocks from one free number a block: what adaptive averaging learns. With a fixed mean:

    a_k = low + (high - low) sigmoid(s_k + c)      c such that sum m_k a_k is the mean

Equal numbers give equal ratios, every ratio lies between low and high, and the mean is exact, none
of which holds of the published form (arXiv 2309.06256, eq. 11 and its code):

    a_k = mean * K (sigmoid(s_k) + eps) / sum_j (sigmoid(s_j) + eps)
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from src.common.errors import UserError

HALVINGS = 80
WIDEST = 60.0
"""Beyond which a sigmoid in fp64 is 0 or 1."""
MOST_POINTS = 2_000


def bounded(scores: Tensor, counted: Tensor, mean: float, low: float = 0.0,
            high: float = 1.0) -> Tensor:
    """(K,) float64 ratios, differentiable: of c the gradient is that of the implicit function.

    Args:
        scores: (K,) float64.
        counted: (K,) what each block counts in the mean; they sum to 1.
        mean: between low and high.
    """
    with torch.no_grad():
        below = -WIDEST - scores.max()
        above = WIDEST - scores.min()
        for _ in range(HALVINGS):
            middle = (below + above) / 2
            too_much = _mean(scores + middle, counted, low, high) > mean
            below, above = (below, middle) if too_much else (middle, above)
        shift = (below + above) / 2
        sigmoids = torch.sigmoid(scores + shift)
        slope = (high - low) * (counted * sigmoids * (1 - sigmoids)).sum()
    # its value is `shift`, its gradient that of Newton's step from there
    exact = shift - (_mean(scores + shift, counted, low, high) - mean) / slope.clamp(min=1e-12)
    shift = shift + (exact - exact.detach())
    return low + (high - low) * torch.sigmoid(scores + shift)


def free(scores: Tensor, start: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(K,) float64 ratios of any mean: `start`, between low and high, where the scores are 0."""
    share = (start - low) / (high - low)
    return low + (high - low) * torch.sigmoid(scores + math.log(share / (1 - share)))


def _mean(scores: Tensor, counted: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * (counted * torch.sigmoid(scores)).sum()


def published(scores: Tensor, mean: float, eps: float) -> Tensor:
    """(K,) float64 ratios of the published form, in which every block counts as much as another."""
    sigmoids = torch.sigmoid(scores) + eps
    return mean * len(scores) * sigmoids / sigmoids.sum()


def require_published(blocks: int, mean: float, eps: float) -> None:
    """UserError where the published form can leave 0 to 1, and so extrapolate."""
    highest = mean * blocks * (1 + eps) / (1 + eps + (blocks - 1) * eps)
    if highest > 1:
        raise UserError(f"form published: at a mean of {mean} over {blocks} blocks with eps {eps} "
                        f"a ratio may be {highest:.3f}, above 1: raise eps or lower the mean")


def grid(counted: np.ndarray, mean: float, low: float, high: float, steps: int) -> np.ndarray:
    """(m, K) every ratio from low to high in `steps` steps of all blocks but the last, which gets
    what the mean leaves; points where that is not between low and high are left out. The first one
    is uniform.

    Raises:
        UserError: more than MOST_POINTS.
    """
    points = lattice(len(counted) - 1, low, high, steps)
    last = (mean - points @ counted[:-1]) / counted[-1]
    fits = (last >= low - 1e-12) & (last <= high + 1e-12)
    found = np.column_stack([points, last])[fits].clip(low, high)
    return np.vstack([np.full(len(counted), mean), found])


def lattice(blocks: int, low: float, high: float, steps: int) -> np.ndarray:
    """(m, K) every ratio from low to high in `steps` steps, of every block.

    Raises:
        UserError: more than MOST_POINTS.
    """
    if (steps + 1) ** blocks > MOST_POINTS:
        raise UserError(f"a grid of {steps} steps along {blocks} blocks has "
                        f"{(steps + 1) ** blocks:,} points, more than {MOST_POINTS:,}: take fewer "
                        "blocks or solver gradient")
    points = list(itertools.product(np.linspace(low, high, steps + 1), repeat=blocks))
    return np.array(points).reshape(-1, blocks)
