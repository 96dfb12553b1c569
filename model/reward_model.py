"""Trunk plus scalar head: built from kept layers, saved and loaded as a plain checkpoint.

A reward model is the family's own `...ForSequenceClassification` with another forward: many
responses to one prompt in a row, the reward read where the collator says. What is saved is
therefore the library's own architecture, which `AutoModelForSequenceClassification` loads and
which scores the same there. Knows nothing of losses, pairs or training.
"""

import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from model.attention.attend import choose_backend
from model.attention.family import at_last, library_implementation, library_mask, use_tree_attention
from model.attention.tree import HostLayout, Layout
from model.base.truncate import check_family, truncate_config, truncated_names
from model.base.weights import read_config, read_tensors, tensor_files, whole_weights
from model.forward_probe import check_forward, plain_rewards_of
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

HEAD = "score.weight"
CPU = torch.device("cpu")


class RewardHead(nn.Linear):
    """A linear map to one number, in fp32 whatever the weights' type, and outside autocast.

    In bf16 rewards near 4 lie 1/32 apart, and pairs tie.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d) of any float type -> (..., 1) float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight.float())


class RewardForward:
    """What every family's reward model has in common; mixed in before the library's class."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.score = RewardHead(config.hidden_size, 1, bias=False)
        self.attention = "auto"
        self.precision = "fp32"
        """What whoever runs the forward lets it compute in; the forward itself does not ask."""
        self.given_hidden: Tensor | None = None  # of the forward that is going on, see trunk.py

    def forward(self, input_ids: Tensor, position_ids: Tensor, tree: Tensor, branch: Tensor,
                last_index: Tensor, hidden: Tensor | None = None,
                host: HostLayout | None = None,
                with_states: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Rewards of the responses in each row.

        Args:
            input_ids: (B, T).
            position_ids: (B, T), restarting after the prompt for each response, and at each tree.
            tree: (B, T), the number of the token's tree in its row; -1 padding, which comes last.
            branch: (B, T), 0 prompt, 1.. the number of the response in the row; -1 padding.
            last_index: (B, R), where in the row each response's last token stands, ascending; -1
                where a row has fewer responses.
            hidden: (B, T, d), what enters the layer that `trunk.begin_above` names; None to begin
                with the tokens.
            host: what the collator knows of the rows; None to ask the tensors.
            with_states: give what rewards are read from as well.
        Returns:
            (B, R) float32; 0 where last_index is -1. With states, the final hidden states (B, R, d)
            at last_index beside it, 0 at the same places.
        """
        backend = choose_backend(self.attention, input_ids.device, self.config)
        layout = Layout(position_ids, tree, branch, last_index, backend, host)
        self.given_hidden = hidden
        states = self.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False,
                                 attention_mask=library_mask(self.config, layout),
                                 layout=layout).last_hidden_state
        read, absent = at_last(states, last_index), last_index < 0  # (B, R, d), (B, R)
        rewards = self.score(read).squeeze(-1).masked_fill(absent, 0.0)
        return (rewards, read.masked_fill(absent[..., None], 0.0)) if with_states else rewards


@functools.cache
def _reward_class(config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """The family's sequence classifier with our forward, under the library's name: that name is
    what `save_pretrained` writes as the architecture."""
    library = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[config_class]
    return type(library.__name__, (RewardForward, library), {"__module__": __name__})


def build_reward_model(base_path: Path, kept: tuple[int, ...], seed: int, *, pad_token_id: int,
                       dtype: torch.dtype = torch.float32, attention: str = "auto",
                       last_layer_shortcut: bool = True,
                       device: torch.device = CPU) -> PreTrainedModel:
    """A fresh reward model on some layers of a base model; only those layers are read.

    Under ZeRO-3 every rank calls this, the first one reads, and the weights are partitioned as they
    are loaded.

    Args:
        base_path: folder with config.json and safetensors: a language model, its bare trunk or a
            classifier, whose head is not used.
        kept: the base model's layers that stay, see `kept_layers`.
        seed: of the head alone.
        pad_token_id: written into the saved config; the forward never looks for it.
        attention: one of `model.attention.attend.BACKENDS`.
        last_layer_shortcut: see model/attention/family.py.
        device: where the weights go, tensor by tensor: the processes of a machine with GPUs then
            have one copy of the base in its memory, not one each. Not asked under ZeRO-3.
    Raises:
        UserError: no such folder, family, layer or file; tensors missing from the checkpoint.
    """
    base_config = read_config(base_path)
    check_family(base_config, str(base_path))
    if not 0 <= pad_token_id < base_config.vocab_size:
        raise UserError(f"{base_path}: pad_token_id {pad_token_id} is outside the vocabulary of "
                        f"{base_config.vocab_size}: embeddings are never resized for padding; give "
                        "the tokenizer a padding token that the model has, such as a reserved one")
    config = truncate_config(base_config, kept)
    config.num_labels = 1
    config.pad_token_id = pad_token_id
    switch_dropout_off(config)
    cls = _reward_class(type(config))
    files = tensor_files(base_path)
    names = truncated_names(list(files), base_config, kept)
    state = read_tensors(files, {name: f"{cls.base_model_prefix}.{trunk_name}"
                                 for name, trunk_name in names.items()}, dtype,
                         mapped=device.type != "cpu")
    state[HEAD] = initial_head(config.hidden_size, seed).to(dtype)
    return _load(cls, config, state, base_path, dtype, attention, last_layer_shortcut, device)


def load_reward_model(path: Path, *, dtype: torch.dtype = torch.float32, attention: str = "auto",
                      last_layer_shortcut: bool = True) -> PreTrainedModel:
    """A saved reward model to score with, ours or anybody's with one label.

    It is whole in every process that calls this, under ZeRO-3 too: nothing here is collective.

    Raises:
        UserError: see `saved_config`; weights that do not fit the config.
    """
    config = saved_config(path)
    check_family(config, str(path))
    switch_dropout_off(config)
    files = tensor_files(path)
    with whole_weights():
        state = read_tensors(files, {name: name for name in files}, dtype)
        return _load(_reward_class(type(config)), config, state, path, dtype, attention,
                     last_layer_shortcut)


def saved_config(path: Path) -> PreTrainedConfig:
    """The config of a saved reward model; what the library would silently make up is refused.

    Raises:
        UserError: not a whole checkpoint, not a reward model, or without a padding token.
    """
    config = read_config(path)
    if config.num_labels != 1:
        raise UserError(f"{path}: num_labels is {config.num_labels}, but a reward model has 1; "
                        "name the folder of a finished reward model")
    if config.pad_token_id is None:
        raise UserError(f"{path}: config.json has no pad_token_id, so that others cannot score "
                        "batches with it; add the tokenizer's padding token id to config.json")
    if HEAD not in tensor_files(path):
        raise UserError(f"{path}: no tensor {HEAD}: a language model, or a reward model saved "
                        "without its head; name the folder of a finished reward model")
    return config


def initial_head(hidden_size: int, seed: int) -> Tensor:
    """(1, d) float32 drawn from N(0, 1/sqrt(d+1)), as open-instruct does, by a local generator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, hidden_size, generator=generator) * (hidden_size + 1) ** -0.5


def switch_dropout_off(config: PreTrainedConfig) -> None:
    """Zero every dropout of a config: two responses must be judged by the same network."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, (int, float)):
            setattr(config, name, 0.0)


def _load(cls: type[PreTrainedModel], config: PreTrainedConfig, state: dict[str, Tensor],
          where: Path, dtype: torch.dtype, attention: str, last_layer_shortcut: bool,
          device: torch.device = CPU) -> PreTrainedModel:
    """A model with exactly the weights `state`: the library would invent what is missing and drop
    what is left over. The family's class is called, for the Auto class takes no state."""
    choose_backend(attention, CPU, config)
    on_cpu = device.type == "cpu" or is_deepspeed_zero3_enabled()
    placed = {} if on_cpu else {"device_map": {"": device}}
    with reading(f"{where}/config.json", "no model can be made of it: fetch or train it again"):
        model, info = from_folder(
            cls, None, config=config, state_dict=state, dtype=dtype, ignore_mismatched_sizes=True,
            attn_implementation="eager", output_loading_info=True, **placed)
    wanted, names = set(model.state_dict()), set(state)
    misfits = {"missing": wanted - names, "unknown": names - wanted,
               "of another shape": {str(key[0]) for key in info["mismatched_keys"]}}
    for kind, misfit in misfits.items():
        if misfit:
            raise UserError(f"{where}: {len(misfit)} tensors {kind}, {min(misfit)} first: the "
                            "weights do not fit config.json; fetch or train the model again")
    model.attention = attention if on_cpu else "dense"  # a compiler takes longer than the check
    plain = plain_rewards_of(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)])
    model.set_attn_implementation(library_implementation(config))
    use_tree_attention(model, last_layer_shortcut)
    check_forward(model, plain, where)
    model.attention = attention
    return model
