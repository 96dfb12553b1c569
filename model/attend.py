"""Attention over trees, by one of three back ends that agree.

    dense    scaled_dot_product_attention with a mask, block by block; any device, any family
    flex     FlexAttention with a block mask; compiled on CUDA, for a few fixed lengths
    varlen   torch.nn.attention.varlen: each response is a sequence of its own whose keys begin with
             the prompt's; CUDA kernel in half precision, elsewhere the same sequences one by one
"""

import torch
from torch import Tensor

from configs.errors import UserError
from model.attention_dense import dense
from model.attention_flex import flex
from model.attention_varlen import varlen
from model.tree_attention import Layout

BACKENDS = ("auto", "dense", "flex", "varlen")


def choose_backend(asked: str, device: torch.device, softcap: float | None = None) -> str:
    """The back end for `auto`, or the one asked for, if it can serve.

    Raises:
        UserError: unknown, or varlen with soft-capped scores (Gemma 2), which it cannot cap.
    """
    if asked not in BACKENDS:
        raise UserError(f"attention {asked!r}: expected one of {', '.join(BACKENDS)}")
    if asked == "varlen" and softcap is not None:
        raise UserError("attention varlen: it cannot cap the scores as this model does (Gemma 2); "
                        "choose auto, dense or flex")
    if asked == "auto":
        return "flex" if device.type == "cuda" else "dense"
    return asked


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
    if query.dtype != value.dtype:  # under autocast, rotary positions bring fp32 back
        query, key = query.to(value.dtype), key.to(value.dtype)
    if last_only or layout.backend == "dense":
        out = dense(query, key, value, layout, scaling, window, softcap, last_only)
    elif layout.backend == "flex":
        out = flex(query, key, value, layout, scaling, window, softcap)
    else:
        out = varlen(query, key, value, layout, scaling, window)
    return out.transpose(1, 2)
