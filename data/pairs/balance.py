"""In every split as many pairs where the longer answer wins as pairs where it loses.

Human judges often prefer what is longer. A rule that knows lengths alone is then right in half of
the pairs that have one, and what a model knows beyond length is what it is measured by. The pairs
that go depend on ids, lengths and splits alone: not on the order of the rows. Knows no texts.
"""

import numpy as np

from data.pairs.splits import LENGTH, REASONS, Assignment, PairIndex, id_hashes, rank_in_group
from data.records import SPLITS


def drop_surplus_of_length(index: PairIndex, assignment: Assignment) -> None:
    """Take the surplus out of every split of `assignment`, which is changed."""
    for code in range(len(SPLITS)):
        rows = np.flatnonzero(assignment.split == code)
        gone = rows[surplus(index.longer[rows], index.prompt[rows], index.pair[rows])]
        assignment.split[gone] = -1
        assignment.reason[gone] = REASONS.index(LENGTH)


def surplus(longer: np.ndarray, prompt: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Positions of those of n pairs without which both kinds are as many.

    They go from prompts that have a surplus of their own: there each pair of the rarer kind keeps
    one of the other, and which of the rest go, a hash of their ids says. So every prompt comes as
    near to balance as it can, and where all have the same kind in surplus, each is balanced.

    Args:
        longer: (n,) 1 where the chosen answer is longer, -1 where the rejected one is, else 0.
        prompt, pair: (n,) uint64: ids.
    """
    kind = int(np.sign(longer.sum(dtype=np.int64)))
    rows = np.flatnonzero(longer == kind)
    draw = id_hashes(pair[rows], "balance length")
    _, number = np.unique(prompt, return_inverse=True)
    rarer = np.bincount(number[longer == -kind], minlength=len(prompt))
    spare = rank_in_group(draw, prompt[rows]) >= rarer[number[rows]]
    rows, draw = rows[spare], draw[spare]
    return rows[np.argsort(draw, kind="stable")][:abs(int(longer.sum(dtype=np.int64)))]
