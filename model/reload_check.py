"""The gate before a run counts as done: what was saved scores as the model did that was trained.

Two questions. Are these the weights? The saved model is compared with the trained one in the
weights' own precision, by the same arithmetic, closely. Is it what was trained? The folder is read
by transformers alone, in fp32, one response a row, padded on the right, the way anybody else would
use it, and compared with the rewards as training computes them. Where training computes in bf16,
this second comparison is loose, and in proportion to how far the rewards lie apart.

Measured on random Llamas of 16 and 32 layers, widths 128 and 512, initialised with .02 and .04,
16 responses, as the largest difference in standard deviations (sd) of the rewards:

    fp32: ours against the library's    1.2e-6 to 5.5e-6       (sd .57 to 1.13)
    bf16: ours against itself, reloaded 0
    autocast to bf16 against fp32       .016 to .067
    bf16 weights against fp32           .022 to .073           (.15 at width 1024)
    two neighbouring layers swapped     .23 to .60             in fp32 and in bf16
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from model.base.weights import whole_weights
from model.reward_model import load_reward_model, saved_config
from src.common.pretrained import from_folder

CLOSE = 1e-3
"""Of the same precision: relative to max(1, |reward|), of the worst response."""
LOOSE = 0.5
"""Across precisions: root mean square of the differences in standard deviations of the rewards. Two
models that have nothing in common are 1.4 apart."""
LEAST_SPREAD = 0.5
"""Rewards that lie closer together than this are taken to be this far apart: bf16 errs by a share
of the rewards' own size, however alike they are."""


class ReloadError(RuntimeError):
    """A saved reward model does not score as the trained one: the save is broken, not the user."""


@dataclass(frozen=True)
class Probe:
    """A few responses with their rewards from the model in memory, to know the saved one by."""

    sequences: Sequence[Sequence[int]]
    """(N) token ids of prompt and response, unpadded; of different lengths for a good test."""
    batch: dict[str, Tensor]
    """The same responses as a reward model takes them, see `RewardForward.forward`."""
    place: Tensor
    """(N,): where in that forward's rewards, flattened, each response's is."""
    trained: Tensor
    """(N,) float32: rewards as training computes them."""
    stored: Tensor
    """(N,) float32: rewards in the precision of the weights, `dtype`, with attention `dense`."""
    dtype: torch.dtype


def check_reload(folder: Path, probe: Probe, device: torch.device | None = None) -> None:
    """Raise unless the saved model gives each response the reward that it is known to have.

    One process calls this, under every launcher: nothing in it is collective.

    Args:
        folder: a saved reward model.
        device: where the saved model is run; the CPU if None.
    Raises:
        UserError: the folder is no whole checkpoint of a reward model.
        ReloadError: tensors are missing or too many, or the rewards differ or are not finite.
    """
    device = device or torch.device("cpu")
    plain = plain_rewards(folder, probe.sequences, device)
    stored = plain if probe.dtype == torch.float32 else _own_rewards(folder, probe, device)
    gap = ((stored - probe.stored).abs() / probe.stored.abs().clamp(min=1)).max().item()
    if not gap <= CLOSE:  # also where it is NaN
        raise ReloadError(f"{folder}: rewards after reloading differ by {gap:.3g} from the trained "
                          f"model's (tolerance {CLOSE:.3g}): the save is not trusted")
    spread = max(plain.std(correction=0).item(), LEAST_SPREAD)
    gap = (plain - probe.trained).square().mean().sqrt().item() / spread
    if not gap <= LOOSE:
        raise ReloadError(f"{folder}: rewards read in fp32 differ from those of training by "
                          f"{gap:.3g} of their spread (tolerance {LOOSE:.3g}): the save is not "
                          "trusted")


def plain_rewards(folder: Path, sequences: Sequence[Sequence[int]],
                  device: torch.device | None = None) -> Tensor:
    """(N,) float32, on the CPU: rewards by the library's own classifier, read in fp32."""
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
        return model.to(device)(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            use_cache=False).logits[:, 0].cpu()


def _own_rewards(folder: Path, probe: Probe, device: torch.device) -> Tensor:
    """(N,) float32, on the CPU: rewards by our own forward, in the weights' precision."""
    model = load_reward_model(folder, dtype=probe.dtype, attention="dense").to(device).eval()
    with torch.no_grad():
        rewards = model(**{name: value.to(device) for name, value in probe.batch.items()})
    return rewards.flatten().cpu()[probe.place]
