"""A recipe as mergekit writes one, for those who merge with that: method linear, weights a and
1 - a, not normalised. Its documentation: https://github.com/arcee-ai/mergekit, docs/merge_methods.

A list of values is spread over the layers, and what stands before or after them gets the first one:
so every layer has an entry of its own, and every other tensor a filter.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.averaging import group_of
from model.base.average.match import Matched


def as_mergekit(found: Sequence[Matched], base: Path, tuned: Path,
                kept: Sequence[int]) -> dict[str, Any]:
    """The YAML's content. A base whose every layer is kept is named whole, a cut one layer by
    layer."""
    of_layer = {group_of(each.name): each.a for each in found}
    layers = [of_layer[layer] for layer in range(len(kept))]
    rest = {each.name: each.a for each in found if isinstance(group_of(each.name), str)}
    common = {"merge_method": "linear", "dtype": "float32", "parameters": {"normalize": False}}
    if tuple(kept) == tuple(range(len(kept))):
        return common | {"models": [
            {"model": str(model), "parameters": {"weight": _weights(layers, rest, tuned_share)}}
            for model, tuned_share in ((base, False), (tuned, True))]}
    return common | {"slices": [{"sources": [
        {"model": str(model), "layer_range": [layer, layer + 1],
         "parameters": {"weight": _weights([a], rest, tuned_share)}}
        for model, layer, tuned_share in ((base, old, False), (tuned, new, True))]}
        for new, (old, a) in enumerate(zip(kept, layers, strict=True))]}


def _weights(layers: Sequence[float], rest: dict[str, float],
             tuned_share: bool) -> list[dict[str, Any]]:
    def share(a: float) -> float:
        return 1 - a if tuned_share else a

    filtered = [{"filter": name, "value": share(a)} for name, a in rest.items()]
    return [*filtered, {"value": [share(a) for a in layers]}]
