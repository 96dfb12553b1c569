"""A GGUF file as a plain Hugging Face folder: config, fp32 safetensors, tokenizer and a card.

A block of a tensor is in memory at a time. The same file gives the same config.json and
model.safetensors, byte for byte: runs are found by their hash. transformers reads such files too,
but refuses to save what it has read.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from model.base.gguf_config import model_config
from model.base.gguf_file import REMEDY, GgufFile, open_gguf
from model.base.gguf_tensors import tensor_blocks, tensor_shapes
from model.base.gguf_tokenizer import read_tokenizer, save_tokenizer
from src.common.errors import UserError, reading

CARD = """\
---
{facts}
---
# {name}

Dequantised from {quantisation}: the weights are those of a GGUF file, rounded when it was made,
and written out as float32. They are not the original checkpoint's.

- file: {file}, sha256 {sha256}
- from: {origin}
- written by: model/download.py
"""


def convert(path: Path, folder: Path, *, name: str, origin: str, sha256: str, license: str = "",
            base_model: str = "") -> None:
    """Write the checkpoint that `path` holds into `folder`, which exists.

    Args:
        name: of the model, for its card.
        origin: where the file is from, for its card.
        sha256: of the file.
        license: as the hub calls it.
        base_model: the hub's id of the checkpoint that was quantised, where it is known.
    Raises:
        UserError: see open_gguf, tensor_blocks and read_tokenizer; tensors that do not fit the
            settings.
    """
    file = open_gguf(path)
    config = model_config(file)
    tokenizer = read_tokenizer(file)
    _check_shapes(file, config)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(tokenizer, folder)
    facts = {"license": license, "base_model": base_model, "library_name": "transformers"}
    (folder / "README.md").write_text(CARD.format(
        facts="\n".join(f"{key}: {value}" for key, value in facts.items() if value), name=name,
        quantisation=file.quantisation, file=path.name, sha256=sha256, origin=origin),
        encoding="utf-8")
    write_tensors(file, folder / "model.safetensors")


def write_tensors(file: GgufFile, path: Path) -> None:
    """All tensors as a safetensors file of float32, block by block."""
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensor_shapes(file).items():
        end = start + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for values in tensor_blocks(file):
            stream.write(np.ascontiguousarray(values, dtype="<f4").data)


def _check_shapes(file: GgufFile, config: dict) -> None:
    """UserError unless the tensors are exactly those of the model that `config` describes."""
    with reading(file.path, f"its settings describe no model; {REMEDY}"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
              if not (config["tie_word_embeddings"] and name == "lm_head.weight")}
    held = tensor_shapes(file)
    wrong = sorted(name for name in wanted.keys() | held.keys()
                   if wanted.get(name) != held.get(name))
    if wrong:
        raise UserError(f"{file.path}: the shape of {wrong[0]} is {held.get(wrong[0])}, but of the "
                        f"model that its settings describe {wanted.get(wrong[0])}: the file is "
                        "damaged or of another model; fetch it again")
