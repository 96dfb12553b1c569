"""Tree attention with scaled_dot_product_attention under a mask, on any device.

A packed row is cut into blocks, so that little of what the mask hides is computed: the cost grows
with the length of the trees, not with that of the row.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from model.attention.blocks import Block, Group, groups
from model.attention.tree import Layout, visible

BLOCK_TOKENS = {"cpu": 128, "cuda": 1024}
"""Smaller blocks cost more calls than they spare scores."""


def dense(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float,
          window: int | None, softcap: float | None, last_only: bool) -> Tensor:
    """Block by block where one row holds all; padded rows under one mask each."""
    if len(layout.tree) > 1:
        mask = _whole_mask(layout, window, last_only, query.dtype)
        return _masked(query, key, value, mask, scaling, softcap)
    plan = _groups(layout)
    masks = (_read_masks if last_only else _masks)(layout, window, query.dtype)
    counts = [[len(mask) for mask in group] for group in masks]  # queries of each block
    sizes = [group.end - group.start for group in plan]  # keys of each group
    # split, not slices: a slice's gradient would fill the whole row with zeros, once a group
    queries = query.split([sum(count) for count in counts], dim=2)  # (1, H, Q of a group, D) each
    out = []
    for group, q, k, v, group_masks, count in zip(
            plan, queries, key.split(sizes, dim=2), value.split(sizes, dim=2), masks, counts,
            strict=True):
        for block, part, mask in zip(group.blocks, q.split(count, dim=2), group_masks,
                                     strict=True):
            if len(mask):
                # the prompt, and what of the branch lies before: apart where branches lie between
                seen = [(start - group.start, end - group.start) for start, end in block.keys]
                out.append(_masked(part, _stretches(k, seen), _stretches(v, seen), mask, scaling,
                                   softcap))
    return torch.cat(out, dim=2)


def _groups(layout: Layout) -> list[Group]:
    if "groups" not in layout.made:
        layout.made["groups"] = list(groups(layout.segments(), _block_tokens(layout)))
    return layout.made["groups"]


def _block_tokens(layout: Layout) -> int:
    return BLOCK_TOKENS.get(layout.tree.device.type, BLOCK_TOKENS["cuda"])


def _masks(layout: Layout, window: int | None, dtype: torch.dtype) -> list[list[Tensor]]:
    """(Q, S) for each block of each group, added to the scores."""
    name = "masks", window, dtype
    if name not in layout.made:
        plan = _groups(layout)
        before = max(block.before for group in plan for block in group.blocks)
        longest = 1 << before.bit_length()  # a power of two: few bands are made, and kept
        band = _band(_block_tokens(layout), longest, window, dtype, layout.tree.device)
        index = torch.arange(layout.tree.shape[1], device=layout.tree.device)
        facts = [index, layout.tree[0], layout.branch[0], layout.position_ids[0]]
        layout.made[name] = [[_branches_mask(block, band, longest) if block.branches
                              else _tokens_mask(block, facts, window, dtype)
                              for block in group.blocks] for group in plan]
    return layout.made[name]


def _read_masks(layout: Layout, window: int | None, dtype: torch.dtype) -> list[list[Tensor]]:
    """The rows of these masks that belong to the tokens that are read."""
    name = "read masks", window, dtype
    if name not in layout.made:
        plan, read = _groups(layout), layout.read[0]
        ends = [block.end for group in plan for block in group.blocks]
        counts = np.diff(np.searchsorted(layout.read_of_row(), ends), prepend=0)
        rows = iter(read.split(counts.tolist()))
        layout.made[name] = [
            [mask[next(rows) - block.start]
             for mask, block in zip(masks, group.blocks, strict=True)]
            for masks, group in zip(_masks(layout, window, dtype), plan, strict=True)]
    return layout.made[name]


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _band(queries: int, longest: int, window: int | None, dtype: torch.dtype,
          device: torch.device) -> Tensor:
    """(Q, L + Q): query i and key j of one branch, j counted from L before the first query.

    The mask of every block of a branch is a part of it. Kept from forward to forward, and so made
    as a tensor that a backward pass may keep, whoever asks first.
    """
    back = torch.arange(queries)[:, None] + longest - torch.arange(longest + queries)[None]
    sees = back >= 0 if window is None else (back >= 0) & (back < window)
    return _added(sees, dtype).to(device)


def _branches_mask(block: Block, band: Tensor, longest: int) -> Tensor:
    """(Q, S): each branch sees the `before` keys, and causally its own."""
    before, queries = block.before, block.end - block.start
    if len(block.branches) == 1:
        mask = band[:queries, longest - before:longest + queries]
        return mask if mask.device.type == "cpu" else mask.contiguous()  # kernels align its rows
    mask = band.new_full((queries, before + queries), -math.inf)
    for start, end in block.branches:
        first, last, size = start - block.start, end - block.start, end - start
        mask[first:last, :before] = band[:size, longest - before:longest]  # the shared prompt
        mask[first:last, before + first:before + last] = band[:size, longest:longest + size]  # own
    return mask


def _tokens_mask(block: Block, facts: list[Tensor], window: int | None,
                 dtype: torch.dtype) -> Tensor:
    """(Q, S): what the rule itself says of every query and key."""
    own = [fact[block.start:block.end] for fact in facts]
    return _added(visible([fact[:, None] for fact in own], [fact[None] for fact in own], window),
                  dtype)


def _whole_mask(layout: Layout, window: int | None, last_only: bool, dtype: torch.dtype) -> Tensor:
    """(B, 1, Q, T) for rows of one tree, padded to one length."""
    name = "whole", window, last_only, dtype
    if name not in layout.made:
        rows, length = layout.tree.shape
        index = torch.arange(length, device=layout.tree.device).expand(rows, -1)
        given = layout.read if last_only else index
        layout.made[name] = _added(layout.sees(given, index, window), dtype)[:, None]
    return layout.made[name]


def _added(sees: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, -math.inf)


def _stretches(tensor: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """Some stretches of the tokens of (B, H, T, D), joined."""
    if len(ranges) == 1:
        start, end = ranges[0]
        return tensor[:, :, start:end]
    return torch.cat([tensor[:, :, start:end] for start, end in ranges], dim=2)


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float,
            softcap: float | None) -> Tensor:
    """Attention under one mask that is added to the scores."""
    shared = query.shape[1] // key.shape[1]
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling,
                                            enable_gqa=shared > 1)
    # No kernel caps its scores: they are written out, (B, H, Q, S).
    key, value = (tensor.repeat_interleave(shared, dim=1) for tensor in (key, value))
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * scaling / softcap) + mask
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value
