"""How much memory a reward model takes on each device, by formula: nothing is built or loaded.

In bytes, of N parameters in all, T that train, E in embedding tables, on R processes, computing in
bf16 (in fp32, 4 for each 2 and no copies of autocast):

                weights    gradients   optimiser    copies
    one process 4 N        4 T         8 T          2 (N - E) of autocast
    DDP         4 N        4 T         8 T          2 (N - E) of autocast, 4 T of buckets
    ZeRO-2      2 N        4 T / R     12 T / R     12 of each of the 2e8 elements of a bucket
    ZeRO-3      2 N / R    4 T / R     12 T / R     2 of each of the 1e9 live parameters, 8 E

With frozen embeddings T is N - E. With low-rank adapters these and the head are all that trains.
Their formula is the same: frozen weights are kept as trained ones are, and a frozen layer's input
is kept for its adapter.

Activations are counted tensor by tensor (activations.py). Gradient checkpointing keeps one hidden
state a layer and one layer's activations. Where embeddings train, their gradient stands once more
at the end of a backward, when activations are gone: the more of both counts. A device's context,
the allocator's rounding and the loss are 1.7 GB.

An estimate of what tensors hold. Not counted: attention on a GPU without a fused kernel.
"""

from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedConfig

from configs.schema import TrainConfig
from model.base.activations import (
    Types,
    Widths,
    end_bytes,
    last_layer_bytes,
    layer_bytes,
    mask_bytes,
    widths_of,
)
from model.base.adapters import adapter_parameters
from model.base.truncate import count_parameters
from src.common.precision import RESIDUAL

GB = 1e9
OTHER_GB = 1.7
LIVE, BUCKET = 1e9, 2e8
"""DeepSpeed's stage3_max_live_parameters, and the buckets of configs/hardware/zero2.json."""


@dataclass(frozen=True)
class Size:
    """What the formula needs to know of a reward model."""

    parameters: int
    embedded: int
    """Those of them in embedding tables."""
    trained: int
    embedded_trained: int
    widths: Widths
    layers: int
    """That train or have adapters: the others keep nothing for a backward."""


class Forward(NamedTuple):
    """What of a run's config decides its activations."""

    tokens: int
    """Of one forward on one device."""
    checkpointing: bool = False
    shortcut: bool = True
    """See last_layer_shortcut."""


class Parts(NamedTuple):
    """Of one device's memory, each in 10^9 bytes."""

    weights: float
    gradients: float
    optimiser: float
    copies: float
    """Of weights or gradients: what autocast rounds, buckets, what is gathered."""
    activations: float
    other: float

    @property
    def state(self) -> float:
        """What does not depend on a batch."""
        return self.weights + self.gradients + self.optimiser + self.copies

    @property
    def total(self) -> float:
        return sum(self)


def size_of(config: PreTrainedConfig, kept: tuple[int, ...], train: TrainConfig) -> Size:
    """The size of a reward model on the `kept` layers of a base model, of which what `train` says
    trains: everything, all but the embeddings, the top layers, or adapters and the head."""
    total, rest = count_parameters(config, kept)
    embedded, trainable = total - rest, train.trainable_layers
    trained = count_parameters(config, kept[-trainable:])[1] if trainable else total
    if train.freeze_embeddings:
        trained = rest
    if train.lora is not None:
        top = kept[-(trainable or len(kept)):]
        trained = adapter_parameters(config, top, train.lora) + config.hidden_size
        total += trained  # the head is there twice
    return Size(total, embedded, trained, embedded if trained == total else 0, widths_of(config),
                min(len(kept), trainable or len(kept)))


def training_parts(size: Size, hardware: str, processes: int, precision: str,
                   forward: Forward) -> Parts:
    """What training takes on each device.

    Args:
        hardware: the name of a file of configs/hardware.
        precision: fp32, bf16 or bf16_residual, see src/common/precision.py.
    """
    activations = _activations(size, types_of(hardware, precision), forward)
    if size.embedded_trained and not hardware.startswith("zero"):
        activations = max(activations, 4 * size.embedded_trained)
    other = 0.0 if hardware == "cpu" else OTHER_GB
    return Parts(*(part / GB for part in _state(size, hardware, processes, precision)),
                 activations / GB, other)


def scoring_gb(size: Size, tokens: int) -> float:
    """On each device: the whole model in bf16, and one layer at a time."""
    layer = layer_bytes(size.widths, Types(2, 2, 2))
    return (2 * size.parameters + tokens * layer) / GB + OTHER_GB


def types_of(hardware: str, precision: str) -> Types:
    """What a run computes in on this hardware: on CPUs attention is fp32, and under DeepSpeed the
    weights are bf16, and with them the residual stream."""
    if precision == "fp32":
        return Types(4, 4, 4)
    if hardware.startswith("zero"):
        return Types(2, 2, 2)
    return Types(2 if precision == RESIDUAL else 4, 2, 4 if hardware == "cpu" else 2)


def _state(size: Size, hardware: str, processes: int,
           precision: str) -> tuple[float, float, float, float]:
    """Bytes of weights, gradients, optimiser and copies."""
    n, t, e = size.parameters, size.trained, size.embedded
    half = 4 if precision == "fp32" else 2
    if hardware == "zero2":
        return half * n, 4 * t / processes, 12 * t / processes, 12 * min(BUCKET, t)
    if hardware == "zero3":
        return (half * n / processes, 4 * t / processes, 12 * t / processes,
                half * min(LIVE, n) + 8 * e)
    rounded = 0 if precision == "fp32" else 2 * (n - e)
    return 4 * n, 4 * t, 8 * t, rounded + (4 * t if hardware == "multi_gpu" else 0)


def _activations(size: Size, types: Types, forward: Forward) -> float:
    widths, whole = size.widths, layer_bytes(size.widths, types)
    last = last_layer_bytes(widths, types) if forward.shortcut else whole
    kept = (size.layers - 1) * whole + last
    if forward.checkpointing:
        kept = size.layers * types.stream * widths.hidden + (whole if size.layers > 1 else last)
    return forward.tokens * (kept + end_bytes(widths, types) + mask_bytes(types))
