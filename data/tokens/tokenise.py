"""pairs/<split>.parquet -> tokens/<key>/<split>/part-*.arrow, in parallel and resumable.

One part file for each row group, written to a temporary name and renamed when whole. A part's name
holds the hash of the pair ids in it, so a finished part is recognised and kept after a kill and a
stale one never is. Knows no splits' meaning and no models.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.tokens.formatting import load_tokenizer
from data.tokens.pair_ids import WIDTH, Ids, PairEncoder
from data.tokens.tokenised import SCHEMA, read_part
from src.common.errors import UserError
from src.common.files import atomic_path
from src.common.hashing import content_hash

PARTS_PER_WORKER = 2
"""Fewer parts than this for each worker are as fast without."""


@dataclass(frozen=True)
class Job:
    """One part file to write."""

    pairs: Path
    row_group: int
    part: Path
    left_length: int | None
    """Cut prompts on the left so that prompt plus the longer answer have at most this length."""


def tokenise_split(pairs: Path, folder: Path, tokenizer_path: str, chat_template: str,
                   left_length: int | None, num_proc: int) -> list[Path]:
    """Write the missing part files of one split.

    Returns:
        The part files in the order of the pairs. Other part files of the folder are removed.
    """
    jobs = list(_plan(pairs, folder, left_length))
    missing = [job for job in jobs if not _is_whole(job.part)]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit=" parts", delay=1,
               desc=f"tokenise {pairs.stem}")
    with bar:
        for _ in _run(missing, tokenizer_path, chat_template, num_proc):
            bar.update()
    wanted = {job.part for job in jobs}
    for path in folder.glob("part-*.arrow"):
        if path not in wanted:
            path.unlink()
    return [job.part for job in jobs]


def write_part(job: Job) -> None:
    """Tokenise one row group; a pair that the chat template refuses gets three empty lists."""
    with pq.ParquetFile(job.pairs) as file:
        rows = file.read_row_group(job.row_group, ["pair_id", "prompt_id", "prompt", "chosen",
                                                   "rejected"])
    encoder: PairEncoder = _worker["encoder"]
    encoded = encoder.encode(*(rows[name].to_pylist() for name in ("prompt", "chosen", "rejected")))
    if job.left_length is not None:
        encoded = [encoder.cut_left(ids, job.left_length) for ids in encoded]
    columns = [rows[name].combine_chunks() for name in ("pair_id", "prompt_id")]
    columns += [_id_lists(column) for column in zip(*encoded, strict=True)]
    with atomic_path(job.part) as partial, pa.OSFile(str(partial), "wb") as sink, \
            pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


def _id_lists(column: Sequence[Ids]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, column)]) // WIDTH
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()),
                                    pa.array(np.frombuffer(b"".join(column), np.int32)))


_worker: dict = {}
"""The encoder of this process, loaded once."""


def _start_worker(tokenizer_path: str, chat_template: str, parent: int | None = None) -> None:
    if parent is not None:  # one thread each, and none inherited from before the fork
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker["encoder"] = PairEncoder(load_tokenizer(tokenizer_path, chat_template))
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave when the command is killed: a pool's worker would wait for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(jobs: list[Job], tokenizer_path: str, chat_template: str,
         num_proc: int) -> Iterator[None]:
    """Do the jobs, yielding after each."""
    workers = min(num_proc, len(jobs) // PARTS_PER_WORKER)
    if workers <= 1:
        if jobs:
            _start_worker(tokenizer_path, chat_template)
        for job in jobs:
            write_part(job)
            yield
        return
    with ProcessPoolExecutor(workers, get_context("fork"), _start_worker,
                             (tokenizer_path, chat_template, os.getpid())) as pool:
        futures = [pool.submit(write_part, job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool as error:
            raise UserError("a tokenising process was killed, perhaps for lack of memory: run the "
                            f"same command with --num_proc {max(workers // 2, 1)}; finished parts "
                            "are kept") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _plan(pairs: Path, folder: Path, left_length: int | None) -> Iterator[Job]:
    """A job for every row group of the pairs file that has pairs: there were files with others."""
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(pairs) as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, ["pair_id"])["pair_id"].to_pylist()
            if ids:
                name = f"part-{group:05d}-{content_hash([left_length, ids], 8)}.arrow"
                yield Job(pairs, group, folder / name, left_length)


def _is_whole(part: Path) -> bool:
    try:
        read_part(part)
    except (OSError, pa.ArrowException):
        return False
    return True
