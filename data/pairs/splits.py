"""Which split a pair belongs to: duplicates out, grouped by prompt, assigned by hash.

Arrays of ids in, one code per pair out. The result depends on the ids, the config's sizes and its
seed alone: not on the order of the rows, the machine, or any random state. Knows no texts.

Functions that sort pairs out write codes of REASONS into `reason`, an (n,) int8 array with -1 for
pairs that are still wanted.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import DataConfig
from data.records import SPLITS

TRAIN = "train"
"""A file of a config's `files` under this name is halved into train_1 and train_2."""

DUPLICATE = "duplicate"
CONTRADICTORY = "contradictory duplicate"
FRACTION = "outside fraction"
TRAIN_PAIRS = "beyond train_pairs"
PER_PROMPT = "beyond pairs_per_prompt"
EARLIER = "prompt of an earlier source"
BENCHMARK = "prompt overlaps a benchmark"
NEAR_TEST = "prompt overlaps test"
LENGTH = "surplus of longer or shorter winners"
OVERLAP = "prompt also in {}"
REASONS = (DUPLICATE, CONTRADICTORY, FRACTION, TRAIN_PAIRS,
           *(OVERLAP.format(name) for name in SPLITS), PER_PROMPT, EARLIER, BENCHMARK, NEAR_TEST,
           LENGTH)
UNUSED = (FRACTION, TRAIN_PAIRS, PER_PROMPT, LENGTH)
"""Pairs that are sound but were not asked for: counted, not listed."""

_PRIORITY = ("test", "val", "train_2", "train_1")


@dataclass(frozen=True)
class PairIndex:
    """What splitting needs to know of n pairs."""

    pair: np.ndarray
    """(n,) uint64: pair ids."""
    prompt: np.ndarray
    """(n,) uint64: prompt ids."""
    chosen_first: np.ndarray
    """(n,) bool: whether chosen sorts before rejected, that is which way the preference goes."""
    group: np.ndarray
    """(n,) of the file's split name, one of SPLITS or `train`; empty strings where the pairs are
    split here."""
    source: np.ndarray
    """(n,) uint16: which of a mixture's sources, in their order; zeros elsewhere."""
    longer: np.ndarray
    """(n,) int8: 1 where chosen has more characters, -1 where rejected has, 0 for as many."""


@dataclass(frozen=True)
class Assignment:
    """Where each of n pairs goes."""

    split: np.ndarray
    """(n,) int8: index into SPLITS, -1 for none."""
    reason: np.ndarray
    """(n,) int8: index into REASONS where split is -1, otherwise -1."""
    order: np.ndarray
    """(n,) uint64: hash of the prompt; pairs are stored in this order."""


def id_to_int(hex_id: str) -> int:
    """A 16-digit id as the integer a PairIndex holds."""
    return int(hex_id, 16)


def id_hashes(ids: np.ndarray, salt: str) -> np.ndarray:
    """(n,) uint64: hash of (salt, id), equal for equal ids.

    An id's hash is a fair draw from [0, 2^64) that any machine repeats.
    """
    unique, inverse = np.unique(ids, return_inverse=True)
    digests = (hashlib.sha256(f"{salt}:{each:016x}".encode()).digest()[:8]
               for each in unique.tolist())
    return np.fromiter((int.from_bytes(d, "big") for d in digests), np.uint64,
                       len(unique))[inverse]


def rank_in_group(draw: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """(n,) 0, 1, 2, ...: each item's place among those with the same `keys`, by rising `draw`."""
    order = np.lexsort((draw, *keys))
    begins = np.ones(len(order), bool)
    begins[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    starts = np.flatnonzero(begins)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return rank


def assign_splits(index: PairIndex, config: DataConfig, parts: Sequence[DataConfig] = (),
                  clean: Callable[[np.ndarray, np.ndarray], None] | None = None) -> Assignment:
    """Assign every pair to a split, or give the reason why it has none.

    One file: test, then val, are filled prompt by prompt in the order of a hash of (seed, prompt);
    the rest is halved into train_1 and train_2. Several files: each is its split, and a prompt that
    stands in several stays only in the first of test, val, train_2, train_1.

    Args:
        parts: the config of each of a mixture's sources.
        clean: takes pairs out of the splits, given Assignment's `split` and `reason`, before
            training is cut to train_pairs.
    """
    order = id_hashes(index.prompt, f"split:{config.seed}")
    split = np.full(len(order), -1, np.int8)
    reason = np.full(len(order), -1, np.int8)
    draw = id_hashes(index.prompt, f"fraction:{config.seed}") / 2.0**64
    reason[draw > config.fraction] = REASONS.index(FRACTION)
    mark_duplicates(index, reason)
    mark_surplus(index, [part.compare.pairs_per_prompt for part in parts or [config]], reason)
    mark_earlier(index, reason)
    if (index.group == "").all():
        _split_one(order, config, split, reason)
    else:
        _split_files(index, order, config, split, reason)
    if clean:
        clean(split, reason)
    _cap_training(index, order, config, split, reason)
    return Assignment(split, reason, order)


def _split_one(order: np.ndarray, config: DataConfig, split: np.ndarray,
               reason: np.ndarray) -> None:
    total = int((reason == -1).sum())
    val_pairs = min(config.val_pairs, total // 20)
    spare = total - val_pairs - 2 * config.train_pairs if config.train_pairs else 0
    _fill(order, "test", min(config.test_pairs, max(total // 4, spare)), split, reason)
    _fill(order, "val", val_pairs, split, reason)
    _halve(order, split, reason)


def _split_files(index: PairIndex, order: np.ndarray, config: DataConfig, split: np.ndarray,
                 reason: np.ndarray) -> None:
    """Keep each prompt in the first of test, val, train_2, train_1 that has it."""
    names = [name for name in (*_PRIORITY, TRAIN) if (index.group == name).any()]
    for position, name in enumerate(names):
        rows = (index.group == name) & (reason == -1)
        for winner in names[:position]:
            taken = np.isin(index.prompt, index.prompt[(index.group == winner) & (reason == -1)])
            lost = rows & taken & (reason == -1)
            reason[lost] = REASONS.index(OVERLAP.format(winner))
        if name != TRAIN:
            split[rows & (reason == -1)] = SPLITS.index(name)
    source_of_val = TRAIN if TRAIN in names else "train_2"
    if "val" not in names and config.val_pairs and source_of_val in names:
        rows = (index.group == source_of_val) & (reason == -1)
        split[rows] = -1
        _fill(order, "val", min(config.val_pairs, int(rows.sum()) // 20), split,
              np.where(rows, reason, 0))
        if source_of_val == "train_2":
            split[rows & (split == -1)] = SPLITS.index("train_2")
    if TRAIN in names:
        _halve(order, split, np.where(index.group == TRAIN, reason, 0))


def _halve(order: np.ndarray, split: np.ndarray, reason: np.ndarray) -> None:
    """What is left goes to train_1 until it has half of the pairs, then to train_2."""
    left = int(((split == -1) & (reason == -1)).sum())
    _fill(order, "train_1", left // 2, split, reason)
    split[(split == -1) & (reason == -1)] = SPLITS.index("train_2")


def _fill(order: np.ndarray, name: str, wanted: int, split: np.ndarray,
          reason: np.ndarray) -> None:
    """Give free pairs to split `name`, whole prompts in hash order, until it has `wanted`."""
    free = np.flatnonzero((split == -1) & (reason == -1))
    if wanted <= 0 or not len(free):
        return
    hashes, counts = np.unique(order[free], return_counts=True)
    before = np.cumsum(counts) - counts
    taken = hashes[before < wanted]
    split[free[order[free] <= taken[-1]]] = SPLITS.index(name)


def _cap_training(index: PairIndex, order: np.ndarray, config: DataConfig, split: np.ndarray,
                  reason: np.ndarray) -> None:
    """Cut train_1 and train_2 to train_pairs, in hash order: smaller budgets are nested."""
    if config.train_pairs is None:
        return
    for name in ("train_1", "train_2"):
        rows = np.flatnonzero(split == SPLITS.index(name))
        ranked = rows[np.lexsort((index.pair[rows], order[rows]))]
        surplus = ranked[config.train_pairs:]
        split[surplus] = -1
        reason[surplus] = REASONS.index(TRAIN_PAIRS)


def mark_duplicates(index: PairIndex, reason: np.ndarray) -> None:
    """Pairs of the same file and source that are copies or contradict each other.

    Of copies the first row stays. Where the same two answers are preferred both ways, all rows go:
    which of them came first is no evidence.
    """
    for group in np.unique(index.group):
        for source in np.unique(index.source):
            rows = np.flatnonzero((index.group == group) & (index.source == source)
                                  & (reason == -1))
            _, first, inverse = np.unique(index.pair[rows], return_index=True, return_inverse=True)
            ways = np.zeros((len(first), 2), bool)
            ways[inverse, index.chosen_first[rows].astype(int)] = True
            copies = np.ones(len(rows), bool)
            copies[first] = False
            reason[rows[copies]] = REASONS.index(DUPLICATE)
            reason[rows[ways.all(axis=1)[inverse]]] = REASONS.index(CONTRADICTORY)


def mark_surplus(index: PairIndex, limits: Sequence[int | None], reason: np.ndarray) -> None:
    """Pairs of a prompt beyond the limit of their source, in the order of a hash of the pair.

    Args:
        limits: of each source; None for none. Smaller limits keep a part of what larger ones keep.
    """
    for source, limit in enumerate(limits):
        if limit is None:
            continue
        rows = np.flatnonzero((index.source == source) & (reason == -1))
        _, group = np.unique(index.group[rows], return_inverse=True)
        rank = rank_in_group(id_hashes(index.pair[rows], "pairs_per_prompt"), index.prompt[rows],
                             group)
        reason[rows[rank >= limit]] = REASONS.index(PER_PROMPT)


def mark_earlier(index: PairIndex, reason: np.ndarray) -> None:
    """Pairs of a mixture whose prompt an earlier source has as well: it stays with the first."""
    rows = np.flatnonzero(reason == -1)
    _, inverse = np.unique(index.prompt[rows], return_inverse=True)
    first = np.full(inverse.max(initial=-1) + 1, np.iinfo(index.source.dtype).max,
                    index.source.dtype)
    np.minimum.at(first, inverse, index.source[rows])
    reason[rows[index.source[rows] > first[inverse]]] = REASONS.index(EARLIER)
