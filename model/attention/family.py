"""Our attention in the library's models: how each family calls it, and its last layer's shortcut.

A reward is read from the last layer at the last token of each response. That layer's keys and
values are needed for all tokens; its queries, output projection, MLP and norms for the tokens that
are read. Exact, forward and backward.

The mask that the library is given is never None: without one, it takes position ids that restart
for packed sequences and cuts the responses off from their prompt (transformers masking_utils
find_packed_sequence_indices). Ours holds nothing; what is seen is decided by the Layout.
"""

import functools

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from model.attention.attend import attend
from model.attention.tree import Layout
from model.base.truncate import decoder_layers

TREE = "tree"
"""The name of our attention among the library's."""
BY_LAYER_TYPE = ("gemma2", "gemma3_text", "ministral", "qwen2", "qwen3")
"""Families whose forward takes a mask for each of the config's `layer_types`."""


def library_implementation(config: PreTrainedConfig) -> str:
    """What to load a model of this config with; GPT-Neo's own attention is replaced afterwards."""
    return "eager" if config.model_type == "gpt_neo" else TREE


def library_mask(config: PreTrainedConfig, layout: Layout) -> Tensor | dict[str, Tensor]:
    """The `attention_mask` for the family's forward: empty, and with the layout for GPT-Neo, whose
    layers are handed nothing else."""
    mask = torch.zeros(1, 1, 1, 1, device=layout.tree.device)
    mask.tree_layout = layout
    if config.model_type in BY_LAYER_TYPE:
        return dict.fromkeys(config.layer_types, mask)
    return mask


@torch.compiler.disable  # what it does depends on the rows, and changes with every batch
def _from_library(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
                  attention_mask: Tensor, *, scaling: float, layout: Layout, dropout: float = 0.0,
                  sliding_window: int | None = None, softcap: float | None = None,
                  **unused) -> tuple[Tensor, None]:
    """`attend` as the library calls attention. Dropout is off in every reward model's config."""
    window = sliding_window or getattr(module, "hidden_window", None)
    return attend(query, key, value, layout, scaling=scaling, window=window, softcap=softcap), None


AttentionInterface.register(TREE, _from_library)


def use_tree_attention(model: PreTrainedModel, last_layer_shortcut: bool) -> None:
    """Make a loaded model attend over trees, in its last layer for what is read alone if asked."""
    layers = decoder_layers(model)
    for layer in layers:
        attention = _attention_of(layer)
        if isinstance(attention, GPTNeoSelfAttention):
            attention._attn = functools.partial(_gpt_neo, attention)
    if last_layer_shortcut:
        last = layers[-1]
        attention = _attention_of(last)
        attention.forward = functools.partial(_read_tokens_only, last, attention)
        last.register_forward_pre_hook(_only_what_is_read, with_kwargs=True)
        last.register_forward_hook(_back_in_place, with_kwargs=True)


def hide_window(layer: nn.Module) -> None:
    """Keep a layer's window where a compiler does not see it: layers that differ in nothing else
    share their graphs then."""
    attention = _attention_of(layer)
    if getattr(attention, "sliding_window", None):
        attention.hidden_window, attention.sliding_window = attention.sliding_window, None


def _attention_of(layer: nn.Module) -> nn.Module:
    attention = layer.attn if hasattr(layer, "attn") else layer.self_attn
    return getattr(attention, "attention", attention)  # GPT-Neo wraps its own


@torch.compiler.disable
def _gpt_neo(module: GPTNeoSelfAttention, query: Tensor, key: Tensor, value: Tensor,
             attention_mask: Tensor, last_only: bool = False) -> tuple[Tensor, None]:
    """GPT-Neo's attention: unscaled, scores in fp32, a window in its local layers."""
    window = module.config.window_size if module.attention_type == "local" else None
    out = attend(query.float(), key.float(), value.float(), attention_mask.tree_layout, scaling=1.0,
                 window=window, last_only=last_only)
    return out.transpose(1, 2).to(value.dtype), None


def _only_what_is_read(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Hand the layer (B, R, d), the tokens that are read, and keep (B, T, d) for its keys.

    It stays on the layer until the next forward: gradient checkpointing comes back for it.
    """
    layer.all_tokens, *rest = args
    last_index = _layout_of(kwargs).last_index
    return (at_last(layer.all_tokens, last_index), *rest), kwargs


def _back_in_place(layer: nn.Module, args: tuple, kwargs: dict,
                   output: Tensor | tuple[Tensor, None]) -> Tensor | tuple[Tensor, None]:
    """(B, R, d) -> (B, T, d), zero where nothing is read: families view what comes out as (B, T)"""
    read, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, ())
    layout = _layout_of(kwargs)
    index = layout.last_index[..., None]
    full = read.new_zeros(*layout.tree.shape, read.shape[-1]).scatter_add(
        1, index.clamp(min=0).expand_as(read), read.masked_fill(index < 0, 0.0))
    return (full, *rest) if rest else full


def _layout_of(kwargs: dict) -> Layout:
    """The layout among what a layer is called with."""
    if "layout" in kwargs:
        return kwargs["layout"]
    return kwargs["attention_mask"].tree_layout


def at_last(hidden: Tensor, last_index: Tensor) -> Tensor:
    """(B, T, d) -> (B, R, d): what stands at last_index, or at 0 where that is -1."""
    index = last_index.clamp(min=0)[..., None].expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, index)


def _read_tokens_only(layer: nn.Module, attention: nn.Module, hidden_states: Tensor, *rest,
                      attention_mask: Tensor | None = None,
                      position_embeddings: tuple[Tensor, Tensor] | None = None,
                      layout: Layout | None = None, **unused) -> tuple[Tensor, None]:
    """The attention's forward: queries (B, R, d) that are read, keys of all tokens."""
    norm = layer.ln_1 if hasattr(layer, "ln_1") else layer.input_layernorm
    everything = norm(layer.all_tokens)
    if isinstance(attention, GPT2Attention):
        return _gpt2_last(attention, everything, layout), None
    query, key, value = (
        projection(tokens).unflatten(-1, (-1, attention.head_dim)) for projection, tokens in (
            (attention.q_proj, hidden_states), (attention.k_proj, everything),
            (attention.v_proj, everything)))
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if isinstance(attention, GPTNeoSelfAttention):
        out, _ = _gpt_neo(attention, query, key, value, attention_mask, last_only=True)
        return attention.out_proj(out.transpose(1, 2).flatten(2)), None
    cos, sin = position_embeddings
    query = _rotated(query, at_last(cos.expand(len(query), -1, -1), layout.last_index),
                     at_last(sin.expand(len(query), -1, -1), layout.last_index))
    key = _rotated(key, cos, sin)
    out = attend(query, key, value, layout, scaling=attention.scaling, last_only=True,
                 window=_window(attention), softcap=getattr(attention, "attn_logit_softcapping",
                                                            None))
    return attention.o_proj(out.flatten(2)), None


def _gpt2_last(attention: GPT2Attention, everything: Tensor, layout: Layout) -> Tensor:
    """GPT-2 projects queries, keys and values in one, for all tokens."""
    query, key, value = attention.c_attn(everything).split(attention.split_size, dim=2)
    query, key, value = (
        states.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for states in (at_last(query, layout.last_index), key, value))
    out = attend(query, key, value, layout, scaling=attention.scaling, last_only=True)
    return attention.c_proj(out.flatten(2))


def _window(attention: nn.Module) -> int | None:
    """The attention's sliding window; Mistral keeps it in its config alone."""
    if attention.config.model_type == "mistral":
        return attention.config.sliding_window
    return getattr(attention, "hidden_window", None) or getattr(attention, "sliding_window", None)


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: states (B, H, S, D), cos and sin (B, S, D)."""
    first, second = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
