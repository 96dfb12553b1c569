"""What a GGUF file holds, in the names, order and values of a Hugging Face checkpoint.

llama.cpp's converter renames every tensor, and changes some values: a Llama's query and key rows
are put in another order, a Gemma's norms are stored plus one. Here that is undone. Knows nothing of
tokenizers, and writes nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from src.common.errors import UserError, reading

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
"""`general.architecture` of every supported file -> what its norms are called."""
SETTINGS = ("context_length embedding_length block_count feed_forward_length attention.head_count "
            "attention.head_count_kv attention.layer_norm_rms_epsilon attention.key_length "
            "attention.value_length rope.freq_base rope.dimension_count vocab_size "
            "attention.sliding_window").split()
"""Of an architecture; with any other (scaled positions, experts) the model would be another one."""
GEMMA_3_PERIOD = 6
"""The sixth, twelfth ... layer of a Gemma 3 sees everything, the others a window. No file says so,
and llama.cpp and transformers both take it for granted."""
BLOCK_VALUES = 1 << 24
"""Of a tensor that are in memory at a time: 64 MiB."""
REMEDY = "name the hub's checkpoint, or another GGUF file"


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
        if isinstance(found, bool) or not isinstance(found, int | float) or not found > 0:
            raise UserError(f"{self.path}: {self.architecture}.{name} is {found}, where a number "
                            f"above 0 was expected; {REMEDY}")
        # the shortest decimal of a float32: 1e-06, not 9.999999974752427e-07
        return float(str(np.float32(found))) if isinstance(found, float) else found

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
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = str(field.contents()) if field is not None else "nothing"
    if architecture not in NORMS_IN_LAYER:
        raise UserError(f"{path}: GGUF of the architecture {architecture}, which is not read here: "
                        f"expected one of {', '.join(NORMS_IN_LAYER)}; {REMEDY}")
    known = {f"{architecture}.{name}" for name in SETTINGS}
    strange = [key for key in reader.fields if key.startswith(f"{architecture}.")
               and key not in known]
    if strange:
        raise UserError(f"{path}: has the setting {strange[0]}, which is not read here, and "
                        f"without which the model would be another one; {REMEDY}")
    return GgufFile(path, reader, architecture)


def model_config(file: GgufFile) -> dict[str, Any]:
    """What config.json says: the same keys and bytes whatever version of transformers is there.

    Raises:
        UserError: a setting is missing.
    """
    heads, hidden = file.setting("attention.head_count"), file.setting("embedding_length")
    head_dim = _head_dim(file)
    theta = file.setting("rope.freq_base", 10000.0)
    common = {
        "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": file.get("tokenizer.ggml.bos_token_id"), "dtype": "float32",
        "eos_token_id": file.get("tokenizer.ggml.eos_token_id"), "head_dim": head_dim,
        "hidden_size": hidden, "initializer_range": 0.02,
        "intermediate_size": file.setting("feed_forward_length"),
        "max_position_embeddings": file.setting("context_length"), "num_attention_heads": heads,
        "num_hidden_layers": file.setting("block_count"),
        "num_key_value_heads": file.setting("attention.head_count_kv", heads),
        "pad_token_id": file.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": file.setting("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in {t.name for t in file.reader.tensors},
        "use_cache": True, "vocab_size": _vocabulary_size(file)}
    own = (_gemma_3 if file.architecture == "gemma3" else _llama)(file, head_dim, theta)
    return dict(sorted({**common, **own}.items()))


def _head_dim(file: GgufFile) -> int:
    width = file.setting("embedding_length") // file.setting("attention.head_count")
    return file.setting("attention.key_length", file.setting("rope.dimension_count", width))


def _llama(file: GgufFile, head_dim: int, theta: float) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "mlp_bias": False,
            "model_type": "llama", "rope_parameters": {"rope_theta": theta, "rope_type": "default"}}


def _gemma_3(file: GgufFile, head_dim: int, theta: float) -> dict[str, Any]:
    types = ["full_attention" if (i + 1) % GEMMA_3_PERIOD == 0 else "sliding_attention"
             for i in range(file.setting("block_count"))]
    return {"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None,
            "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": types, "model_type": "gemma3_text", "query_pre_attn_scalar": head_dim,
            "rope_parameters": {
                "full_attention": {"rope_theta": theta, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}},
            "sliding_window": file.setting("attention.sliding_window"),
            "use_bidirectional_attention": False}


def _vocabulary_size(file: GgufFile) -> int:
    """Rows of the embedding; UserError unless the tokenizer has as many tokens."""
    rows = [int(tensor.shape[-1]) for tensor in file.reader.tensors
            if tensor.name == "token_embd.weight"]
    field = file.reader.get_field("tokenizer.ggml.tokens")
    tokens = 0 if field is None else len(field.data)
    if rows != [tokens]:
        raise UserError(f"{file.path}: its tokenizer has {tokens} tokens, but its embedding "
                        f"{rows[0] if rows else 0} rows: the two are not of one model; {REMEDY}")
    return tokens


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
    head_dim = _head_dim(file)
    for tensor in file.reader.tensors:
        name = _name_of(file, tensor.name)
        rows = max(1, BLOCK_VALUES // int(tensor.shape[0]) // head_dim) * head_dim
        if tensor.data.ndim == 1:
            rows = len(tensor.data)
        for start in range(0, len(tensor.data), rows):
            values = _dequantised(file, tensor, tensor.data[start:start + rows])
            if not np.isfinite(values).all():
                raise UserError(f"{file.path}: {tensor.name} holds NaN or infinite numbers: the "
                                "file is damaged; fetch it again")
            yield _as_trained(file, name, values, head_dim)


def _dequantised(file: GgufFile, tensor: gguf.ReaderTensor, block: np.ndarray) -> np.ndarray:
    try:
        return gguf.dequantize(block, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError:
        raise UserError(f"{file.path}: {tensor.name} is stored as {tensor.tensor_type.name}, which "
                        f"the package gguf does not dequantise; {REMEDY}") from None


def _as_trained(file: GgufFile, name: str, values: np.ndarray, head_dim: int) -> np.ndarray:
    """The values that transformers' model computes with."""
    if file.architecture == "gemma3":
        return values - np.float32(1) if name.endswith("norm.weight") else values
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    # rows of a head: pairs that rotate together stand side by side there, half a head apart here
    pairs = values.reshape(-1, head_dim // 2, 2, values.shape[1])  # (heads, pairs, 2, d)
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
