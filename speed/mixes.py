"""Pairs to measure on: random token ids whose lengths follow a named mix, or real token ids.

A mix is a mean length of prompts, a mean length of responses, and how many responses a prompt has,
all of whose pairs are trained on. Lengths are log-normal with the same two spreads everywhere. No
figure here was tuned for a result: they were set once, before anything was measured. Ratios are
those of public preference data (UltraFeedback 0.6, HH 2, TL;DR 11), a pair is about as long as in
HH (median 186), and the spreads are below those that were counted in HH (the logarithms' standard
deviation is 0.9 for responses) and in UltraFeedback (1.3 for prompts, 1.5 for responses).
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import pyarrow as pa

from data.tokens.tokenised import IDS, SCHEMA, TokenisedSplit, open_split
from src.common.errors import UserError
from src.common.hashing import content_hash

PROMPT_SPREAD = 0.7
RESPONSE_SPREAD = 0.8
SHORTEST = 2
"""Tokens that every prompt and response has at least."""
PROMPT_WORDS, RESPONSE_WORDS, VOCABULARY = 100, 120, 30_000
PAIRS_OF_PROMPT, PROMPTS_AT_ONCE = 2, 500
"""Of a raw file: words in a text, kinds of words; pairs of a prompt, prompts written at a time."""

Row = dict[str, str | list[int]]
"""A pair: pair_id, prompt_id, prompt_ids, chosen_ids, rejected_ids."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Mix:
    """A distribution of lengths; `ratio` is prompt tokens / tokens of one response."""

    name: str
    prompt: float
    """Mean tokens of a prompt."""
    response: float
    """Mean tokens of a response."""
    responses: int = 2
    """Distinct responses to each prompt; every pair of them is a pair to train on."""

    @property
    def ratio(self) -> float:
        return self.prompt / self.response

    @property
    def pairs_of_prompt(self) -> int:
        return self.responses * (self.responses - 1) // 2

    def scaled(self, factor: float) -> "Mix":
        """The same mix with everything `factor` times as long."""
        return replace(self, prompt=self.prompt * factor, response=self.response * factor)


MIXES = {mix.name: mix for mix in (
    Mix("short_prompt", prompt=60, response=100),
    Mix("multi_turn", prompt=120, response=60),
    Mix("long_context", prompt=240, response=30),
    Mix("four_responses", prompt=60, response=100, responses=4),
)}


def draw(mix: Mix, pairs: int, seed: int, vocab: int) -> list[Row]:
    """Pairs of a mix, those of a prompt one after the other; ids in [1, vocab - 1): the last id is
    for padding.

    Raises:
        UserError: `pairs` is not a whole number of prompts.
    """
    if pairs <= 0 or pairs % mix.pairs_of_prompt:
        raise UserError(f"--pairs {pairs}: {mix.name} has {mix.pairs_of_prompt} pairs to a prompt; "
                        "choose a multiple of that above 0")
    rng = np.random.default_rng(seed)
    prompts = pairs // mix.pairs_of_prompt
    prompt_lengths = lengths(mix.prompt, PROMPT_SPREAD, prompts, rng)
    response_lengths = lengths(mix.response, RESPONSE_SPREAD, prompts * mix.responses, rng)
    rows = []
    for number, length in enumerate(prompt_lengths):
        prompt = rng.integers(1, vocab - 1, length).tolist()
        first = number * mix.responses
        responses = [[1 + k, *rng.integers(1, vocab - 1, n - 1).tolist()]  # distinct by their start
                     for k, n in enumerate(response_lengths[first : first + mix.responses])]
        for i, j in itertools.combinations(rng.permutation(mix.responses), 2):
            rows.append({"pair_id": content_hash([mix.name, seed, number, int(i), int(j)]),
                         "prompt_id": content_hash([mix.name, seed, number]),
                         "prompt_ids": prompt, "chosen_ids": responses[i],
                         "rejected_ids": responses[j]})
    return rows


def lengths(mean: float, spread: float, count: int, rng: np.random.Generator) -> list[int]:
    """`count` lengths at evenly spaced quantiles of a log-normal, in random order: few of them have
    the shape of many. `spread` is the standard deviation of the logarithm."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    values = np.exp(spread * np.asarray(quantiles))
    values *= mean / values.mean()
    return np.maximum(rng.permutation(values).round(), SHORTEST).astype(int).tolist()


def read_rows(data_dir: Path, name: str, pairs: int, seed: int, vocab: int) -> list[Row]:
    """`pairs` pairs of a prepared data set's train_1, prompts picked by the seed, ids folded into
    the benchmark's vocabulary.

    Raises:
        UserError: not prepared, or too few pairs.
    """
    folder = data_dir / name
    if not (folder / "manifest.json").is_file():
        raise UserError(f"--data {name}: no prepared data in {folder}: run `python "
                        f"data/preprocess.py --data {name}` with a --tokenizer_name first")
    tokenizers = json.loads((folder / "manifest.json").read_text())["tokenizers"]
    if not tokenizers:
        raise UserError(f"--data {name}: prepared for no tokenizer: run `python data/preprocess.py "
                        f"--data {name} --tokenizer_name MODEL_FOLDER` first")
    split = open_split(folder, min(tokenizers), "train_1")
    if len(split) < pairs:
        raise UserError(f"--pairs {pairs}: {name} has {len(split)} training pairs; choose fewer")
    _, group = np.unique(split.prompt_ids, return_inverse=True)
    order = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    rows = split.rows(np.argsort(order, kind="stable")[:pairs])
    return [{**row, **{key: [1 + i % (vocab - 2) for i in row[key]] for key in IDS}}
            for row in rows]


def rounds_of(rows: list[Row], rounds: int) -> list[list[Row]]:
    """The rows in `rounds` equal parts, in their order."""
    size = len(rows) // rounds
    return [rows[number * size : (number + 1) * size] for number in range(rounds)]


def grouped_rounds(rows: list[Item], rounds: int, size: int,
                   length: Callable[[Item], int]) -> list[list[Item]]:
    """The same rows for one that batches by length: sorted and cut into batches of `size`, longest
    first, each of which goes to the round with the least so far that has room."""
    longest = sorted(rows, key=length, reverse=True)
    parts: list[list[Item]] = [[] for _ in range(rounds)]
    widths, room = [0] * rounds, math.ceil(len(rows) / rounds)
    for start in range(0, len(longest), size):
        open_rounds = (k for k in range(rounds) if len(parts[k]) < room)
        least = min(open_rounds, key=lambda k: widths[k])
        parts[least] += longest[start : start + size]
        widths[least] += length(longest[start])
    return parts


def longer_side(row: Row) -> int:
    """Tokens of the prompt and the longer response: what a padded batch is as wide as."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def write_split(rows: list[Row], path: Path) -> TokenisedSplit:
    """The rows as a part file of the project's own format, opened."""
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
    return TokenisedSplit([path], data_hash=content_hash([row["pair_id"] for row in rows]))


def write_raw_rows(path: Path, pairs: int, seed: int) -> None:
    """`pairs` rows of chosen and rejected message lists."""
    rng = np.random.default_rng(seed)
    vocabulary = [_word(rng) for _ in range(VOCABULARY)]
    weights = 1 / np.arange(1, VOCABULARY + 1)
    bounds = np.cumsum(weights / weights.sum())
    with path.open("w") as file:
        for start in range(0, pairs // PAIRS_OF_PROMPT, PROMPTS_AT_ONCE):
            count = min(PROMPTS_AT_ONCE, pairs // PAIRS_OF_PROMPT - start)
            prompts = _texts(lengths(PROMPT_WORDS, PROMPT_SPREAD, count, rng), vocabulary, bounds,
                             rng)
            answers = iter(_texts(lengths(RESPONSE_WORDS, RESPONSE_SPREAD,
                                          2 * PAIRS_OF_PROMPT * count, rng), vocabulary, bounds,
                                  rng))
            for prompt in prompts:
                for _ in range(PAIRS_OF_PROMPT):
                    row = {side: [{"role": "user", "content": prompt},
                                  {"role": "assistant", "content": next(answers)}]
                           for side in ("chosen", "rejected")}
                    file.write(json.dumps(row) + "\n")


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9)))


def _texts(counts: list[int], vocabulary: list[str], bounds: np.ndarray,
           rng: np.random.Generator) -> Iterator[str]:
    """Texts of so many words each."""
    words = iter(np.searchsorted(bounds, rng.random(sum(counts)) * bounds[-1]).tolist())
    for count in counts:
        yield " ".join(vocabulary[next(words)] for _ in range(count))
