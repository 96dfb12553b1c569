"""How much memory a reward model takes on each device, by formula: nothing is built or loaded.

In bytes, of N parameters in all, T that train, E in embedding tables, on R processes:

                weights    gradients   optimiser    copies
    one process 4 N        4 T         8 T          2 (N - E) of autocast
    DDP         4 N        4 T         8 T          2 (N - E) of autocast, 4 T of buckets
    ZeRO-2      2 N        4 T / R     12 T / R     12 of each of the 2e8 elements of a bucket
    ZeRO-3      2 N / R    4 T / R     12 T / R     2 of each of the 1e9 live parameters, 8 E

With frozen embeddings T is N - E. With low-rank adapters these and the head are all that trains.
Their formula is the same: frozen weights are kept as trained ones are, and a frozen layer's input
is kept for its adapter.

Activations were measured on a CPU: 129 KB a token and layer of Llama-3.2-1B under autocast, 109
with bf16 weights. They are 6 bytes for each intermediate and 39 or 29 for each hidden dimension,
which is how other sizes are reckoned. Gradient checkpointing keeps one hidden state a layer and one
layer's activations. The device's context, the allocator's rounding and the loss are 1.7 GB.

An estimate, meant to tell 70 GB from 170, for compute in bf16. Not counted: attention without a
fused kernel.
"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from configs.schema import TrainConfig
from model.base.adapters import adapter_parameters
from model.base.truncate import count_parameters

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
    hidden: int
    intermediate: int
    layers: int
    """That train or have adapters: the others keep nothing for a backward."""


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
    intermediate = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return Size(total, embedded, trained, config.hidden_size,
                intermediate or 4 * config.hidden_size, min(len(kept), trainable or len(kept)))


def state_gb(size: Size, hardware: str, processes: int) -> float:
    """Weights, gradients, optimiser and their copies on each device.

    Args:
        hardware: the name of a file of configs/hardware.
    """
    n, t, e = size.parameters, size.trained, size.embedded
    if hardware == "zero2":
        return (2 * n + 16 * t / processes + 12 * min(BUCKET, t)) / GB
    if hardware == "zero3":
        return ((2 * n + 16 * t) / processes + 2 * min(LIVE, n) + 8 * e) / GB
    copies = {"cpu": 0, "gpu": 2 * (n - e)}.get(hardware, 2 * (n - e) + 4 * t)
    return (4 * n + 12 * t + copies) / GB


def training_gb(size: Size, hardware: str, processes: int, tokens: int,
                checkpointing: bool) -> float:
    """On each device, with `tokens` in one forward."""
    sharded = hardware.startswith("zero")
    layer = 6 * size.intermediate + (29 if sharded else 39) * size.hidden
    kept = size.layers * layer
    if checkpointing:
        kept = size.layers * size.hidden * (2 if sharded else 4) + layer
    return state_gb(size, hardware, processes) + tokens * kept / GB + OTHER_GB


def scoring_gb(size: Size, tokens: int) -> float:
    """On each device: the whole model in bf16, and one layer at a time."""
    layer = 6 * size.intermediate + 29 * size.hidden
    return (2 * size.parameters + tokens * layer) / GB + OTHER_GB
