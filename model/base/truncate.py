"""Keep listed decoder layers of any supported family: the only file that knows layers.

Three things have to agree in a truncated model: the layers' tensors, each layer's index, and what
the config says per layer (attention types, windows). All three are derived here from one tuple,
`kept`: the indices of the base model's layers that stay, ascending. Knows nothing of heads, files
or attention masks.
"""

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from model.base.weights import whole_weights
from src.common.errors import UserError, reading

LAYER_LISTS = {
    "llama": "layers",
    "gemma": "layers",
    "gemma2": "layers",
    "gemma3_text": "layers",
    "mistral": "layers",
    "ministral": "layers",
    "qwen2": "layers",
    "qwen3": "layers",
    "gpt2": "h",
    "gpt_neo": "h",
}
"""`model_type` of every supported family -> the name of the trunk's list of layers."""

CAUSAL = {"is_causal": True, "use_bidirectional_attention": False, "is_encoder_decoder": False,
          "add_cross_attention": False}
"""What transformers reads from the config of any family, and what a causal model has there."""

NOT_IN_TRUNK = re.compile(
    r"^(lm_head|score)\."  # other heads
    r"|\.attn\.(attention\.)?(masked_)?bias$"  # causal masks that old GPT-2 and GPT-Neo files hold
    r"|rotary_emb\.inv_freq$"  # recomputed from the config
)
"""Tensors of published checkpoints that no reward model has."""


def check_family(config: PreTrainedConfig, where: str, family: str = "") -> None:
    """UserError unless `config` is of a supported family, and of `family` where that is given.

    `where` names the checkpoint.
    """
    if config.model_type not in LAYER_LISTS:
        raise UserError(f"{where}: model_type {config.model_type!r} is not supported: expected one "
                        f"of {', '.join(LAYER_LISTS)}; choose another base model")
    if type(config.hidden_size) is not int or config.hidden_size < 1:
        raise UserError(f"{where}: config.json says hidden_size {config.hidden_size!r}: expected 1 "
                        "or more; fetch the model again")
    both_ways = [name for name, usual in CAUSAL.items() if getattr(config, name, usual) not in (
        usual, None)]
    if both_ways:
        raise UserError(f"{where}: {both_ways[0]} is {getattr(config, both_ways[0])}: a model that "
                        "attends in both directions is not supported, for a response would be seen "
                        "from its prompt; choose a causal language model")
    if "longrope" in _rope_types(config):
        raise UserError(f"{where}: rope type longrope is not supported: where one text of a batch "
                        "is long it turns the positions of all others too, and rewards would "
                        "depend on what else is scored; choose another model")
    if family and config.model_type != family:
        raise UserError(f"{where}: model_type {config.model_type!r}, but its config says family "
                        f"{family!r}; correct `family` or `checkpoint` in configs/models")


def _rope_types(config: PreTrainedConfig) -> set[str]:
    """How rotary positions are scaled: one way, or with windows one for each type of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    ways = [found, *(way for way in found.values() if isinstance(way, dict))]
    return {way["rope_type"] for way in ways if isinstance(way.get("rope_type"), str)}


def kept_layers(total: int, count: int | None, keep: str | tuple[int, ...],
                influence: Sequence[float] = ()) -> tuple[int, ...]:
    """Indices of the base model's layers that a rung keeps, ascending.

    Args:
        total: layers of the base model.
        count: layers to keep; None for all (or, with an explicit list, for its length).
        keep: evenly_spaced ends each of `count` equal stretches, so that the last layer is always
            kept: 4 of 16 are 3, 7, 11, 15. first keeps 0 .. count - 1. first_and_last keeps both
            ends, of an odd count one more of the lower. block_influence keeps those with the most.
            Or the list itself.
        influence: of each layer, for block_influence; of equal ones the lower stays.
    Raises:
        UserError: more layers than there are, none, repeated, unsorted or out of range.
    """
    if not isinstance(keep, str):
        return _checked_list(total, count, tuple(keep))
    count = total if count is None else count
    if not 0 < count <= total:
        raise UserError(f"{count} layers to keep: the base model has {total}, so expected 1 to "
                        f"{total}; correct `layers` in the experiment's config")
    if keep == "first":
        return tuple(range(count))
    if keep == "evenly_spaced":
        return tuple((i + 1) * total // count - 1 for i in range(count))
    if keep == "first_and_last":
        return (*range(count - count // 2), *range(total - count // 2, total))
    if keep == "block_influence":
        return tuple(sorted(sorted(range(total), key=lambda i: -influence[i])[:count]))
    raise UserError(f"keep {keep!r}: expected evenly_spaced, first, first_and_last, "
                    "block_influence or a list of layers")


def _checked_list(total: int, count: int | None, keep: tuple[int, ...]) -> tuple[int, ...]:
    listed = f"layers to keep {list(keep)}"
    remedy = "correct `keep` in the experiment's config"
    if not keep or len(keep) > total:
        raise UserError(f"{listed}: expected 1 to {total} of the base model's layers; {remedy}")
    if keep[0] < 0 or max(keep) >= total:
        raise UserError(f"{listed}: out of range, the base model's layers are 0 to {total - 1}; "
                        f"{remedy}")
    if len(set(keep)) != len(keep):
        raise UserError(f"{listed}: a layer repeats; {remedy}")
    if list(keep) != sorted(keep):
        raise UserError(f"{listed}: expected ascending order; {remedy}")
    if count not in (None, len(keep)):
        raise UserError(f"{listed}: {len(keep)} layers listed but {count} asked for; {remedy}")
    return keep


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of a model of any supported family, bottom first."""
    return getattr(model.base_model, LAYER_LISTS[model.config.model_type])


def truncate_config(config: PreTrainedConfig, kept: tuple[int, ...]) -> PreTrainedConfig:
    """A copy of `config` that describes the model made of the `kept` layers alone.

    Raises:
        UserError: `kept` does not fit the config, or the family computes a layer differently
            depending on its index, so that moving it would change it.
    """
    kept = _checked_list(config.num_hidden_layers, None, kept)
    moved = kept != tuple(range(len(kept)))
    if moved and getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise UserError("this GPT-2 scales attention by the layer's index, so its layers cannot be "
                        "moved: keep the first layers (`keep: first`)")
    short = copy.deepcopy(config)
    short.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None) is not None:
        short.layer_types = [config.layer_types[i] for i in kept]
    if getattr(config, "max_window_layers", None) is not None:  # Qwen: layers before the windows
        short.max_window_layers = sum(i < config.max_window_layers for i in kept)
    if config.model_type == "gpt_neo":
        short.attention_layers = [config.attention_layers[i] for i in kept]
        short.attention_types = [[short.attention_layers, 1]]
    return short


def truncated_names(names: list[str], config: PreTrainedConfig,
                    kept: tuple[int, ...]) -> dict[str, str]:
    """Which tensors of a checkpoint stay, and what each is called in the truncated trunk.

    Args:
        names: every tensor of the checkpoint, with or without the prefix (`model.`,
            `transformer.`) that files of a whole language model have.
        config: the base model's.
        kept: layers that stay.
    Returns:
        file's name -> name in the trunk (no prefix, layer renumbered). Heads and dropped layers
        are left out.
    """
    new_index = {old: new for new, old in enumerate(kept)}
    layer = re.compile(rf"^{LAYER_LISTS[config.model_type]}\.(\d+)\.(.+)$")
    stays = {}
    for name in names:
        trunk_name = re.sub(r"^(model|transformer)\.", "", name)
        if NOT_IN_TRUNK.search(trunk_name):
            continue
        match = layer.match(trunk_name)
        if match is None:
            stays[name] = trunk_name
        elif int(match[1]) in new_index:
            layers = LAYER_LISTS[config.model_type]
            stays[name] = f"{layers}.{new_index[int(match[1])]}.{match[2]}"
    return stays


def without_weights(config: PreTrainedConfig, kept: tuple[int, ...]) -> PreTrainedModel:
    """The reward model on the `kept` layers of a base model, on the device `meta`: shapes alone."""
    short = truncate_config(config, kept)
    short.num_labels = 1
    with whole_weights(), torch.device("meta"), reading(  # ZeRO-3 would share out what is not there
            f"{config.name_or_path}/config.json", "no model can be made of it: fetch or train it "
            "again"):
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(short)](short)


def count_parameters(config: PreTrainedConfig, kept: tuple[int, ...]) -> tuple[int, int]:
    """Parameters of the reward model on the `kept` layers of a base model: (all, all that are in no
    embedding table). The second times 6 is about the floating-point operations of training on one
    token."""
    model = without_weights(config, kept)
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
