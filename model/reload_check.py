"""The gate before a run counts as done: what was saved scores as the model did that was trained.

The folder is read by transformers alone, one response a row, padded on the right: the way anybody
else would use it. Knows nothing of how it was trained.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from configs.pretrained import from_folder
from model.reward_model import saved_config
from model.weights import whole_weights


class ReloadError(RuntimeError):
    """A saved reward model does not score as the trained one: the save is broken, not the user."""


def check_reload(folder: Path, sequences: Sequence[Sequence[int]], expected: Sequence[float],
                 tolerance: float = 1e-4) -> None:
    """Raise unless the saved model gives each sequence the reward that it is known to have.

    One process calls this, under every launcher: nothing in it is collective.

    Args:
        folder: a saved reward model.
        sequences: token ids of prompt and response, unpadded; of different lengths for a good test.
        expected: their rewards from the model in memory.
        tolerance: largest allowed difference, relative to max(1, |reward|). Rewards computed in
            bf16 need about 0.05: the folder is read in fp32.
    Raises:
        UserError: the folder is no whole checkpoint of a reward model.
        ReloadError: tensors are missing or too many, or the rewards differ or are not finite.
    """
    rewards = plain_rewards(folder, sequences)
    wanted = torch.tensor(expected, dtype=torch.float32)
    gap = ((rewards - wanted).abs() / wanted.abs().clamp(min=1)).max().item()
    if not gap <= tolerance:  # also where it is NaN
        raise ReloadError(f"{folder}: rewards after reloading differ by {gap:.3g} from the trained "
                          f"model's (tolerance {tolerance:.3g}): the save is not trusted")


def plain_rewards(folder: Path, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """(N,) float32: rewards by the library's own classifier, read in fp32, on CPU."""
    config = saved_config(folder)
    with whole_weights(), torch.no_grad():
        model, info = from_folder(
            AutoModelForSequenceClassification, folder, dtype=torch.float32,
            attn_implementation="eager", output_loading_info=True, use_safetensors=True)
        misfits = {*info["missing_keys"], *info["unexpected_keys"]}
        if misfits:  # of which the library would invent some and drop the others
            raise ReloadError(f"{folder}: {len(misfits)} tensors missing or too many, "
                              f"{min(misfits)} first: the save is not trusted")
        length = max(map(len, sequences))
        pads = [length - len(sequence) for sequence in sequences]
        rows = [[*ids, *[config.pad_token_id] * pad]
                for ids, pad in zip(sequences, pads, strict=True)]
        mask = [[1] * (length - pad) + [0] * pad for pad in pads]
        return model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask),
                     use_cache=False).logits[:, 0]
