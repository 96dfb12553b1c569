"""Tree attention as sequences of various lengths, by torch's flash kernel on CUDA.

A response becomes a sequence whose queries are its own tokens and whose keys begin with its
prompt's. transformers' linear layers still see every prompt once.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from model.attention.tree import PADDING, PROMPT, Layout
from model.to_device import to_device
from src.common.errors import UserError


def varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float,
           window: int | None) -> Tensor:
    """The rows laid end to end as sequences: a prompt, or a response whose keys are the prompt's
    and its own. Kernels align such a sequence's last query with its last key, as it has to be."""
    rows, heads, length, width = query.shape
    if "sequences" not in layout.made:
        layout.made["sequences"] = _sequences(layout)
    starts, key_starts, index, longest, longest_key = layout.made["sequences"]
    if query.is_cuda and query.dtype not in (torch.bfloat16, torch.float16):
        raise UserError(f"attention varlen: its kernel computes in half precision, not in "
                        f"{query.dtype}; choose auto, dense or flex, or train in bf16")
    shared = heads // key.shape[1]
    flat = [tensor.transpose(1, 2).reshape(rows * length, -1, width)
            for tensor in (query, key, value)]
    key, value = (tensor[index].repeat_interleave(shared, dim=1) for tensor in flat[1:])
    kernel = varlen_attn if query.is_cuda else _one_by_one
    back = -1 if window is None else window - 1
    out = kernel(flat[0], key, value, starts, key_starts, longest, longest_key, scale=scaling,
                 window_size=(back, 0))
    return out.view(rows, length, heads, width).transpose(1, 2)


def _sequences(layout: Layout) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Where each sequence's queries (N + 1,) and keys (N + 1,) begin, which tokens are keys, and
    the most queries and keys of a sequence: made once a forward, from what the host knows."""
    device, length = layout.tree.device, layout.tree.shape[1]
    starts, key_starts, index = [], [0], []
    for row in range(len(layout.tree)):
        prompt = range(0)
        for segment in layout.segments(row):
            own = range(row * length + segment.start, row * length + segment.end)
            prompt = own if segment.branch == PROMPT else prompt
            keys = (own,) if segment.branch in (PROMPT, PADDING) else (prompt, own)
            index += [np.arange(tokens.start, tokens.stop) for tokens in keys]
            starts.append(own.start)
            key_starts.append(key_starts[-1] + sum(map(len, keys)))
    starts.append(len(layout.tree) * length)
    return (*(to_device(np.array(ends, np.int32), device) for ends in (starts, key_starts)),
            to_device(np.concatenate(index), device),
            int(np.diff(starts).max()), int(np.diff(key_starts).max()))


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, key_starts: Tensor,
                longest: int, longest_key: int, *, scale: float,
                window_size: tuple[int, int]) -> Tensor:
    """What varlen_attn computes, one sequence after the other."""
    out = []
    queries = query.split(starts.diff().tolist())
    sizes = key_starts.diff().tolist()
    for q, k, v in zip(queries, key.split(sizes), value.split(sizes), strict=True):
        back = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))[None]
        sees = (back >= 0) & ((back <= window_size[0]) | (window_size[0] < 0))
        out.append(scaled_dot_product_attention(
            *(tensor.transpose(0, 1)[None] for tensor in (q, k, v)), attn_mask=sees,
            scale=scale)[0].transpose(0, 1))
    return torch.cat(out)
