"""A reward model's trunk under its base's own head: the language model that is left of the base."""

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from src.common.errors import UserError
from src.common.pretrained import from_folder

HEAD = "lm_head.weight"


class WholeHead(nn.Linear):
    """A linear map in fp32 outside autocast: two answers of one token tie where log-odds are
    rounded to bf16, and the first would win."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d) of any float type -> (..., V) float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight.float())


def as_language_model(model: PreTrainedModel, head: Tensor) -> PreTrainedModel:
    """The library's own language model made of the trunk of `model` and of `head`, in evaluation
    mode. Its tensors may be those of `model`: change neither while the other is used.

    Args:
        model: a reward model; its own head is left out.
        head: (V, d), from `head_weight` of the base. It is not tied to the trunk's embeddings,
            which may have moved.
    Raises:
        UserError: the head is of another width or vocabulary than the trunk.
    """
    config = type(model.config).from_dict(model.config.to_dict())
    config.tie_word_embeddings = False
    wanted = (config.vocab_size, config.hidden_size)
    if tuple(head.shape) != wanted:
        raise UserError(f"the base's head is {tuple(head.shape)}, but the model's trunk needs "
                        f"{wanted}: name the base that the model was made from")
    cls = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    prefix = f"{model.base_model_prefix}."
    state = {name: tensor for name, tensor in model.state_dict().items()
             if name.startswith(prefix)}
    made = from_folder(cls, None, config=config, state_dict={**state, HEAD: head},
                       dtype=head.dtype)
    whole = WholeHead(*reversed(head.shape), bias=False, device="meta")
    whole.weight = made.lm_head.weight
    made.lm_head = whole
    return made.to(head.device).eval()
