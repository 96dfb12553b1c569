"""Tree attention with FlexAttention and a block mask, compiled on CUDA.

The rule is the one of `tree_attention.visible`; tiles that it hides are not computed.
"""

import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from model.attention.tiles import PART, WHOLE, tiles
from model.attention.tree import PADDING, Layout, visible
from model.to_device import to_device

TILE = 128
"""Rows of scores in one tile."""
LEAST_HEAD_SIZE = 16
"""What its kernel needs."""
LEAST_LENGTH = {"cpu": TILE, "cuda": 2048}
"""Rows are padded to a power of two that is at least this: every length is compiled anew, for
training and without gradients, and padding costs next to nothing, for it sees itself alone."""
MOST_COMPILED = 64
"""Compiled versions of the kernel: lengths x windows x with and without gradients x models."""


def flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float,
         window: int | None, softcap: float | None) -> Tensor:
    """Padded here, and only here, to one of a few lengths: each is compiled once."""
    length = query.shape[2]
    spare = flex_length(length, query.device.type) - length
    query, key, value = (pad(tensor, (0, 0, 0, spare)) for tensor in (query, key, value))
    name = "flex", window
    if name not in layout.made:
        layout.made[name] = _block_mask(layout, window, length + spare)
    cap = None if softcap is None else functools.partial(_capped, softcap)
    out = _compiled(query.device.type)(
        query, key, value, score_mod=cap, block_mask=layout.made[name], scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1])
    return out[:, :, :length]


def flex_length(length: int, device: str) -> int:
    """The least power of two that is neither below `length` nor below LEAST_LENGTH."""
    return max(LEAST_LENGTH[device], 1 << (length - 1).bit_length())


def flex_lengths(tokens: int, device: str) -> list[int]:
    """Every length that rows of at most `tokens` are padded to."""
    lengths = [LEAST_LENGTH[device]]
    while lengths[-1] < tokens:
        lengths.append(2 * lengths[-1])
    return lengths


def _block_mask(layout: Layout, window: int | None, length: int) -> BlockMask:
    """The library's own way makes the whole mask first."""
    rows, real = layout.tree.shape
    tree = pad(layout.tree, (0, length - real), value=PADDING)
    branch, position = (pad(tensor, (0, length - real))
                        for tensor in (layout.branch, layout.position_ids))

    def rule(b, h, q, k):
        return visible([q, tree[b, q], branch[b, q], position[b, q]],
                       [k, tree[b, k], branch[b, k], position[b, k]], window)

    seen = np.stack([tiles(layout.segments(row), length, TILE, window) for row in range(rows)])
    listed = (to_device(array, tree.device) for kind in (PART, WHOLE)
              for array in _listed(seen[:, None] == kind))
    return BlockMask.from_kv_blocks(*listed, BLOCK_SIZE=TILE, mask_mod=rule,
                                    seq_lengths=(length, length))


def _listed(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., N, N) bool -> (..., N) int32, how many keys' tiles are chosen in each row of tiles, and
    (..., N, N) int32, their numbers, followed by those of the others."""
    return (chosen.sum(axis=-1, dtype=np.int32),
            np.argsort(~chosen, axis=-1, kind="stable").astype(np.int32))


def _capped(softcap: float, score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return softcap * torch.tanh(score / softcap)


@functools.cache
def _compiled(device: str) -> Callable[..., Tensor]:
    """Uncompiled, FlexAttention computes all scores: a reference for tests on CPUs.

    Past its limit of versions the compiler falls back to that without a word, and memory grows with
    the square of the length: reaching the limit is an error.
    """
    if device != "cuda":
        return flex_attention
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(flex_attention, dynamic=False)


@functools.cache
def can_compile(device: str) -> bool:
    """Whether the kernel can be compiled and run here: Triton or a compiler may be missing. Tried
    once, on one tile; where it fails a warning says why."""
    try:
        warm_up([TILE], 1, 1, LEAST_HEAD_SIZE, [None], None, torch.device(device), torch.bfloat16)
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"FlexAttention cannot be compiled here ({type(error).__name__}: {reason}): "
                      "attention falls back to dense, which is slower; install Triton and a C "
                      "compiler", stacklevel=2)
        return False
    return True


def warm_up(lengths: list[int], heads: int, key_heads: int, head_size: int,
            windows: list[int | None], softcap: float | None, device: torch.device,
            dtype: torch.dtype) -> None:
    """Compile every version that a training needs, forward and backward, before its first step.

    Args:
        windows: of the model's layers.
    """
    for length in lengths:
        index = torch.arange(length, device=device)[None]
        one_tree = Layout(index, torch.zeros_like(index), torch.zeros_like(index),
                          index[:, -1:], "flex")
        for window in windows:
            query, key, value = (
                torch.zeros(1, count, length, head_size, device=device, dtype=dtype,
                            requires_grad=True) for count in (heads, key_heads, key_heads))
            scaling = head_size ** -0.5
            flex(query, key, value, one_tree, scaling, window, softcap).sum().backward()
            with torch.no_grad():
                flex(query, key, value, one_tree, scaling, window, softcap)
