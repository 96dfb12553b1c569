"""Tiny GGUF files, written with the package gguf as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
         "max_position_embeddings": 128}
FAMILIES = {"llama": "llama", "gemma3": "gemma3_text"}
"""Architecture of the file -> family of the model."""
SPECIAL = {"llama": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
           "gemma3": ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")}
IDS = {"llama": {"bos": 1, "eos": 2, "unk": 0, "pad": 2},
       "gemma3": {"bos": 2, "eos": 1, "unk": 3, "pad": 0}}
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
MERGES = ["Ġ Ġ", "Ċ Ċ", "Ġ t", "h e", "Ġt he", "i n", "e r", "Ġ 1", "1 2"]
PIECES = ("he", "▁t", "▁the", "in", "er")


def tokens_of(architecture: str) -> tuple[list[str], list[TokenType]]:
    """A small vocabulary that can spell every text: its tokens and their types."""
    special = list(SPECIAL[architecture])
    types = [TokenType.CONTROL] * len(special)
    if architecture == "llama":
        plain = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
        return [*special, *plain], [*types, *[TokenType.NORMAL] * len(plain)]
    runs = [sign * n for sign in "\n \t" for n in range(1 if sign != " " else 2, 32)]
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    plain = [*PIECES, "▁", *"abcdefghijklmnopqrstuvwxyz0123456789.,"]
    return [*special, *runs, *raw, *plain], [
        *types, *[TokenType.USER_DEFINED] * len(runs), *[TokenType.BYTE] * len(raw),
        *[TokenType.NORMAL] * len(plain)]


def tiny_model(architecture: str, **changes) -> torch.nn.Module:
    """A language model with random weights, whose values the file is made of."""
    torch.manual_seed(0)
    own = {"sliding_window": 8, "query_pre_attn_scalar": SHAPE["head_dim"]} if (
        architecture == "gemma3") else {"tie_word_embeddings": True, "rope_parameters": {
            "rope_type": "default", "rope_theta": 100000.0}}
    config = AutoConfig.for_model(FAMILIES[architecture], **SHAPE, **{
        "vocab_size": len(tokens_of(architecture)[0]), **own, **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms begin at 0 or 1, which would hide a mix-up
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def write_gguf(path: Path, architecture: str = "llama", kind: Kind = Kind.F32,
               model: torch.nn.Module | None = None, drop: str = "", settings: dict | None = None,
               tensors: dict | None = None, ids: dict | None = None, pre: str = "smollm") -> Path:
    """Write a whole GGUF file, or one with one thing wrong.

    Args:
        kind: how matrices are stored.
        drop: the tensor, by its name in the file, that is left out.
        settings: further settings of the architecture, or others than the model's.
        tensors: further tensors.
        ids: other special tokens than IDS.
    """
    model = tiny_model(architecture) if model is None else model
    writer = gguf.GGUFWriter(path, architecture)
    _write_settings(writer, architecture, model.config, settings or {})
    _write_tokens(writer, architecture, pre, IDS[architecture] | (ids or {}))
    names = gguf.get_tensor_name_map(writer_arch(architecture), model.config.num_hidden_layers)
    for name, values in model.state_dict().items():
        place = names.get_name(name, try_suffixes=(".weight",))
        if name == "lm_head.weight" and model.config.tie_word_embeddings or place == drop:
            continue
        stored = as_stored(architecture, name, values.numpy(), model.config)
        writer.add_tensor(place, *quantised(stored, kind))
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def writer_arch(architecture: str) -> gguf.MODEL_ARCH:
    return {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]


def as_stored(architecture: str, name: str, values: np.ndarray, config) -> np.ndarray:
    """What llama.cpp's converter makes of a tensor."""
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return values + 1
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def quantised(values: np.ndarray, kind: Kind) -> tuple:
    """(bytes, None, kind) as `add_tensor` takes them; vectors stay float32."""
    if values.ndim == 1 or kind == Kind.F32:
        return (np.ascontiguousarray(values, dtype=np.float32),)
    return gguf.quantize(values, kind), None, kind


def _write_settings(writer: gguf.GGUFWriter, architecture: str, config, changes: dict) -> None:
    own = {"context_length": config.max_position_embeddings,
           "embedding_length": config.hidden_size, "block_count": config.num_hidden_layers,
           "feed_forward_length": config.intermediate_size,
           "attention.head_count": config.num_attention_heads,
           "attention.head_count_kv": config.num_key_value_heads,
           "attention.layer_norm_rms_epsilon": 1e-6, "attention.key_length": config.head_dim,
           "attention.value_length": config.head_dim}
    if architecture == "gemma3":
        own |= {"attention.sliding_window": config.sliding_window, "rope.freq_base": 1e6}
    else:
        own |= {"vocab_size": config.vocab_size, "rope.dimension_count": config.head_dim,
                "rope.freq_base": 1e5}
    for key, value in (own | changes).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        if isinstance(value, str):
            add = writer.add_string
        if value is not None:
            add(f"{architecture}.{key}", value)


def _write_tokens(writer: gguf.GGUFWriter, architecture: str, pre: str, ids: dict) -> None:
    tokens, types = tokens_of(architecture)
    writer.add_tokenizer_model("gpt2" if architecture == "llama" else "llama")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if architecture == "llama":
        writer.add_token_merges(MERGES)
        writer.add_chat_template(TEMPLATE)
    else:
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        writer.add_add_space_prefix(False)
    writer.add_bos_token_id(ids["bos"])
    writer.add_eos_token_id(ids["eos"])
    writer.add_unk_token_id(ids["unk"])
    writer.add_pad_token_id(ids["pad"])
