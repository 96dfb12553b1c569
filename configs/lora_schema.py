"""The config of low-rank adapters, for reward models and policies alike."""

from typing import Literal

from configs.field_types import Positive, Several, Size
from configs.strict_yaml import config, require


@config
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021): a linear layer's weight W stays as it is, and of
    W + alpha / rank * B A only B and A train, and the head in full. A finished run holds the sum.
    """

    rank: Size = 16
    """Rows of A and columns of B."""
    alpha: Positive = 32.0
    targets: Literal["all_linear"] | Several[str] = "all_linear"
    """Which linear layers of each decoder layer get adapters: all of them, or those of these names,
    such as [q_proj, v_proj]. With trainable_layers, of the layers that it names alone."""

    def __post_init__(self):
        require(bool(self.targets), "targets []: expected all_linear or names of linear layers, "
                "such as [q_proj, v_proj]")
