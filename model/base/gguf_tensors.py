"""The tensors of a GGUF file in the names, order and values of a Hugging Face checkpoint.

llama.cpp's converter renames every tensor, and changes some values: a Llama's query and key rows
are put in another order, a Gemma's norms are stored plus one. Here that is undone.
"""

import re
from collections.abc import Iterator

import gguf
import numpy as np

from model.base.gguf_file import REMEDY, GgufFile, head_dim
from src.common.errors import UserError

TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
IN_LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
NORMS_IN_LAYER = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
               "post_attention_norm": "post_attention_layernorm",
               "ffn_norm": "pre_feedforward_layernorm",
               "post_ffw_norm": "post_feedforward_layernorm"}}
"""`general.architecture` -> what the norms of its layers are called."""
BLOCK_VALUES = 1 << 24
"""Of a tensor that are in memory at a time: 64 MiB."""


def tensor_shapes(file: GgufFile) -> dict[str, tuple[int, ...]]:
    """Name in the checkpoint -> shape, in the file's order.

    Raises:
        UserError: a tensor that no model of this family has.
    """
    return {_name_of(file, tensor.name): tuple(int(size) for size in reversed(tensor.shape))
            for tensor in file.reader.tensors}


def tensor_blocks(file: GgufFile) -> Iterator[np.ndarray]:
    """The float32 values of all tensors in the file's order; those of a large one in several
    blocks of rows.

    Raises:
        UserError: a quantisation that the package gguf does not read; NaN or infinite numbers.
    """
    width = head_dim(file)
    for tensor in file.reader.tensors:
        name = _name_of(file, tensor.name)
        rows = max(1, BLOCK_VALUES // int(tensor.shape[0]) // width) * width
        if tensor.data.ndim == 1:
            rows = len(tensor.data)
        for start in range(0, len(tensor.data), rows):
            values = _dequantised(file, tensor, tensor.data[start:start + rows])
            if not np.isfinite(values).all():
                raise UserError(f"{file.path}: {tensor.name} holds NaN or infinite numbers: the "
                                "file is damaged; fetch it again")
            yield _as_trained(file, name, values, width)


def _dequantised(file: GgufFile, tensor: gguf.ReaderTensor, block: np.ndarray) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):  # what comes out is looked at
            return gguf.dequantize(block, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError:
        raise UserError(f"{file.path}: {tensor.name} is stored as {tensor.tensor_type.name}, which "
                        f"the package gguf does not dequantise; {REMEDY}") from None


def _as_trained(file: GgufFile, name: str, values: np.ndarray, width: int) -> np.ndarray:
    """The values that transformers' model computes with."""
    if file.architecture == "gemma3":
        return values - np.float32(1) if name.endswith("norm.weight") else values
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    # rows of a head: pairs that rotate together stand side by side there, half a head apart here
    pairs = values.reshape(-1, width // 2, 2, values.shape[1])  # (heads, pairs, 2, d)
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _name_of(file: GgufFile, name: str) -> str:
    stem, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer is None:
        place = TENSORS.get(stem)
    else:
        part = {**IN_LAYER, **NORMS_IN_LAYER[file.architecture]}.get(layer[2])
        place = part and f"model.layers.{layer[1]}.{part}"
    if place is None or kind != "weight":
        raise UserError(f"{file.path}: holds the tensor {name}, which is not read here, and "
                        f"without which the model would be another one; {REMEDY}")
    return f"{place}.weight"
