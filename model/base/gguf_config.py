"""The config.json of the model in a GGUF file: the same bytes under any version of transformers.

transformers' own reading of the metadata ends in whatever defaults its version has, and a run's
identity holds the hash of this file.
"""

from typing import Any

from model.base.gguf_file import REMEDY, GgufFile, head_dim
from src.common.errors import UserError

GEMMA_3_PERIOD = 6
"""The sixth, twelfth ... layer of a Gemma 3 sees everything, the others a window. No file says so,
and llama.cpp and transformers both take it for granted."""


def model_config(file: GgufFile) -> dict[str, Any]:
    """What config.json says.

    Raises:
        UserError: a setting is missing.
    """
    heads, hidden = file.setting("attention.head_count"), file.setting("embedding_length")
    width = head_dim(file)
    theta = file.setting("rope.freq_base", 10000.0)
    common = {
        "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": file.get("tokenizer.ggml.bos_token_id"), "dtype": "float32",
        "eos_token_id": file.get("tokenizer.ggml.eos_token_id"), "head_dim": width,
        "hidden_size": hidden, "initializer_range": 0.02,
        "intermediate_size": file.setting("feed_forward_length"),
        "max_position_embeddings": file.setting("context_length"), "num_attention_heads": heads,
        "num_hidden_layers": _layers(file),
        "num_key_value_heads": file.setting("attention.head_count_kv", heads),
        "pad_token_id": file.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": file.setting("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in {t.name for t in file.reader.tensors},
        "use_cache": True, "vocab_size": _vocabulary_size(file)}
    own = (_gemma_3 if file.architecture == "gemma3" else _llama)(file, width, theta)
    return dict(sorted({**common, **own}.items()))


def _llama(file: GgufFile, width: int, theta: float) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "mlp_bias": False,
            "model_type": "llama", "rope_parameters": {"rope_theta": theta, "rope_type": "default"}}


def _gemma_3(file: GgufFile, width: int, theta: float) -> dict[str, Any]:
    types = ["full_attention" if (i + 1) % GEMMA_3_PERIOD == 0 else "sliding_attention"
             for i in range(_layers(file))]
    return {"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None,
            "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": types, "model_type": "gemma3_text", "query_pre_attn_scalar": width,
            "rope_parameters": {
                "full_attention": {"rope_theta": theta, "rope_type": "default"},
                "sliding_attention": {"rope_theta": file.setting("rope.freq_base_swa", 10000.0),
                                      "rope_type": "default"}},
            "sliding_window": file.setting("attention.sliding_window"),
            "use_bidirectional_attention": False}


def _layers(file: GgufFile) -> int:
    layers, found = file.setting("block_count"), len(file.reader.tensors)
    if layers > found:  # billions, in a damaged file
        raise UserError(f"{file.path}: says that it has {layers} layers, but holds {found} tensors "
                        "in all: fetch it again")
    return layers


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
