"""What a decoder layer keeps of each token for its backward pass, counted tensor by tensor.

Of width d (hidden), i (intermediate), q and k (all heads of the queries, and of the keys), in bytes
s of the residual stream, c of what products compute in and a of what attention does:

    a norm          4 d of its input in fp32, and s d of what it scales; LayerNorm s d alone
    who reads it    c d, once, or where autocast rounds it, once for each product that does
    heads' norms    the same of q and k, where a family has them
    attention       a (q + 2 k) and a q of what enters and leaves it, c q of what is projected
    MLP             4 c i: the gate, its activation, what it gates, and their product;
                    5 of GPT-2's gelu, which autocast has in fp32: 16 i

With low-rank adapters it is the same: a layer's frozen product keeps nothing, its adapter's does.
`python -m speed.gpu.memory` holds this against the tensors that live in a training.
"""

from typing import NamedTuple

from transformers import PreTrainedConfig

GEMMA = ("gemma", "gemma2", "gemma3_text")
FOUR_NORMS = ("gemma2", "gemma3_text")
HEAD_NORMS = ("gemma3_text", "qwen3")
PLAIN = ("gpt2", "gpt_neo")
"""LayerNorms, and an MLP without a gate."""
SCORED_KEYS = 128
"""Of a query, on a CPU, where no kernel caps scores: they are written out, twice in fp32."""
MASK = 512
"""Bytes of mask a token, on a CPU."""


class Types(NamedTuple):
    """Bytes of a number in the residual stream, in products and in attention."""

    stream: int
    compute: int
    attention: int


class Widths(NamedTuple):
    """A decoder layer's."""

    family: str
    hidden: int
    intermediate: int
    query: int
    key: int
    heads: int
    capped: bool


def widths_of(config: PreTrainedConfig) -> Widths:
    """Of any supported family's config."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    intermediate = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return Widths(config.model_type, hidden, intermediate or 4 * hidden, heads * head,
                  key_heads * head, heads,
                  getattr(config, "attn_logit_softcapping", None) is not None)


def layer_bytes(widths: Widths, types: Types) -> int:
    """Bytes a token that a whole layer keeps."""
    plain = widths.family in PLAIN
    norms = 4 if widths.family in FOUR_NORMS else 2
    read = _read(widths, types, 1 if plain else 3) + _read(widths, types, 1 if plain else 2)
    return (norms * _norm(widths, widths.hidden, types.stream) + read + _attention(widths, types)
            + _mlp(widths, types))


def last_layer_bytes(widths: Widths, types: Types) -> int:
    """Bytes a token that the last layer keeps where it computes keys and values alone."""
    heads = _norm(widths, widths.key, types.compute) if widths.family in HEAD_NORMS else 0
    return (_norm(widths, widths.hidden, types.stream) + _read(widths, types, 2)
            + heads + 2 * _scored(widths, types) * widths.key)


def end_bytes(widths: Widths, types: Types) -> int:
    """Bytes a token of the final norm, and of what a backward has in hand at its beginning: about
    five numbers a hidden dimension and one an intermediate one, by measurement."""
    return (_norm(widths, widths.hidden, types.stream) + 5 * types.stream * widths.hidden
            + types.compute * widths.intermediate)


def mask_bytes(types: Types) -> int:
    """Bytes a token that all layers share: only where attention is dense, on a CPU."""
    return MASK if types.attention == 4 else 0


def _norm(widths: Widths, width: int, enters: int) -> int:
    if widths.family in PLAIN:
        return enters * width
    return (4 + (4 if widths.family in GEMMA else enters)) * width


def _read(widths: Widths, types: Types, products: int) -> int:
    rounded = types.stream != types.compute
    return types.compute * widths.hidden * (products if rounded else 1)


def _scored(widths: Widths, types: Types) -> int:
    """Bytes of a number in attention: GPT-Neo's is fp32 anywhere."""
    return 4 if widths.family == "gpt_neo" else types.attention


def _attention(widths: Widths, types: Types) -> int:
    scored = _scored(widths, types)
    kept = scored * (2 * widths.query + 2 * widths.key) + types.compute * widths.query
    if widths.family in HEAD_NORMS:
        kept += _norm(widths, widths.query + widths.key, types.compute)
    if widths.capped and types.attention == 4:
        kept += 8 * widths.heads * SCORED_KEYS
    return kept


def _mlp(widths: Widths, types: Types) -> int:
    if widths.family not in PLAIN:
        return 4 * types.compute * widths.intermediate
    rounded = types.stream != types.compute
    return (16 if rounded else 5 * types.compute) * widths.intermediate
