"""Attention over trees, by one of three back ends that agree.

    dense    scaled_dot_product_attention with a mask, block by block; any device, any family
    flex     FlexAttention with a block mask; compiled on CUDA, for a few fixed lengths
    varlen   torch.nn.attention.varlen: each response is a sequence of its own whose keys begin with
             the prompt's; CUDA kernel in half precision, elsewhere the same sequences one by one
"""

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from model.attention.dense import dense
from model.attention.flex import LEAST_HEAD_SIZE, can_compile, flex, flex_lengths, warm_up
from model.attention.tree import Layout
from model.attention.varlen import varlen
from src.common.errors import UserError

BACKENDS = ("auto", "dense", "flex", "varlen")


def choose_backend(asked: str, device: torch.device, config: PreTrainedConfig) -> str:
    """The back end for `auto`, or the one asked for, if it can serve a model of this config.

    auto is flex on CUDA, where its heads are wide enough and it can be compiled; else dense.

    Raises:
        UserError: unknown; varlen with soft-capped scores (Gemma 2), which it cannot cap, or with
            scores in fp32 (GPT-Neo), for which it has no kernel; flex with narrow heads.
    """
    if asked not in BACKENDS:
        raise UserError(f"attention {asked!r}: expected one of {', '.join(BACKENDS)}")
    if asked == "varlen" and getattr(config, "attn_logit_softcapping", None) is not None:
        raise UserError("attention varlen: it cannot cap the scores as this model does (Gemma 2); "
                        "choose auto, dense or flex")
    if asked == "varlen" and config.model_type == "gpt_neo":
        raise UserError("attention varlen: its kernel computes in half precision, and GPT-Neo's "
                        "scores are fp32; choose auto, dense or flex")
    if device.type != "cuda":
        return "dense" if asked == "auto" else asked
    wide = head_size(config) >= LEAST_HEAD_SIZE
    if asked == "flex" and not wide:
        raise UserError(f"attention flex: heads of {head_size(config)}, of which its kernel needs "
                        f"{LEAST_HEAD_SIZE}; choose auto or dense")
    if asked == "auto":
        return "flex" if wide and can_compile(device.type) else "dense"
    return asked


def head_size(config: PreTrainedConfig) -> int:
    """The width of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def compile_ahead(model: PreTrainedModel, tokens: int, device: torch.device,
                  dtype: torch.dtype) -> None:
    """Compile what a training with rows of at most `tokens` needs, before its first step; nothing
    where attention is not flex on CUDA.

    Args:
        dtype: of the queries, under autocast that of autocast.
    """
    config = model.config
    if device.type != "cuda" or choose_backend(model.attention, device, config) != "flex":
        return
    if config.model_type == "gpt_neo":
        dtype = torch.float32
    window = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    warm_up(flex_lengths(tokens, device.type), config.num_attention_heads,
            getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            head_size(config), [None, window] if window else [None],
            getattr(config, "attn_logit_softcapping", None), device, dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scaling: float,
           window: int | None = None, softcap: float | None = None,
           last_only: bool = False) -> Tensor:
    """What each query takes from the values that it sees.

    Args:
        query: (B, H, T, D), or with `last_only` (B, H, R, D): those of `layout.last_index` alone.
        key, value: (B, H', T, D); H is a multiple of H'.
        window: see `Layout.sees`.
        softcap: scores s become softcap * tanh(s / softcap); None leaves them.
    Returns:
        (B, T or R, H, D).
    """
    if window is not None and window >= layout.longest:
        window = None
    dtype = value.dtype  # under autocast, rotary positions bring fp32 back for query and key
    # The CPU's kernel takes longer backward in bf16, which autocast would have it in.
    computed = torch.float32 if value.device.type == "cpu" else dtype
    query, key, value = (states.to(computed) for states in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        if last_only or layout.backend == "dense":
            out = dense(query, key, value, layout, scaling, window, softcap, last_only)
        elif layout.backend == "flex":
            out = flex(query, key, value, layout, scaling, window, softcap)
        else:
            out = varlen(query, key, value, layout, scaling, window)
    return out.to(dtype).transpose(1, 2)
