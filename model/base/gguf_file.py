"""A GGUF file as it says what it is: opened, its metadata checked and read. Writes nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from src.common.errors import UserError, reading

SETTINGS = ("context_length embedding_length block_count feed_forward_length attention.head_count "
            "attention.head_count_kv attention.layer_norm_rms_epsilon attention.key_length "
            "attention.value_length rope.freq_base rope.dimension_count vocab_size").split()
OWN_SETTINGS = {"llama": [], "gemma3": ["attention.sliding_window", "rope.freq_base_swa"]}
"""`general.architecture` of every file that is read here -> what else it may set.
With any other (scaled positions, experts, a Llama's window) the model would be another one."""
FRACTIONS = ("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.freq_base_swa")
"""Of these settings; all others are whole numbers."""
REMEDY = "name the hub's checkpoint, or another GGUF file"


class BoundedReader(gguf.GGUFReader):
    """The package's reader, which ends at the end of the file: its own takes a damaged length at
    its word, and reads nothing billions of times."""

    def _get(self, offset: int, dtype: Any, count: int = 1, *order: Any, **named: Any) -> Any:
        if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
            raise ValueError(f"{int(count)} values beyond the end of the file")
        return super()._get(offset, dtype, count, *order, **named)


@dataclass(frozen=True)
class GgufFile:
    """An open file: what it says of itself, and its tensors where they lie on the disk."""

    path: Path
    reader: gguf.GGUFReader
    architecture: str

    def get(self, key: str, default: Any = None) -> Any:
        """The metadata called `key`."""
        field = self.reader.get_field(key)
        with reading(self.path, f"its metadata {key} is damaged: fetch the file again"):
            return default if field is None else field.contents()

    def setting(self, name: str, default: Any = None) -> Any:
        """The architecture's setting, a number above 0; UserError where it is something else, or
        missing without a default."""
        found = self.get(f"{self.architecture}.{name}", default)
        kind = float if name in FRACTIONS else int
        if type(found) is not kind or not 0 < found < float("inf"):
            raise UserError(f"{self.path}: {self.architecture}.{name} is {found}, where a number "
                            f"above 0 was expected; {REMEDY}")
        # the shortest decimal of a float32: 1e-06, not 9.999999974752427e-07
        return float(str(np.float32(found))) if kind is float else found

    @property
    def quantisation(self) -> str:
        """What the weights were rounded to, as llama.cpp calls it: `Q4_K_M`."""
        try:
            return gguf.LlamaFileType(self.get("general.file_type")).name.removeprefix("MOSTLY_")
        except ValueError:  # of files made by hand
            sizes: dict[str, int] = {}
            for tensor in self.reader.tensors:
                kind = tensor.tensor_type.name
                sizes[kind] = sizes.get(kind, 0) + int(tensor.n_elements)
            return max(sizes, key=sizes.__getitem__)


def open_gguf(path: Path) -> GgufFile:
    """The file, its metadata read.

    Raises:
        UserError: no GGUF file, cut short, of a family or with a setting that is not read here.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a GGUF file")
    with reading(path, "no GGUF file, cut short, or of a kind that the package gguf does not know: "
                 f"fetch it again, or {REMEDY}"):
        reader = BoundedReader(path)
        field = reader.get_field("general.architecture")
        architecture = str(field.contents()) if field is not None else "nothing"
    if architecture not in OWN_SETTINGS:
        raise UserError(f"{path}: GGUF of the architecture {architecture}, which is not read here: "
                        f"expected one of {', '.join(OWN_SETTINGS)}; {REMEDY}")
    known = {f"{architecture}.{name}" for name in (*SETTINGS, *OWN_SETTINGS[architecture])}
    strange = [key for key in reader.fields if key.startswith(f"{architecture}.")
               and key not in known]
    if strange:
        raise UserError(f"{path}: has the setting {strange[0]}, which is not read here, and "
                        f"without which the model would be another one; {REMEDY}")
    return GgufFile(path, reader, architecture)


def head_dim(file: GgufFile) -> int:
    """Numbers of a head's query; UserError where positions turn only some of them."""
    width = file.setting("embedding_length") // file.setting("attention.head_count")
    turned = file.setting("rope.dimension_count",
                          file.setting("attention.key_length", width or None))
    width = file.setting("attention.key_length", turned)
    if turned != width or width % 2:
        raise UserError(f"{file.path}: positions turn {turned} of a head's {width} numbers, which "
                        f"is not read here; {REMEDY}")
    return width
