"""Which tensor of a base belongs to which of a model that was tuned from it, or from some of its
layers. Reads names and shapes, no values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.averaging import PREFIX, Recipe, group_of
from configs.strict_yaml import read_yaml
from model.base.average.stream import Place, places
from model.base.language_head import head_name
from model.base.truncate import NOT_IN_TRUNK, check_family, truncated_names
from model.base.weights import read_config
from src.common.errors import UserError


@dataclass(frozen=True)
class Matched:
    """One tensor of an average."""

    name: str
    """As the tuned model calls it."""
    base: Place | None
    """None for a reward model's head, of which a base has none."""
    tuned: Place
    a: float
    block: str
    """`block 2, layer 5`, or the group: for people."""


def match(base: Path, tuned: Path, recipe: Recipe,
          kept: tuple[int, ...] | None = None) -> list[Matched]:
    """Every tensor of the average of two folders, in the tuned model's order.

    Args:
        kept: the base's layers that the tuned model has; None for what its config.yaml says, or
            all.
    Raises:
        UserError: models of other families or layers; a tensor that one of them lacks, that has
            another shape or that no rule of the recipe knows.
    """
    base_config, config = read_config(base), read_config(tuned)
    check_family(config, str(tuned))
    check_family(base_config, str(base), config.model_type)
    layers = config.num_hidden_layers
    kept = kept or kept_of(tuned, base)
    if len(kept) != layers:
        raise UserError(f"{tuned} has {layers} layers, but {len(kept)} of {base} were named: "
                        f"{list(kept)}; name those that it was made of")
    of_base, of_tuned = places(base), _of_model(places(tuned), config.tie_word_embeddings)
    renamed = {trunk: name for name, trunk in truncated_names(list(of_base), base_config,
                                                              kept).items()}
    pairs = {name: _partner(name, base, renamed) for name in of_tuned}
    _require_same(set(renamed.values()) - set(pairs.values()), base, tuned)
    weights = recipe.weights(of_tuned, layers)
    found = []
    for name, place in of_tuned.items():
        other = of_base.get(pairs[name])
        _require_pair(name, other, place, weights[name], base, tuned)
        found.append(Matched(name, other, place, weights[name], block_of(name, recipe, layers)))
    return found


def kept_of(tuned: Path, base: Path) -> tuple[int, ...]:
    """The base's layers that a tuned model was made of, as its run's config says; else all.

    Raises:
        UserError: neither.
    """
    if (tuned / "config.yaml").is_file():
        kept = read_yaml(tuned / "config.yaml").get("kept")
        if isinstance(kept, list):
            return tuple(kept)
    had, layers = (read_config(folder).num_hidden_layers for folder in (base, tuned))
    if had != layers:
        raise UserError(f"{tuned} has {layers} layers and {base} {had}: say which of these it was "
                        "made of, such as --keep 3 7 11 15")
    return tuple(range(layers))


def block_of(name: str, recipe: Recipe, layers: int) -> str:
    """`block 2, layer 5`, both from 0, or `embed`."""
    group = group_of(name)
    if isinstance(group, str):
        return group
    return f"block {sum(group > bound for bound in recipe.bounds(layers))}, layer {group}"


def _of_model(found: Mapping[str, Place], tied: bool) -> dict[str, Place]:
    """Without what is recomputed, and a tied head that the file holds all the same."""
    return {name: place for name, place in found.items()
            if (not NOT_IN_TRUNK.search(PREFIX.sub("", name)) or name.startswith("score."))
            or (name.startswith("lm_head.") and not tied)}


def _partner(name: str, base: Path, renamed: Mapping[str, str]) -> str | None:
    """The base's tensor: for a language model's head its own or, where it is tied, its table."""
    if name.startswith("lm_head."):
        return head_name(base)
    return renamed.get(PREFIX.sub("", name))


def _require_same(left_over: set[str], base: Path, tuned: Path) -> None:
    if left_over:
        raise UserError(f"{tuned} lacks {len(left_over)} tensors of {base}, {min(left_over)} "
                        "first: name the base that it was tuned from")


def _require_pair(name: str, other: Place | None, place: Place, a: float, base: Path,
                  tuned: Path) -> None:
    if other is None and (a or group_of(name) != "head"):
        raise UserError(f"{base} has no tensor {name}, which {tuned} has: name the base that it "
                        "was tuned from")
    if other is not None and other.shape != place.shape:
        raise UserError(f"{name} is {list(other.shape)} in {base} and {list(place.shape)} in "
                        f"{tuned}: name the base that it was tuned from; a vocabulary that was "
                        "resized cannot be averaged")
