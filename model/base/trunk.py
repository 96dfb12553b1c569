"""What of a model is not trained: frozen, and skipped where its output is known.

What enters the first layer that trains depends on the tokens and on the frozen layers alone, not on
seed, teacher or epoch. Whoever has these hidden states hands them to the forward, which then
begins above the frozen layers.
"""

import functools
import itertools

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.run import RunConfig
from model.base.truncate import decoder_layers
from src.common.errors import UserError


class _Reached(Exception):  # noqa: N818 - no error: it ends a forward early
    """The layer whose input was wanted."""

    def __init__(self, hidden: Tensor):
        super().__init__()
        self.hidden = hidden


def frozen_layers(layers: int, trainable: int | None, where: str) -> int:
    """How many of a model's lowest layers stay as they are: all but the top `trainable` ones.

    Raises:
        UserError: more layers to train than there are.
    """
    if trainable is None:
        return 0
    if trainable > layers:
        raise UserError(f"{where}: trainable_layers {trainable}, but the model keeps {layers} "
                        f"layers; choose at most {layers}, or null to train everything")
    return layers - trainable


def frozen_of(run: RunConfig) -> int:
    """`frozen_layers` of a run: how many of its lowest layers do not train."""
    return frozen_layers(len(run.kept), run.train.trainable_layers, run.display_name)


def equal_layers(model: PreTrainedModel, other: PreTrainedModel) -> int:
    """How many of the lowest layers two models share, weight by weight; 0 where their embeddings
    differ, and never all: what a forward begins above is not the whole of it."""
    def equal(one: nn.Module, two: nn.Module) -> bool:
        return all(torch.equal(own, its.to(own.device))
                   for own, its in zip(one.parameters(), two.parameters(), strict=True))

    tables = [[part for part in each.modules() if isinstance(part, nn.Embedding)]
              for each in (model, other)]
    if not all(equal(*pair) for pair in zip(*tables, strict=True)):
        return 0
    pairs = list(zip(decoder_layers(model), decoder_layers(other), strict=True))[:-1]
    return len(list(itertools.takewhile(lambda pair: equal(*pair), pairs)))


def freeze_below(model: PreTrainedModel, below: int) -> None:
    """Train layers `below` and up, the final norm and the head: neither embeddings nor the rest."""
    layers = decoder_layers(model)
    trunk = model.base_model
    norm = trunk.ln_f if hasattr(trunk, "ln_f") else trunk.norm
    trunk.requires_grad_(False)
    for part in (*layers[below:], norm):
        part.requires_grad_(True)
    begin_above(model, below)


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Train all but the embedding tables, of tokens and of positions."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)


def begin_above(model: PreTrainedModel, below: int) -> None:
    """Let the model's forward take `hidden`, what enters layer `below`, and begin there."""
    layers = decoder_layers(model)
    for layer in layers[:below]:
        layer.forward = functools.partial(_unless_given, model, layer.forward)
    layers[below].register_forward_pre_hook(functools.partial(_take_given, model), prepend=True)


def _unless_given(model: PreTrainedModel, forward, hidden_states: Tensor, *args, **kwargs):
    """A frozen layer's forward; nothing at all where its output is not needed."""
    if model.given_hidden is None:
        return forward(hidden_states, *args, **kwargs)
    return (hidden_states, None) if model.config.model_type == "gpt_neo" else hidden_states


def _take_given(model: PreTrainedModel, layer: nn.Module, args: tuple) -> tuple | None:
    if model.given_hidden is not None:
        return model.given_hidden.to(args[0].dtype), *args[1:]
    return None


def hidden_states(model: PreTrainedModel, below: int, batch: dict[str, Tensor],
                  hidden: Tensor | None = None) -> Tensor:
    """(B, T, d): what enters layer `below` of the model.

    Args:
        batch: the inputs of its forward.
        hidden: what enters a lower layer, of which `begin_above` was told.
    """
    def stop(layer: nn.Module, args: tuple) -> None:
        raise _Reached(args[0])

    handle = decoder_layers(model)[below].register_forward_pre_hook(stop, prepend=True)
    try:
        with torch.no_grad():
            model(**batch, hidden=hidden)
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise AssertionError("a forward passes every layer")
