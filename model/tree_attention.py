"""The mask and position ids that let the responses to one prompt share it in one row.

A row is `prompt | response 1 | ... | response K | padding`. Position ids restart after the prompt,
and a response sees the prompt and itself, so that each reward equals that of a forward over
`prompt | response k` alone. `branch` says what a token is: 0 prompt, 1..K response, -1 padding.

The mask is always passed, as four dimensions: without one, transformers takes position ids that
restart for packed sequences and cuts the responses off from their prompt (transformers
masking_utils.find_packed_sequence_indices).
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from configs.errors import UserError

PADDING = -1
PROMPT = 0

BY_LAYER_TYPE = ("gemma2", "gemma3_text", "ministral", "qwen2", "qwen3")
"""Families whose forward takes a mask for each of the config's `layer_types`."""


def tree_mask(branch: Tensor, position_ids: Tensor, window: int | None = None) -> Tensor:
    """Which key each query sees.

    Args:
        branch: (B, T) int, what each token is.
        position_ids: (B, T) int, each token's position in its own `prompt | response`.
        window: a query sees keys fewer than this many positions back; None for all.
    Returns:
        (B, 1, T, T) bool, [b, 0, query, key]. Padding sees itself alone: a row of the softmax that
        sees nothing is NaN, which masking afterwards does not take back out of the gradient.
    """
    length = branch.shape[1]
    query, key = branch[:, :, None], branch[:, None, :]
    index = torch.arange(length, device=branch.device)
    sees = (index[None, :] <= index[:, None]) & ((key == PROMPT) | (key == query))
    sees &= (query != PADDING) & (key != PADDING)
    if window is not None:
        sees &= position_ids[:, :, None] - position_ids[:, None, :] < window
    sees |= torch.eye(length, dtype=torch.bool, device=branch.device)
    return sees[:, None]


def attention_masks(config: PreTrainedConfig, branch: Tensor, position_ids: Tensor,
                    dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """The tree mask in the form that the family's own trunk takes as `attention_mask`.

    Args:
        branch, position_ids: (B, T), see `tree_mask`.
        dtype: of the weights, for back ends that add the mask to the scores.
    Returns:
        (B, 1, T, T); or one for each layer type; or, for GPT-Neo, (B, 2, T, T): the mask of global
        layers and that of local ones, of which `use_tree_masks` gives each layer its own.
    """
    if config.model_type in BY_LAYER_TYPE:
        windows = {"full_attention": None, "sliding_attention": config.sliding_window}
        return {kind: _in_form(tree_mask(branch, position_ids, windows[kind]), config, dtype)
                for kind in sorted(set(config.layer_types))}
    if config.model_type == "gpt_neo":
        both = [tree_mask(branch, position_ids, window) for window in (None, config.window_size)]
        return _in_form(torch.cat(both, dim=1), config, dtype)
    window = config.sliding_window if config.model_type == "mistral" else None
    return _in_form(tree_mask(branch, position_ids, window), config, dtype)


def _in_form(sees: Tensor, config: PreTrainedConfig, dtype: torch.dtype) -> Tensor:
    """A bool mask as the attention back end wants it: sdpa as it is, eager added to the scores."""
    implementation = config._attn_implementation
    if implementation == "sdpa":
        return sees
    if implementation == "eager":
        hidden = torch.finfo(dtype).min
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, hidden)
    raise UserError(f"attention implementation {implementation!r}: a prompt is shared by its "
                    "responses under sdpa or eager attention only; choose one of the two")


def use_tree_masks(model: nn.Module) -> None:
    """Let the masks of `attention_masks` be all that decides what a token of `model` sees.

    Needed by GPT-Neo alone: its layers intersect the mask with a causal window counted along the
    row, where a response is further from its prompt than its positions say. The window is in our
    mask already, so their own gives way, and each layer picks the mask of its kind.
    """
    for module in model.modules():
        if isinstance(module, GPTNeoSelfAttention):
            module.bias = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=module.bias.device)
            module.register_forward_pre_hook(_pick_own_mask, with_kwargs=True)


def _pick_own_mask(module: GPTNeoSelfAttention, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    own = 1 if module.attention_type == "local" else 0
    return args, {**kwargs, "attention_mask": kwargs["attention_mask"][:, own:own + 1]}
