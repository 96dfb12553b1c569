"""The residual stream in what products compute in: precision `bf16_residual`.

Under autocast alone the embeddings, and all that layers add to them, are fp32: each norm reads 4
bytes a number and writes 4, and each product that follows rounds them once more. Here what enters
the first layer is rounded, and what each layer's norms give; sums of bf16 stay bf16. Norms compute
in fp32 as before; so do rotary positions, the last norm and the head. Without autocast nothing is
rounded: a saved model is compared, and scored by others, as any is.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.base.truncate import decoder_layers
from src.common.precision import RESIDUAL


def compute_in(model: PreTrainedModel, precision: str) -> None:
    """Say what whoever runs the model's forward is to compute in, and prepare the model for it.

    Args:
        precision: fp32, bf16 or bf16_residual, see src/common/precision.py.
    """
    model.precision = precision
    if precision != RESIDUAL:
        return
    layers = decoder_layers(model)
    layers[0].register_forward_pre_hook(_enters, prepend=True)
    for layer in layers:
        for norm in _norms(layer):
            norm.register_forward_hook(_leaves)


def _norms(layer: nn.Module) -> list[nn.Module]:
    """Those that read or write the residual stream; those of heads are the attention's."""
    return [part for part in layer.children()
            if isinstance(part, nn.LayerNorm) or type(part).__name__.endswith("RMSNorm")]


def _enters(layer: nn.Module, args: tuple) -> tuple:
    return _rounded(args[0]), *args[1:]


def _leaves(norm: nn.Module, args: tuple, states: Tensor) -> Tensor:
    return _rounded(states)


def _rounded(states: Tensor) -> Tensor:
    """In the type of autocast, where that is on."""
    kind = states.device.type
    if not torch.is_autocast_enabled(kind):
        return states
    return states.to(torch.get_autocast_dtype(kind))
