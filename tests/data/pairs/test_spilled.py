"""Rows of the work file come back in any order, as often as they are asked for."""

import random

import numpy as np
import pyarrow as pa

from data.pairs.spilled import Spilled


def test_rows_are_those_of_the_file_before_and_after_its_pages_are_let_go(tmp_path):
    texts = [f"text {i} " * (i % 50) for i in range(2_500)]
    table = pa.table({"number": range(2_500), "text": texts})
    with pa.ipc.new_stream(tmp_path / "file.arrow", table.schema) as writer:
        for start in range(0, 2_500, 300):
            writer.write_table(table.slice(start, 300))
    spilled = Spilled(tmp_path / "file.arrow")
    draw = random.Random(0)
    for _ in range(3):
        rows = np.array(draw.sample(range(2_500), 700))
        assert spilled.take(rows).equals(table.take(pa.array(rows)).combine_chunks())
        assert spilled.column("text").to_pylist() == table["text"].to_pylist()
        spilled.let_go()
