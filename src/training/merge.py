"""A run's adapters, merged into a plain folder that knows nothing of them.

The trainer saves the adapters and the head; the base model's weights are read once more, in fp32.
What is kept beside the merged weights is loaded onto the same layers of the base model as
model/base/adapters.py says.
"""

import dataclasses
from pathlib import Path

import peft
import torch
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from configs.run import RunConfig
from model.base.weights import whole_weights
from model.reload_check import Probe, ReloadError
from model.reward_model import build_reward_model
from src.common import distributed
from src.common.files import read_json, write_json
from src.runs.bases import BaseModel
from src.runs.folders import ADAPTER


def save_merged(run: RunConfig, base: BaseModel, folder: Path, probe: Probe) -> Probe:
    """Save base plus adapters of `folder`/adapter to `folder`, in fp32; one process calls this.

    Args:
        probe: of the model that was trained.
    Returns:
        What the saved model has to score as: the probe, and where the trained model's weights were
        bf16, in which a sum of two weights rounds otherwise than the sum of two products, with the
        rewards of the adapters in fp32 before they are merged.
    Raises:
        ReloadError: the adapters are not whole.
    """
    device = distributed.device()
    with whole_weights():
        model = build_reward_model(base.path, run.kept, run.seed, attention="dense",
                                   pad_token_id=base.tokenizer.pad_token_id)
        adapted = _read_adapters(model, folder / ADAPTER).to(device).eval()
    if probe.dtype != torch.float32:
        with torch.no_grad():
            rewards = adapted(**{name: value.to(device) for name, value in probe.batch.items()})
        probe = dataclasses.replace(probe, stored=rewards.flatten().cpu()[probe.place],
                                    dtype=torch.float32)
    adapted.merge_and_unload().save_pretrained(folder)
    _tidy(folder / ADAPTER, base)
    return probe


def _read_adapters(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """The model with what `folder` holds; peft would pass over what is missing or too much."""
    held = load_file(folder / "adapter_model.safetensors")
    config = peft.LoraConfig(**{**read_json(folder / "adapter_config.json"),
                                "inference_mode": True})
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    misfits = set(held) ^ set(get_peft_model_state_dict(adapted))
    if misfits:
        raise ReloadError(f"{folder}: {len(misfits)} tensors missing or too many, {min(misfits)} "
                          "first: the save is not trusted")
    set_peft_model_state_dict(adapted, held)
    return adapted


def _tidy(adapter: Path, base: BaseModel) -> None:
    """Name the base model as others know it, and no class of ours; peft's card says nothing."""
    path = adapter / "adapter_config.json"
    facts = read_json(path)
    facts.update(base_model_name_or_path="" if base.config.is_local else base.config.checkpoint,
                 auto_mapping=None, target_modules=sorted(facts["target_modules"]))
    write_json(path, facts)
    (adapter / "README.md").unlink(missing_ok=True)
