"""How much each layer of a base model changes what passes through it: its block influence.

    BI_i = 1 - mean over tokens of cos(x_i, x_{i+1}),    x_i what enters layer i      (ShortGPT,
                                                         arXiv 2403.03853, equation 1)

A layer of little influence is the first to go. Measured once on each set of texts, and kept beside
the base.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel, PreTrainedModel

from model.base.truncate import decoder_layers
from model.base.weights import read_config, whole_weights
from src.common.files import read_json, write_json
from src.common.lock import lock, quiet
from src.common.pretrained import from_folder


def block_influence(base_path: Path, facts: dict[str, str],
                    texts: Sequence[Sequence[int]]) -> list[float]:
    """The influence of every layer of the base model in a folder, bottom first.

    Args:
        facts: what the texts are; measured where the file beside the base has none of these.
        texts: token ids, each text alone and unpadded.
    """
    path = base_path / "block_influence.json"
    with lock(path, quiet):
        kept = _kept(path)
        for found in kept:
            if found["facts"] == facts:
                return found["influence"]
        kept.append({"facts": facts, "influence": _measure(base_path, texts)})
        write_json(path, {"measured": kept})
    return kept[-1]["influence"]


def _kept(path: Path) -> list[dict[str, Any]]:
    """What the file beside a base holds that is whole: facts, and a finite number for each of the
    base's layers."""
    measured, layers = (read_json(path) or {}).get("measured"), read_config(path.parent)
    return [each for each in (measured if isinstance(measured, list) else [])
            if isinstance(each, dict) and {"facts", "influence"} <= set(each)
            and isinstance(found := each["influence"], list)
            and len(found) == layers.num_hidden_layers
            and all(type(number) is float and math.isfinite(number) for number in found)]


@torch.no_grad()
def _measure(base_path: Path, texts: Sequence[Sequence[int]]) -> list[float]:
    with whole_weights():
        model: PreTrainedModel = from_folder(AutoModel, base_path, dtype=torch.float32).eval()
    sums, tokens = torch.zeros(len(decoder_layers(model)), dtype=torch.float64), 0

    def compare(layer: nn.Module, args: tuple, out: Tensor | tuple, *, number: int) -> None:
        after = out[0] if isinstance(out, tuple) else out
        sums[number] += (1 - nn.functional.cosine_similarity(args[0], after, dim=-1)).sum().item()

    # Hooks, for the library's list of hidden states has the last one behind the final norm.
    for number, layer in enumerate(decoder_layers(model)):
        layer.register_forward_hook(
            lambda layer, args, out, number=number: compare(layer, args, out, number=number))
    for text in tqdm(texts, desc=f"block influence of {base_path.name}", unit="text",
                     disable=len(texts) < 50):
        model(input_ids=torch.tensor([list(text)]), use_cache=False)
        tokens += len(text)
    return (sums / tokens).tolist()
