"""The model of a step: by hand for one shape, and against what the library's layer reads and writes
"""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from speed.gpu.step_model import H100, VARIANTS, Variant, Widths, elementwise_bytes, layer
from tests.tiny_experiment import in_process

HAND = Widths(hidden=2, query=2, key=1, intermediate=3)
FREE = ("view", "_unsafe_view", "t", "transpose", "expand", "slice", "unsqueeze", "detach", "alias",
        "mm")


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write, products and attention left out."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in FREE and "attention" not in name:
            self.total += sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
                              for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


def test_bytes_and_milliseconds_of_one_shape_are_those_of_a_hand_count():
    assert HAND.weights == 2 * 2 + 2 * 1 + 2 * 1 + 2 * 2 + 3 * 2 * 3 == 30
    eager = 2 * 128 * 2 + 96 * 2 + 56 * 2 + 72 * 3 + 28 * 3 + 8 * 2 + 24 * 30 / 10
    fused = 2 * 34 * 2 + 16 * 2 + 8 * 3 + 18 * 3 + 8 * 2 + 24 * 30 / 10
    assert elementwise_bytes(HAND, Variant("", 10)) == eager == 1204
    assert elementwise_bytes(HAND, Variant("", 10, True)) == fused == 334
    assert elementwise_bytes(HAND, Variant("", 10, True, 2)) == fused - (2 * 12 + 12) * 2
    found = layer(HAND, Variant("", 10), matrix=1e6, memory=1e6, tree=4)
    assert found.products == pytest.approx(1e3 * 6 * 30 * 10 / 0.58e6)
    assert found.attention == pytest.approx(1e3 * 4 * 2 * 2 * 10 * 3.5 / 0.3e6)
    assert found.elementwise == pytest.approx(1e3 * 1204 * 10 / 0.85e6)
    total = found.products + found.attention + found.elementwise
    assert found.mfu == pytest.approx(6 * 30 * 10 / (total / 1e3) / 1e6)


def test_the_library_s_layer_reads_and_writes_what_the_model_counts():
    tokens, hidden, intermediate = 256, 256, 1024
    config = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=4,
                         num_key_value_heads=2, num_hidden_layers=1, vocab_size=8)
    config._attn_implementation = "sdpa"
    block, entering = LlamaDecoderLayer(config, 0), torch.randn(1, tokens, hidden)
    places = LlamaRotaryEmbedding(config)(entering, torch.arange(tokens)[None])

    def step() -> None:
        hidden_states = entering.clone().requires_grad_() * 1.0  # no leaf, as in a model
        with torch.autocast("cpu", torch.bfloat16):
            out = block(hidden_states, position_embeddings=places)
        out.backward(torch.ones_like(out))

    step()  # so that gradients are there, and added to
    with Traffic() as traffic:
        step()
    counted = elementwise_bytes(Widths(hidden, hidden, hidden // 2, intermediate),
                                Variant("", tokens))
    assert counted == pytest.approx(traffic.total / tokens, rel=0.1)


def test_each_variant_of_the_1b_shape_on_an_h100_is_faster_than_the_one_before():
    widths = Widths(2048, 2048, 512, 8192)
    shares = [layer(widths, variant, *H100, tree=1000).mfu for variant in VARIANTS]
    assert shares == sorted(shares) and 0.27 < shares[0] < 0.33 and 0.44 < shares[-1] < 0.52


def test_the_command_prints_a_row_a_variant(capsys):
    assert in_process("speed.gpu.step_model", "--shape", "small") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(VARIANTS)
