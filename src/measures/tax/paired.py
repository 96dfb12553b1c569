"""The base and the tuned model on the same texts or questions: each with its interval, and the
difference of the two, for which the same texts are drawn.

    nats a token     sum of -log P(token | the window so far) / tokens that are foretold
    bits a byte      the same / log 2 / bytes of UTF-8 that these tokens stand for
"""

from dataclasses import dataclass

import numpy as np

from src.measures.bootstrap import Interval, interval, resampled_means

SAMPLES = 10_000
LEVEL = 0.95
NATS, BITS = "nats per token", "bits per byte"


@dataclass(frozen=True)
class Compared:
    """One measure of base and tuned model."""

    data: str
    measure: str
    n: int
    """Windows, or questions."""
    base: Interval
    tuned: Interval
    difference: Interval
    """tuned - base."""
    chance: float = float("nan")
    """What guessing gives; NaN where there is no such thing."""


def compared(data: str, measure: str, base: np.ndarray, tuned: np.ndarray,
             units: np.ndarray | None = None, chance: float = float("nan"),
             samples: int = SAMPLES, level: float = LEVEL) -> Compared:
    """Sums of `base` and `tuned` (n,) over the sum of `units` (n,), with percentile intervals over
    the n texts. Without units, means."""
    units = np.ones(len(base)) if units is None else units
    parts = np.stack([base, tuned, units]).astype(np.float64)
    means = resampled_means(parts, np.arange(len(base)), samples=samples)
    before, after = (means[:, place] / means[:, 2] for place in range(2))
    own = [float(part.sum() / units.sum()) for part in parts[:2]]
    return Compared(data, measure, len(base), interval(own[0], before, level),
                    interval(own[1], after, level),
                    interval(own[1] - own[0], after - before, level), chance)


def language_tax(data: str, base: np.ndarray, tuned: np.ndarray, tokens: np.ndarray,
                 bytes_: np.ndarray) -> list[Compared]:
    """Nats a token and bits a byte from each window's nats (n,), tokens (n,) and bytes (n,)."""
    return [compared(data, NATS, base, tuned, tokens),
            compared(data, BITS, base / np.log(2), tuned / np.log(2), bytes_)]
