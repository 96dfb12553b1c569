"""Our forward against the library's, on one made pair, whenever a model is loaded.

What a config may change about a family's forward is not known in full: a model that attends in both
directions, or a switch of a release to come, would train to the end and score wrong in silence.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from src.common.errors import UserError

PROMPT, RESPONSES = 9, (4, 6)
"""Tokens of the pair."""
TOLERANCE = {torch.float32: 1e-3}
"""Relative to max(1, |reward|). Both forwards round alike in fp32, and not in 16 bits."""
TOLERANCE_16 = 0.5
"""Relative to the head's length too, which is how far apart rewards lie. Random Llamas of up to 32
layers were .15 off in bf16, see reload_check.py."""


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def plain_rewards_of(model: PreTrainedModel, library: type[PreTrainedModel]) -> Tensor | None:
    """(2,): the rewards of the pair by the library's own forward, over the same weights.

    To be called before our attention is put in. None under ZeRO-3, where a process holds a part of
    the weights (there the saved model is compared, at the end), and on the device `meta`, which
    holds none.
    """
    if is_deepspeed_zero3_enabled() or model.device.type == "meta":
        return None
    prompt, responses = _pair(model)
    rewards = []
    for response in responses:
        ids = torch.cat([prompt, response])[None]  # (1, T), without padding
        rewards.append(library.forward(model, input_ids=ids, attention_mask=torch.ones_like(ids),
                                       use_cache=False).logits[0, 0].float())
    return torch.stack(rewards)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def check_forward(model: PreTrainedModel, plain: Tensor | None, where: Path) -> None:
    """Raise unless our forward gives the pair the rewards of the library's.

    Raises:
        UserError: it does not: naming both rewards.
    """
    if plain is None:
        return
    prompt, responses = _pair(model)
    first, second = map(len, responses)
    ids = torch.cat([prompt, *responses])[None]
    position = torch.cat([torch.arange(PROMPT), *(PROMPT + torch.arange(size)
                                                  for size in (first, second))])[None]
    branch = torch.tensor([0] * PROMPT + [1] * first + [2] * second)[None]
    last = torch.tensor([[PROMPT + first - 1, PROMPT + first + second - 1]])
    here = model.device
    ours = model(input_ids=ids, position_ids=position.to(here), tree=torch.zeros_like(ids),
                 branch=branch.to(here), last_index=last.to(here))[0].float()
    head = model.score.weight.float().norm().item()
    least = 1.0 if model.dtype in TOLERANCE else max(1.0, head)
    gap = ((ours - plain).abs() / plain.abs().clamp(min=least)).max().item()
    if not gap <= TOLERANCE.get(model.dtype, TOLERANCE_16):
        raise UserError(
            f"{where}: this repository's forward gives a pair the rewards "
            f"{', '.join(f'{value:.4f}' for value in ours.tolist())}, transformers' own "
            f"{', '.join(f'{value:.4f}' for value in plain.tolist())}: config.json asks for "
            "something that is not supported here; choose another model")


def _pair(model: PreTrainedModel) -> tuple[Tensor, list[Tensor]]:
    """Token ids of a prompt and two responses, none of them the padding token."""
    pad = model.config.pad_token_id
    known = torch.tensor([i for i in range(min(model.config.vocab_size, 4096)) if i != pad])
    sizes = (PROMPT, *RESPONSES)
    drawn = torch.randint(len(known), (sum(sizes),), generator=torch.Generator().manual_seed(0))
    prompt, *responses = known[drawn].to(model.device).split(sizes)
    return prompt, responses
