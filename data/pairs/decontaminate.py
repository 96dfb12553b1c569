"""Pairs whose prompts stand, in part, in an evaluation set: found by runs of words, and dropped.

A pair goes when a run of `ngram` words of its prompt is also in a prompt of a named evaluation set.
A prompt with fewer words goes when it is, word for word, a whole prompt there. System messages do
not count: many prompts share them. Texts are read one batch at a time, their runs kept as hashes.
"""

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import DataConfig, load_config
from data.pairs.mixture import parts_of
from data.pairs.pair_files import BATCH, batched
from data.pairs.splits import BENCHMARK, NEAR_TEST, REASONS
from data.read.sources import as_fixture, find_form, open_source, read_answers
from data.records import SPLITS, Message
from src.common.errors import UserError

TEST = SPLITS.index("test")


_PUNCTUATION = re.compile(r"[^\w\s]|_")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no word's hash loses bits on its way through a run."""


def words_of(text: str) -> list[str]:
    """What white space parts, in lower case and without punctuation; the text itself as the only
    word where it has nothing else. A letter and its accent may be one character or two: composed,
    for a mark alone would go as punctuation does."""
    text = unicodedata.normalize("NFC", text)
    return _PUNCTUATION.sub("", text.lower()).split() or [text.strip()]


def run_hashes(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The runs of several texts: `n` words one after the other. A text of fewer words is one run as
    a whole, found only where the whole of another text says the same.

    Returns:
        (m,) uint64 hashes, and (m,) the positions of the texts that they are in.
    """
    words = [words_of(text) for text in texts]
    lengths = np.array([len(each) for each in words], np.int64)
    flat = list(itertools.chain.from_iterable(words))
    by_word = {word: _word_hash(word) for word in set(flat)}
    hashes = np.fromiter(map(by_word.__getitem__, flat), np.uint64, len(flat))
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(len(flat))  # words from here to the text's end
    padded = np.concatenate([hashes, np.zeros(n, np.uint64)])
    runs = np.zeros(len(flat), np.uint64)
    for i in range(n):  # a polynomial in _FACTOR, modulo 2^64
        runs = runs * _FACTOR + np.where(left > i, padded[i:i + len(flat)], np.uint64(0))
    whole = left == np.repeat(lengths, lengths)
    kept = np.flatnonzero((left >= n) | whole)
    return runs[kept], np.repeat(np.arange(len(words)), lengths)[kept]


@lru_cache(1 << 17)
def _word_hash(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class RunSet:
    """The distinct runs of many texts: 8 bytes each, whatever the texts hold."""

    def __init__(self, batches: Iterable[Sequence[str]], n: int):
        """Take the runs of n words from batches of texts, one batch at a time."""
        self._n = n
        self.texts = 0
        parts = []
        for texts in batches:
            self.texts += len(texts)
            parts.append(np.unique(run_hashes(texts, n)[0]))
        self._runs = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._runs)

    def overlaps(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts),) bool: which of the texts share a run with this set."""
        found = np.zeros(len(texts), bool)
        if len(self._runs):
            runs, text = run_hashes(texts, self._n)
            place = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
            found[text[self._runs[place] == runs]] = True
        return found


def read_benchmarks(config: DataConfig) -> dict[str, RunSet]:
    """The runs of every evaluation set that `config` names, itself apart.

    Raises:
        UserError: one of them cannot be read, for example without a network, or has no prompt.
    """
    sets = {}
    for name in config.decontaminate:
        if name == config.name:
            continue
        try:
            benchmark = load_config(DataConfig, name)
            if config.fixture:
                benchmark = as_fixture(benchmark)
            sets[name] = RunSet(batched(_prompts(benchmark)), config.ngram)
        except UserError as error:
            raise UserError(f"data/{config.name}: decontaminate: {name}: {error}. Make it "
                            "readable, or leave it out of decontaminate") from error
    return sets


def drop_overlaps(prompts: pa.ChunkedArray, benchmarks: Mapping[str, RunSet], config: DataConfig,
                  split: np.ndarray, reason: np.ndarray) -> dict[str, dict]:
    """Take out of all splits what overlaps a benchmark, and out of training and val what overlaps
    test: the latter for mixtures, and for a config that names itself in `decontaminate`.

    Args:
        prompts: (n,) JSON texts of message lists.
        split, reason: (n,) of an Assignment; changed here.
    Returns:
        Evaluation set -> {"prompts", "runs", "pairs": split -> count}.
    """
    counts = {}
    if benchmarks:
        counts |= _drop(prompts, split >= 0, benchmarks, BENCHMARK, split, reason)
    if config.sources or config.name in config.decontaminate:
        test = (texts for _, texts, _ in _batches(prompts, split == TEST))
        own = {f"{config.name}: test": RunSet(test, config.ngram)}
        counts |= _drop(prompts, (split >= 0) & (split != TEST), own, NEAR_TEST, split, reason)
    return counts


def _drop(prompts: pa.ChunkedArray, wanted: np.ndarray, sets: Mapping[str, RunSet], why: str,
          split: np.ndarray, reason: np.ndarray) -> dict[str, dict]:
    """Take the `wanted` pairs that overlap any of the sets out of their splits."""
    hits = {name: np.zeros(len(split), bool) for name in sets}
    for rows, texts, text_of_row in _batches(prompts, wanted):
        for name, runs in sets.items():
            hits[name][rows] = runs.overlaps(texts)[text_of_row]
    counts = {name: {"prompts": runs.texts, "runs": len(runs),
                     "pairs": {each: int((hits[name] & (split == code)).sum())
                               for code, each in enumerate(SPLITS)}} for name, runs in sets.items()}
    dropped = np.logical_or.reduce(list(hits.values()))
    split[dropped] = -1
    reason[dropped] = REASONS.index(why)
    return counts


def _batches(prompts: pa.ChunkedArray,
             wanted: np.ndarray) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
    """A batch of the wanted rows at a time: (r,) rows, the t distinct texts of their prompts, and
    (r,) which of these texts each row has."""
    for start in range(0, len(wanted), BATCH):
        rows = start + np.flatnonzero(wanted[start:start + BATCH])
        if len(rows):
            batch = prompts.slice(start, BATCH).take(pa.array(rows - start))
            distinct = pc.dictionary_encode(batch.combine_chunks())
            texts = [_text(json.loads(prompt)) for prompt in distinct.dictionary.to_pylist()]
            yield rows, texts, distinct.indices.to_numpy()


def _prompts(benchmark: DataConfig) -> Iterator[str]:
    """The prompts of an evaluation set: of its test file, where it comes split.

    Raises:
        UserError: a file gives none, with which nothing would overlap.
    """
    for part in parts_of(benchmark):
        test = {"test": part.files["test"]} if "test" in part.files else part.files
        for file in test.values() or [part.path]:
            source = open_source(file, part)
            form, bad, found = find_form(source, part), "", False
            for number, item in read_answers(source, form, part):
                if isinstance(item, str):
                    bad = bad or f" (row {number}: {item})"
                else:
                    found = True
                    yield _text(item.prompt)
            if not found:
                raise UserError(f"{source.name}: no prompt in any of {source.rows_read} rows as "
                                f"form {form}{bad}")


def _text(messages: Iterable[Message]) -> str:
    """What a prompt says, in one text."""
    return "\n".join(message["content"] for message in messages if message["role"] != "system")
