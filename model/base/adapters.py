"""Low-rank adapters on a reward model's decoder layers (LoRA, Hu et al. 2021), by the library peft.

A linear layer's output W x becomes W x + alpha / rank * B A x: A starts random and B at 0, so that
the model starts as the base model. The adapters and a copy of the head are all that trains. What
peft saves of them, `adapter_model.safetensors` and `adapter_config.json`, is read back by

    peft.PeftModel.from_pretrained(model, folder)

onto a sequence classifier on the base model's kept layers, whatever its head: the trained one is in
the file. Nothing here looks at data, losses or the trainer.
"""

import math

import peft
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from configs.schema import LoraConfig
from model.base.truncate import decoder_layers, without_weights
from src.common.errors import UserError

ALL_LINEAR = "all_linear"
HEAD = "score"


def adapter_parameters(config: PreTrainedConfig, layers: tuple[int, ...], lora: LoraConfig,
                       where: str = "") -> int:
    """Parameters of the adapters on those layers of a base model, without the head.

    Raises:
        UserError: a target that no layer has; `where` begins the message.
    """
    decoder = decoder_layers(without_weights(config, layers))
    names = _target_names(decoder, lora, where)
    sizes = [module.weight.shape for name, module in _linear(decoder).items()
             if _leaf(name) in names]  # Conv1D keeps the transpose, of the same sum
    return sum(lora.rank * sum(size) for size in sizes)


def add_adapters(model: PreTrainedModel, lora: LoraConfig, below: int,
                 seed: int) -> peft.PeftModel:
    """The model with adapters on layers `below` and up; all else but the head is frozen.

    Its forward is the model's own, which `get_base_model()` gives back. Of GPT-2 these are Conv1D
    layers, which keep the transpose of their weight.

    Args:
        model: whole or, under ZeRO-3, shared out; changed in place.
        seed: of the random A.
    Raises:
        UserError: a target that no layer has.
    """
    layers = decoder_layers(model)
    model.name_or_path = ""  # "None" at first, and peft would ask the hub for a model called so
    transposed = any(isinstance(module, Conv1D) for module in layers.modules())
    adapted = peft.get_peft_model(model, peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=_target_names(layers, lora, ""),
        layers_to_transform=list(range(below, len(layers))), modules_to_save=[HEAD],
        fan_in_fan_out=transposed), autocast_adapter_dtype=False)  # ZeRO wants one type
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:  # as peft draws it, but from a generator of our own
            drawn = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(drawn)
    return adapted


def _target_names(layers: nn.ModuleList, lora: LoraConfig, where: str) -> list[str]:
    """The names of the linear layers that get adapters."""
    there = sorted({_leaf(name) for name in _linear(layers)})
    if lora.targets == ALL_LINEAR:
        return there
    absent = [name for name in lora.targets if name not in there]
    if absent:
        place = where and f"{where}: "
        raise UserError(f"{place}lora targets {', '.join(absent)}: no linear layer of the model's "
                        f"decoder layers is called so; expected {ALL_LINEAR} or some of "
                        f"{', '.join(there)}")
    return sorted(set(lora.targets))


def _linear(layers: nn.ModuleList) -> dict[str, nn.Module]:
    return {name: module for name, module in layers.named_modules()
            if isinstance(module, nn.Linear | Conv1D)}


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
