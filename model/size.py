"""How big a reward model is, from its config alone: for estimates, before anything is loaded."""

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig

from configs.errors import UserError
from model.truncate import truncate_config


def count_parameters(config: PreTrainedConfig, kept: tuple[int, ...]) -> tuple[int, int]:
    """Parameters of the reward model on the `kept` layers of a base model: (all, all that are in no
    embedding table). The second times 6 is about the floating-point operations of training on one
    token."""
    short = truncate_config(config, kept)
    short.num_labels = 1
    with torch.device("meta"):
        model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(short)](short)
    total = sum(parameter.numel() for parameter in model.parameters())
    tables = sum(module.weight.numel() for module in model.modules()
                 if isinstance(module, torch.nn.Embedding))
    return total, total - tables


def check_length(config: PreTrainedConfig, max_length: int, where: str) -> None:
    """UserError where the model has fewer positions than the data's longest sequence has tokens.

    Args:
        max_length: tokens of prompt plus one response. A row of several responses may be longer.
        where: names the model, for the message.
    """
    if max_length > config.max_position_embeddings:
        raise UserError(f"{where}: max_length {max_length} is more than the model's "
                        f"{config.max_position_embeddings} positions; lower max_length in the data "
                        "config")
