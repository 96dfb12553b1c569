"""A file of prompts and responses -> a table of rewards, in bounded memory and resumable.

    <out>          file, row, response, id, reward, rank
    <out>.parts/   one part for each 1,000 prompts while the work goes on; removed at the end

A part is written whole or not at all, and holds the hashes of what it was made from: a command that
was killed goes on after its last whole part, and gives the table of one that was not.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata
from tqdm import tqdm

from data.pairs.pair_files import batched
from data.read.answers import Answers
from src.common.errors import UserError
from src.common.files import atomic_path
from src.common.owned import clear
from src.common.table_files import read_table, write_table
from src.scoring.texts import TextScorer

FORMAT = "2"
"""Raise it when the same rows come to give another table."""
CHUNK_PROMPTS = 1_000
SCHEMA = pa.schema([("file", pa.string()), ("row", pa.int64()), ("response", pa.int32()),
                    ("id", pa.string()), ("reward", pa.float32()), ("rank", pa.int32())])
"""row: number of the prompt's row in its file, from 1. response: which of the row's, from 0. id:
the row's own, where it has one. reward: null where there is none. rank: 1 is the best response to
its prompt; equal rewards share a rank."""


@dataclass
class Summary:
    """What became of the rows of a file."""

    prompts: int = 0
    responses: int = 0
    without_reward: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    """Reason -> rows that hold nothing to score."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was left out of rows, or read as something else -> rows."""

    def usable(self, rows: Iterable[tuple[int, Answers | str]]) -> Iterator[Answers]:
        """The rows that can be scored; the others are counted."""
        for _, row in rows:
            if isinstance(row, str):
                self.unusable[row] += 1
                continue
            self.prompts += 1
            self.notes.update(row.notes)
            self.responses += len(row.texts)
            yield row


BEST_KEYS = {"prompt", "response", "reward", "of", "row"}
"""Of a line of the best responses, see write_best; and `id` where the row has one."""


def check_outputs(out: Path, best: Path | None, data: list[Path]) -> None:
    """Raise where a file would be written over that is not an earlier result of ours.

    Args:
        data: the files that are scored.
    """
    for path in filter(None, (out, best)):
        if path.resolve() in data:
            raise UserError(f"{path}: is the data itself: give another name")
    if best is not None and best.resolve() == out.resolve():
        raise UserError(f"--out {out} and --best {best} are one file: give two names")
    if out.exists() and _made_from(out) is None:
        raise UserError(f"--out {out}: exists and holds no scores: give another name")
    if best is not None and best.exists() and not _holds_best(best):
        raise UserError(f"--best {best}: exists and holds no best responses: give another name")


def _holds_best(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline()
        return not line or set(json.loads(line)) - {"id"} == BEST_KEYS
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def score_rows(scorer: TextScorer, rows: Iterable[tuple[int, Answers | str]], data_hash: str,
               out: Path) -> Summary:
    """Score every row into `out`, doing only what is missing.

    Args:
        data_hash: changes with the rows.
    Raises:
        UserError: nothing to score.
    """
    inputs = {"format": FORMAT, "data": data_hash, **scorer.identity}
    parts = out.with_name(f"{out.name}.parts")
    done = _made_from(out) == inputs
    summary, paths = Summary(), []
    with tqdm(desc=out.name, unit=" responses", unit_scale=True, disable=None) as bar:
        for chunk in batched(summary.usable(rows), CHUNK_PROMPTS):
            paths.append(parts / f"part-{len(paths):06d}.parquet")
            if not done and read_table(paths[-1], inputs) is None:
                write_table(paths[-1], _scored(scorer, chunk), inputs)
            bar.update(sum(len(row.texts) for row in chunk))
    if not summary.prompts:
        raise UserError(f"nothing to score: {unusable_text(summary) or 'there are no rows'}; "
                        "expected prompt + responses (a list), prompt + response, messages, or "
                        "chosen + rejected")
    if not done:
        _join(paths, out, inputs)
    clear(parts, ("part-*.parquet", ".part-*.partial"))
    summary.without_reward = sum(batch["reward"].null_count for batch in
                                 pq.ParquetFile(out).iter_batches(columns=["reward"]))
    return summary


def write_best(rows: Iterable[tuple[int, Answers | str]], scores: Path, out: Path) -> int:
    """Best of n: one line of JSON for each prompt, with its best response (the first of equals).

    Args:
        rows: those that `scores` was made from.
    Returns:
        Prompts of which no response has a reward, and which are left out.
    """
    batches = pq.ParquetFile(scores).iter_batches(columns=["reward"])
    rewards = itertools.chain.from_iterable(batch["reward"].to_pylist() for batch in batches)
    empty = 0
    with atomic_path(out) as partial, partial.open("w", encoding="utf-8") as file:
        for row in Summary().usable(rows):
            own = [-np.inf if reward is None else reward
                   for reward in itertools.islice(rewards, len(row.texts))]
            best = int(np.argmax(own))
            if own[best] == -np.inf:
                empty += 1
                continue
            line = {"prompt": list(row.prompt), "response": row.texts[best], "reward": own[best],
                    "of": len(own), "row": row.source}
            line |= {"id": row.row_id} if row.row_id else {}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return empty


def ranks(rewards: np.ndarray) -> np.ndarray:
    """(n,) 1 for the highest reward; equal ones share the better rank. NaN where there is none."""
    return rankdata(-rewards, method="min", nan_policy="omit")


def unusable_text(summary: Summary) -> str:
    """`3 missing key prompt, 1 empty prompt`, or nothing."""
    return ", ".join(f"{count:,} {reason}" for reason, count in summary.unusable.most_common())


def _scored(scorer: TextScorer, rows: list[Answers]) -> pd.DataFrame:
    """The table of some rows."""
    rewards = scorer.rewards([(row.prompt, row.texts) for row in rows], "responses")
    columns: dict[str, list] = {name: [] for name in SCHEMA.names}
    for row, own in zip(rows, rewards, strict=True):
        file, _, number = row.source.rpartition(":")
        for i, (reward, rank) in enumerate(zip(own, ranks(own), strict=True)):
            known = not np.isnan(reward)
            values = (file, int(number), i, row.row_id or None, reward if known else None,
                      int(rank) if known else None)
            for name, value in zip(SCHEMA.names, values, strict=True):
                columns[name].append(value)
    return pa.table(columns, SCHEMA).to_pandas(types_mapper=pd.ArrowDtype)


def _join(paths: list[Path], out: Path, inputs: dict[str, str]) -> None:
    """One file of all parts, a part in memory at a time."""
    schema = SCHEMA.with_metadata({"inputs": json.dumps(inputs)})
    with atomic_path(out) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path, columns=SCHEMA.names).cast(schema))


def _made_from(path: Path) -> dict[str, str] | None:
    """The hashes in a table of scores; None where there is no whole one."""
    try:
        return json.loads((pq.read_schema(path).metadata or {}).get(b"inputs", b"null"))
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return None
