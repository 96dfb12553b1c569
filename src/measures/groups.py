"""Parts of the pairs, and a model's accuracy on each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.measures import metrics
from src.measures.bootstrap import Interval


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on a part of the pairs."""

    name: str
    n: int
    accuracy: Interval


def group_accuracies(margins: np.ndarray, prompt_ids: np.ndarray, index: np.ndarray,
                     names: Sequence[str], *, level: float, samples: int) -> list[GroupAccuracy]:
    """Accuracy of each group, in the order of `names`; a group without pairs is left out.

    Args:
        index: (n,) the group of each pair, a place in `names`; below 0 is in no group.
    """
    groups = []
    for number, name in enumerate(names):
        inside = index == number
        if inside.any():
            accuracy = metrics.accuracies(margins[None, inside], prompt_ids[inside], level=level,
                                          samples=samples)[0]
            groups.append(GroupAccuracy(name, int(inside.sum()), accuracy))
    return groups


def quantile_bins(values: np.ndarray, bins: int = 5) -> tuple[np.ndarray, list[str]]:
    """Sort values into at most `bins` groups of about equal size; equal values are never parted.

    Returns:
        (n,) the bin of each value, -1 where it is NaN, and each bin's name: the least and the
        greatest value in it, `12 to 30`.
    """
    known = np.isfinite(values)
    index = np.full(len(values), -1)
    if not known.any():
        return index, []
    inner = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values[known], inner, method="inverted_cdf"))
    _, index[known] = np.unique(np.searchsorted(edges, values[known]), return_inverse=True)
    names = []
    for number in range(index.max() + 1):
        inside = values[index == number]
        low, high = f"{inside.min():,.6g}", f"{inside.max():,.6g}"
        names.append(low if low == high else f"{low} to {high}")
    return index, names
