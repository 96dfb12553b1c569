"""Decoder layers that are compiled one by one for training: what lies between two matrix products
is read and written once, where the library's code does it operation by operation.

All layers of a model run the same code on the same widths, so that what is compiled for the first
serves them all. Attention is left out, which parts a layer's code into four graphs:

    first norm | queries, keys, values and rotary positions | attention | output projection |
    sum, second norm, MLP, sum

Lengths are symbols in them: rows of any length run the same four. Compiled is the family's own
forward, beneath hooks and gradient checkpointing, and in place: no module gets another name, and
what is saved is plain. accelerate's compile_regions puts a module of its own around each layer,
and compiles embeddings, head and the last layer's shortcut too, whose shapes are never the same.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import get_compilation_metrics
from torch.fx.experimental import _config as shapes
from transformers import PreTrainedModel

from model.attention.family import hide_window
from model.attention.flex import MOST_COMPILED
from model.base.truncate import decoder_layers

BACKEND = "inductor"
"""Of torch.compile."""
MOST_GRAPHS = 4
"""Of one model, however its rows vary."""


class Compiler:
    """A back end of torch.compile that knows which graphs it was given."""

    def __init__(self, backend: str):
        self._compile = torch._dynamo.lookup_backend(backend)
        self.compiled: list[str] = []
        """The compiler's name of what each graph is a part of."""

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.compiled.append(str(torch._guards.CompileContext.current_compile_id()))
        return self._compile(graph, inputs)

    def cause(self) -> str:
        """Why the last graph was compiled though there was one of the same code."""
        reasons = {each.compile_id: each.recompile_reason for each in get_compilation_metrics()}
        return " ".join((reasons.get(self.compiled[-1]) or "unknown").split())


@functools.cache
def compiler(backend: str) -> Compiler:
    """The process's own: what one run has compiled serves the next."""
    return Compiler(backend)


def compile_layers(model: PreTrainedModel, last_layer_shortcut: bool) -> int:
    """Compile the layers of a model that train, but for a last one of which only what is read is
    computed; how many these are. Forwards without gradients run the library's code still.
    """
    torch._dynamo.config.recompile_limit = MOST_COMPILED
    torch._dynamo.config.specialize_float = True  # an epsilon is a constant, unlike a length
    shapes.use_duck_shape = False  # a row as long as the model is wide is not so for ever
    torch._dynamo.config.optimize_ddp = False  # it would cut every layer's graphs up once more
    layers = list(decoder_layers(model))
    chosen = [layer for layer in layers[:-1 if last_layer_shortcut else None]
              if any(parameter.requires_grad for parameter in layer.parameters())]
    for layer in chosen:
        hide_window(layer)
        layer.__class__ = _compiled(type(layer), compiler(BACKEND))
    return len(chosen)


@functools.cache
def _compiled(cls: type[nn.Module], backend: Compiler) -> type[nn.Module]:
    """`cls` with its own forward compiled. The library wraps the forward of every such subclass, so
    that gradient checkpointing runs around what is compiled, and twice the same."""
    plain = inspect.unwrap(cls.forward)
    fast = torch.compile(plain, backend=backend, dynamic=True)

    def forward(self, hidden_states: Tensor, *args, **kwargs):
        if not torch.is_grad_enabled():
            return plain(self, hidden_states, *args, **kwargs)
        if not hidden_states.requires_grad:  # a graph of its own for the first layer that trains
            hidden_states = hidden_states.detach().requires_grad_()
        return fast(self, hidden_states, *args, **kwargs)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})
