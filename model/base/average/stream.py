"""Tensors of safetensors files, a few megabytes at a time.

The library maps whole files and writes from whole tensors: of two models whose table of tokens has
a gigabyte, three of these would be in memory at once. The format is a line of JSON with each
tensor's type, shape and place, and then their bytes.
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.base.weights import tensor_files
from src.common.errors import UserError

PIECE = 1 << 22
"""Elements: 16 MiB in fp32."""
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


@dataclass(frozen=True)
class Place:
    """Where a tensor's values lie."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Byte of the file."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def places(folder: Path) -> dict[str, Place]:
    """Tensor name -> its place, of a whole checkpoint, in its files' order.

    Raises:
        UserError: see `tensor_files`; a tensor of whole numbers or of a type below 16 bits.
    """
    files = tensor_files(folder)
    found = {}
    for file in dict.fromkeys(files.values()):
        with file.open("rb") as stream:
            size = struct.unpack("<Q", stream.read(8))[0]
            header = json.loads(stream.read(size))
        for name in (name for name, held in files.items() if held == file):
            facts = header[name]
            if facts["dtype"] not in TYPES:
                raise UserError(f"{file}: {name} is of type {facts['dtype']}, which has no "
                                f"average: expected {', '.join(TYPES)}")
            found[name] = Place(file, TYPES[facts["dtype"]], tuple(facts["shape"]),
                                8 + size + facts["data_offsets"][0])
    return found


def pieces(place: Place) -> Iterator[Tensor]:
    """A tensor's values in its own type, flat, PIECE at a time.

    Raises:
        UserError: NaN or an infinite number among them.
    """
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        for first in range(0, place.elements, PIECE):
            count = min(PIECE, place.elements - first)
            values = torch.from_numpy(np.fromfile(stream, np.uint8, count * place.dtype.itemsize))
            values = values.view(place.dtype)
            if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
                raise UserError(f"{place.file}: holds NaN or infinite numbers, so that its average "
                                "would mean nothing: fetch or train the model again")
            yield values


def write_tensors(path: Path, shapes: dict[str, tuple[int, ...]],
                  values: Iterable[Iterable[Tensor]]) -> None:
    """A safetensors file of float32 tensors that never are in memory.

    Args:
        shapes: of each tensor.
        values: of each, in the same order, its pieces.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in values:
            for piece in tensor:
                stream.write(memoryview(piece.numpy()).cast("B"))
        assert stream.tell() == 8 + len(text) + end, "a tensor was longer or shorter than its shape"
