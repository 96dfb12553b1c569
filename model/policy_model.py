"""A language model on some of a base model's layers, with its own head: what a policy is made of.

It is the library's own class, untouched, so that TRL trains it and anybody loads it with
`AutoModelForCausalLM`. Knows nothing of rewards or preferences.
"""

from pathlib import Path

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from model.base.language_head import HEADS, head_name
from model.base.truncate import check_family, kept_layers, truncate_config, truncated_names
from model.base.weights import read_config, read_tensors, tensor_files, whole_weights
from model.reload_check import ReloadError
from model.reward_model import switch_dropout_off
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder


def load_language_model(path: Path, kept: tuple[int, ...] | None = None) -> PreTrainedModel:
    """The language model in `path`, in fp32 on the CPU, on its `kept` layers or all of them.

    Args:
        path: a base model, or a finished policy.
    Raises:
        UserError: no such checkpoint, family or layer; no language head; tensors missing.
    """
    base = read_config(path)
    check_family(base, str(path))
    kept = kept or kept_layers(base.num_hidden_layers, None, "first")
    files, head = tensor_files(path), head_name(path)
    if head is None:
        raise UserError(f"{path}: no tensor {HEADS[0]}, so no language model: name one with its "
                        "head")
    config = truncate_config(base, kept)
    config.use_cache = True
    switch_dropout_off(config)  # TRL's own way passes over that of attention
    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    names = {name: f"{cls.base_model_prefix}.{trunk}"
             for name, trunk in truncated_names(list(files), base, kept).items()}
    if not config.tie_word_embeddings:
        names[head] = HEADS[0]
    with whole_weights(), reading(f"{path}/config.json", "fetch or train the model again"):
        state = read_tensors(files, names, torch.float32)
        model, info = from_folder(cls, None, config=config, state_dict=state, dtype=torch.float32,
                                  output_loading_info=True)
    misfits = sorted({*info["missing_keys"], *info["unexpected_keys"],
                      *(key[0] for key in info["mismatched_keys"])})
    if misfits:
        raise UserError(f"{path}: {len(misfits)} tensors missing, unknown or of another shape, "
                        f"{misfits[0]} first: fetch or train the model again")
    return model


def check_saved(model: PreTrainedModel, folder: Path) -> None:
    """Raise ReloadError unless `folder` holds the weights of `model`, bit for bit."""
    held, wanted = load_language_model(folder).state_dict(), model.state_dict()
    wrong = [name for name in {**held, **wanted} if name not in held or name not in wanted
             or not torch.equal(held[name], wanted[name].cpu())]
    if wrong:
        raise ReloadError(f"{folder}: {len(wrong)} tensors are others than were trained, "
                          f"{min(wrong)} first: the save is not trusted")
