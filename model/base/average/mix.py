"""The arithmetic of an average, of tensors and of models in memory.

    mixed = a * base + (1 - a) * tuned       a = 1 is the base, a = 0 the tuned model

Always in fp32: what fine-tuning moves is often smaller than bf16 can tell.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.averaging import PREFIX
from src.common.errors import UserError


def mixed(base: Tensor, tuned: Tensor, a: float) -> Tensor:
    """(...) float32. At a = 0 and 1 every bit of the tuned or of the base tensor, and where the two
    are equal that number: tuned + a (base - tuned), one operation after the other, so that no piece
    of a tensor is rounded otherwise than the whole.

    Raises:
        UserError: a outside 0 to 1, or another shape.
    """
    if not 0 <= a <= 1:
        raise UserError(f"a = {a}: expected 0 (the tuned model) to 1 (its base)")
    if base.shape != tuned.shape:
        raise UserError(f"shapes {tuple(base.shape)} and {tuple(tuned.shape)}: expected a tensor "
                        "of the base and the same of the tuned model")
    if a in (0, 1):
        return (base if a == 1 else tuned).to(torch.float32, copy=True)
    tuned = tuned.to(torch.float32)
    return (base.to(torch.float32) - tuned).mul_(a).add_(tuned)


def averaged_model(base: PreTrainedModel, tuned: PreTrainedModel, weights: Mapping[str, float],
                   ) -> PreTrainedModel:
    """A new model in fp32, on the tuned one's device: what an exported average is, in memory.

    Args:
        base: with every tensor of the tuned model that has a share of it; of a cut reward model,
            the base on the same layers, as `build_reward_model` makes it.
        weights: `Recipe.weights` of the names of the tuned model's parameters.
    Raises:
        UserError: a tensor that one of the models or `weights` lacks, or of another shape.
    """
    average = copy.deepcopy(tuned).float()
    mix_into(average, base, tuned, weights)
    return average


@torch.no_grad()
def mix_into(average: PreTrainedModel, base: PreTrainedModel, tuned: PreTrainedModel,
             weights: Mapping[str, float]) -> None:
    """Overwrite `average`, a copy of the tuned model, with another average of the two: for many
    recipes one copy does."""
    of_base = {PREFIX.sub("", name): value for name, value in base.state_dict().items()}
    targets, values = dict(average.named_parameters()), dict(tuned.named_parameters())
    misfits = targets.keys() ^ weights.keys() | targets.keys() ^ values.keys()
    if misfits:
        raise UserError(f"{len(misfits)} tensors of the models and of their weights do not fit, "
                        f"{min(misfits)} first: give each parameter of the tuned model its share")
    for name, target in targets.items():
        a, other = weights[name], of_base.get(PREFIX.sub("", name))
        if other is None and a:
            raise UserError(f"tensor {name}: the base has none, so it cannot have a share of {a} "
                            "of it: name the model that was tuned")
        target.copy_(mixed(values[name] if other is None else other.to(values[name].device),
                           values[name], a))
