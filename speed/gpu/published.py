"""The shapes of the models that experiments name, as their publishers' config.json has them.

Enough to reckon with where a checkpoint is gated or far away: widths, layers, heads, vocabulary.
"""

import functools


def rotary(family: str, hidden: int, intermediate: int, layers: int, heads: int, keys: int,
           vocab: int, head: int | None = None, positions: int = 8192, **more) -> dict:
    """A config of a family with rotary positions, as AutoConfig.for_model takes it."""
    return {"model_type": family, "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": keys,
            "head_dim": head or hidden // heads, "vocab_size": vocab,
            "max_position_embeddings": positions, **more}


def _gpt2(hidden: int, layers: int, heads: int) -> dict:
    return {"model_type": "gpt2", "n_embd": hidden, "n_layer": layers, "n_head": heads,
            "vocab_size": 50257, "n_positions": 1024}


def _gpt_neo(hidden: int, layers: int, heads: int) -> dict:
    return {"model_type": "gpt_neo", "hidden_size": hidden, "num_layers": layers,
            "num_heads": heads, "attention_types": [[["global", "local"], layers // 2]],
            "vocab_size": 50257, "max_position_embeddings": 2048}


_llama, _mistral, _ministral, _qwen3 = (
    functools.partial(rotary, family) for family in ("llama", "mistral", "ministral", "qwen3"))
_gemma2, _gemma3 = (functools.partial(rotary, family, head=256)
                    for family in ("gemma2", "gemma3_text"))

PUBLISHED = {
    "llama_3_2_1b": _llama(2048, 8192, 16, 32, 8, 128256),
    "llama_3_2_3b": _llama(3072, 8192, 28, 24, 8, 128256),
    "llama_3_1_8b": _llama(4096, 14336, 32, 32, 8, 128256),
    "smollm2_135m": _llama(576, 1536, 30, 9, 3, 49152),
    "gemma_2_2b": _gemma2(2304, 9216, 26, 8, 4, 256000),
    "gemma_2_9b": _gemma2(3584, 14336, 42, 16, 8, 256000),
    "gemma_3_270m": _gemma3(640, 2048, 18, 4, 1, 262144),
    "qwen3_0_6b": _qwen3(1024, 3072, 28, 16, 8, 151936, 128),
    "qwen3_1_7b": _qwen3(2048, 6144, 28, 16, 8, 151936, 128),
    "qwen3_4b": _qwen3(2560, 9728, 36, 32, 8, 151936, 128),
    "qwen3_8b": _qwen3(4096, 12288, 36, 32, 8, 151936, 128),
    "mistral_7b": _mistral(4096, 14336, 32, 32, 8, 32768),
    "mistral_nemo_12b": _mistral(5120, 14336, 40, 32, 8, 131072, 128),
    "ministral_3b": _mistral(4096, 14336, 14, 32, 8, 32000),
    "ministral_4b": _mistral(4096, 14336, 19, 32, 8, 32768),
    "ministral_8b": _ministral(4096, 12288, 36, 32, 8, 131072, 128),
    "gpt2": _gpt2(768, 12, 12),
    "gpt2_medium": _gpt2(1024, 24, 16),
    "gpt2_large": _gpt2(1280, 36, 20),
    "gpt2_xl": _gpt2(1600, 48, 25),
    "gpt_neo_125m": _gpt_neo(768, 12, 12),
    "gpt_neo_1_3b": _gpt_neo(2048, 24, 16),
    "gpt_neo_2_7b": _gpt_neo(2560, 32, 20),
    "demo": _llama(64, 192, 8, 4, 4, 260),
    "demo_generative": _llama(64, 192, 8, 4, 4, 260),
    "chess_small": _llama(64, 192, 6, 4, 4, 1024),
    "hh_small": _llama(64, 192, 6, 4, 4, 4096),
}
"""Name in configs/models -> what AutoConfig.for_model takes."""
