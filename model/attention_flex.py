"""Tree attention with FlexAttention and a block mask, compiled on CUDA.

The rule is the one of `tree_attention.visible`; tiles that it hides are not computed.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import pad

from model.tree_attention import PADDING, Layout, visible

TILE = 128
"""Rows of scores in one tile."""


def flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float,
         window: int | None, softcap: float | None) -> Tensor:
    """Padded here, and only here, to one of a few lengths: each is compiled once."""
    length = query.shape[2]
    spare = flex_length(length) - length
    query, key, value = (pad(tensor, (0, 0, 0, spare)) for tensor in (query, key, value))
    name = "flex", window
    if name not in layout.made:
        layout.made[name] = _block_mask(layout, window, length + spare)
    cap = None if softcap is None else functools.partial(_capped, softcap)
    out = _compiled(query.device.type)(
        query, key, value, score_mod=cap, block_mask=layout.made[name], scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1])
    return out[:, :, :length]


def flex_length(length: int) -> int:
    """The least of 128, 256, 384, 512, 768, 1024 ... that is not below `length`."""
    power = TILE
    while power < length:
        power *= 2
    three_quarters = power // 4 * 3
    return three_quarters if length <= three_quarters and three_quarters % TILE == 0 \
        else power


def _block_mask(layout: Layout, window: int | None, length: int) -> BlockMask:
    rows, real = layout.tree.shape
    tree = pad(layout.tree, (0, length - real), value=PADDING)
    branch, position = (pad(tensor, (0, length - real))
                        for tensor in (layout.branch, layout.position_ids))

    def rule(b, h, q, k):
        return visible([q, tree[b, q], branch[b, q], position[b, q]],
                       [k, tree[b, k], branch[b, k], position[b, k]], window)

    return create_block_mask(rule, rows, None, length, length, device=tree.device)


def _capped(softcap: float, score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return softcap * torch.tanh(score / softcap)


@functools.cache
def _compiled(device: str) -> Callable[..., Tensor]:
    """Uncompiled, FlexAttention computes all scores: a reference for tests on CPUs."""
    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
