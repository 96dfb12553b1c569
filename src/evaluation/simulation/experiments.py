"""Made experiments whose every accuracy is known, to try intervals on.

An experiment is teachers x students, each student beside its ceiling, on `PAIRS` test pairs.
A run is right about a pair where a latent score is above 0 (a probit model):

    mean of the run + noise of (run, seed) + noise of pair + of (run, pair) + of (run, seed, pair)

with variances `SHARES` of the last three, which sum to 1: given a seed's noise b, accuracy is
Phi(mean + b), and the mean is solved for the accuracy that is wanted over seeds. A student shares
`FOLLOWS` of its seed's noise, and of its (run, pair) noise, with its teacher of that seed.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student_t

from src.measures.intervals import KeyedCell
from src.measures.pgr import Cell

SHARES = (0.45, 0.25, 0.3)
FOLLOWS = 0.5
PAIRS, WEAKEST = 1500, 0.62
TAIL_FREEDOM = 3
"""Of the t that seeds' noise follows where tails are heavy; scaled to the wanted SD."""


@dataclass(frozen=True)
class Scenario:
    """One kind of experiment."""

    name: str
    seeds: int
    teachers: int = 3
    students: int = 3
    gap: float = 0.12
    """Accuracy of the first ceiling above the first teacher; each later teacher is `gap` / 8 and
    each later ceiling `gap` / 4 above the one before."""
    pgr: float = 0.4
    seed_sd: float = 0.017
    """What seeds do to accuracy."""
    spread: float = 1.0
    """How many times `seed_sd` the noisiest run's SD is, and the inverse for the calmest run."""
    heavy: bool = False

    @property
    def accuracies(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of teachers (T,), of students (T, K) and of ceilings (K,)."""
        weak = WEAKEST + self.gap / 8 * np.arange(self.teachers)
        ceiling = WEAKEST + self.gap * (1 + np.arange(self.students) / 4)
        gaps = ceiling[None] - weak[:, None]
        return weak, weak[:, None] + self.pgr * gaps, ceiling


def scenarios() -> list[Scenario]:
    """All of them, at 3 and at 5 seeds."""
    return [Scenario(name, seeds, **options) for seeds in (3, 5) for name, options in {
        "no seed noise": {"seed_sd": 0.0},
        "equal, SD 0.85": {"seed_sd": 0.0085},
        "equal, SD 1.7": {},
        "unequal, factor 2": {"spread": 2.0},
        "unequal, factor 4": {"spread": 4.0},
        "heavy tails": {"heavy": True},
        "small gaps": {"gap": 0.04, "seed_sd": 0.0085},
        "one teacher": {"teachers": 1, "students": 6},
        "one ceiling": {"teachers": 6, "students": 1},
        "two cells": {"teachers": 1, "students": 2},
    }.items()]


class World:
    """A scenario with its means solved for, which experiments are drawn from."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        weak, student, ceiling = scenario.accuracies
        self.wanted = np.concatenate([weak, ceiling, student.ravel()])
        spread = scenario.spread ** np.linspace(-1, 1, len(self.wanted))
        order = np.random.default_rng(7).permutation(len(self.wanted))  # not by role or depth
        self.latent_sd = scenario.seed_sd * spread[order] / norm.pdf(norm.ppf(self.wanted))
        self.means = np.array([self._mean(*parts) for parts in
                               zip(self.wanted, self.latent_sd, strict=True)])

    def _mean(self, accuracy: float, sd: float) -> float:
        """The latent mean that gives `accuracy` over seeds, by quadrature over their noise."""
        places = (np.arange(4000) + 0.5) / 4000
        noise = sd * self._unit(places)
        return float(brentq(lambda mean: norm.cdf(mean + noise).mean() - accuracy, -5, 5))

    def _unit(self, places: np.ndarray) -> np.ndarray:
        """Seeds' noise of variance 1 from uniform numbers."""
        if not self.scenario.heavy:
            return norm.ppf(places)
        return student_t.ppf(places, TAIL_FREEDOM) * np.sqrt((TAIL_FREEDOM - 2) / TAIL_FREEDOM)

    def draw(self, rng: np.random.Generator) -> list[KeyedCell]:
        """One experiment: its cells, teacher by teacher."""
        teachers, students = self.scenario.teachers, self.scenario.students
        runs, seeds = len(self.wanted), self.scenario.seeds
        taught_by = np.repeat(np.arange(teachers), students)
        first = teachers + students
        mix = np.sqrt([FOLLOWS, 1 - FOLLOWS])
        noise = self._unit(rng.random((runs, seeds)))
        own = rng.standard_normal((runs, PAIRS), dtype=np.float32)
        for part in (noise, own):
            part[first:] = mix[0] * part[taught_by] + mix[1] * part[first:]
        pair, run_pair, rest = np.sqrt(SHARES).astype(np.float32)
        latent = rest * rng.standard_normal((runs, seeds, PAIRS), dtype=np.float32)
        latent += (pair * rng.standard_normal(PAIRS, dtype=np.float32) + run_pair * own)[:, None]
        latent += (self.means[:, None] + self.latent_sd[:, None] * noise).astype(np.float32)[
            :, :, None]
        right = (latent > 0).astype(np.float64)  # (runs, S, n)
        return [KeyedCell(f"t{i}", f"c{k}", Cell(
            right[i], right[first + i * students + k], right[teachers + k]))
            for i in range(teachers) for k in range(students)]

    def truth(self) -> np.ndarray:
        """Gain, gap and PGR (rows, 3): of each cell, then of all together."""
        weak, student, ceiling = self.scenario.accuracies
        gain, gap = (student - weak[:, None]).ravel(), (ceiling - weak[:, None]).ravel()
        gain, gap = np.append(gain, gain.mean()), np.append(gap, gap.mean())
        return np.stack([gain, gap, gain / gap], axis=1)
