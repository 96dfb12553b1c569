"""Running text -> windows of equal length, that a language model is asked to foretell."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from src.common.errors import UserError, reading
from src.scoring.texts import Responses


@dataclass(frozen=True)
class Windows:
    """R windows of a text. The first token of each is given, and the others are foretold."""

    texts: Responses
    tokens: np.ndarray
    """(R,) that are foretold."""
    bytes: np.ndarray
    """(R,) of UTF-8 that they stand for: what makes models of different tokenizers comparable."""

    def __len__(self) -> int:
        return len(self.tokens)


def read_windows(path: Path, tokenizer: PreTrainedTokenizerBase, length: int,
                 most: int | None = None) -> Windows:
    """The first `most` windows of a text file, `length` tokens each, side by side; what is left
    over at the end is not used.

    Raises:
        UserError: no such file, no UTF-8, or less text than one window.
    """
    with reading(path, "give a file of UTF-8 text"):
        text = path.read_text(encoding="utf-8")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    count = min(len(ids) // length, most or len(ids))
    if not count:
        raise UserError(f"{path}: {len(ids)} tokens: expected at least one window of {length}; "
                        "give a longer text")
    starts = [number * length for number in range(count)]
    sizes = [len(text[ends[start]:ends[start + length - 1]].encode()) for start in starts]
    texts = Responses([ids[start:start + 1] for start in starts],
                      [ids[start + 1:start + length] for start in starts], [*range(count)])
    return Windows(texts, np.full(count, length - 1), np.array(sizes))
