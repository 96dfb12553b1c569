"""Texts that a tokenizer reads as control tokens: `</s>` in a web page ends a turn to Llama 2.

Such texts are kept, as the model would read them in use; how many there are is told.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from data.pairs.pair_files import BATCH

TOKENS_LISTED = 20


def count_control_tokens(paths: list[Path], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """`pairs` whose texts hold control tokens, and `tokens`: the commonest -> pairs that hold it.

    Args:
        paths: files of pairs, each split's.
    """
    controls = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    if not controls or tokenizer.split_special_tokens:
        return {"pairs": 0, "tokens": {}}
    longest_first = sorted(controls, key=len, reverse=True)  # as a tokenizer looks for them
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    pairs, counts = 0, Counter()
    for text in (text for path in paths for text in _texts(path)):
        tokens = set(pattern.findall(text))
        pairs += bool(tokens)
        counts.update(tokens)
    return {"pairs": pairs, "tokens": dict(counts.most_common(TOKENS_LISTED))}


def _texts(path: Path) -> Iterator[str]:
    """All texts of each pair, a pair at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=["prompt", "chosen", "rejected"]):
            for prompt, *answers in zip(*(column.to_pylist() for column in batch), strict=True):
                messages = (message["content"] for message in json.loads(prompt))
                yield "\n".join([*messages, *answers])
