"""How big a reward model is, from its config alone: for estimates, before anything is loaded."""

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig

from configs.errors import UserError, reading
from model.truncate import truncate_config


def count_parameters(config: PreTrainedConfig, kept: tuple[int, ...]) -> tuple[int, int]:
    """Parameters of the reward model on the `kept` layers of a base model: (all, all that are in no
    embedding table). The second times 6 is about the floating-point operations of training on one
    token."""
    short = truncate_config(config, kept)
    short.num_labels = 1
    with reading(f"{config.name_or_path}/config.json", "no model can be made of it: fetch or train "
                 "it again"), torch.device("meta"):
        model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(short)](short)
    total = sum(parameter.numel() for parameter in model.parameters())
    tables = sum(module.weight.numel() for module in model.modules()
                 if isinstance(module, torch.nn.Embedding))
    return total, total - tables


def positions(config: PreTrainedConfig, where: str) -> int:
    """Tokens that the model takes; UserError where its config names none: every response would be
    too long, and that would pass for a result."""
    most = getattr(config, "max_position_embeddings", None)
    if type(most) is not int or most < 1:
        raise UserError(f"{where}: config.json says max_position_embeddings {most!r}: expected the "
                        "number of tokens that the model takes, 1 or more; fetch the model again")
    return most


def check_length(config: PreTrainedConfig, max_length: int, where: str) -> None:
    """UserError where the model has fewer positions than the data's longest sequence has tokens.

    Args:
        max_length: tokens of prompt plus one response. A row of several responses may be longer.
        where: names the model, for the message.
    """
    most = positions(config, where)
    if max_length > most:
        raise UserError(f"{where}: max_length {max_length} is more than the model's {most} "
                        "positions; lower max_length in the data config")
