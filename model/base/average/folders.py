"""Two checkpoints on disk into one, a piece of a tensor at a time: neither is ever in memory.

What is made lies beside its place until it is whole, and only then gets its name.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import yaml
from torch import Tensor

from configs.averaging import Recipe, group_of
from model.base.average.match import Matched, kept_of, match
from model.base.average.mergekit import as_mergekit
from model.base.average.mix import mixed
from model.base.average.stream import pieces, write_tensors
from src.common.errors import UserError
from src.common.files import write_json, write_text
from src.common.lock import lock
from src.common.owned import CHECKPOINT, claim, require_ours

KIND = "an averaged model"
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
SAMPLED = 1 << 16
"""Of each piece, the elements that rounding is judged by: all of them would cost as much as the
average itself."""
BITS = {torch.bfloat16: 8, torch.float16: 11}
"""Of the significand, the hidden one too."""


@dataclasses.dataclass
class Rounding:
    """How far tuning moved a model against how far its 16-bit weights lie apart."""

    moved: float = 0.0
    apart: float = 0.0

    def add(self, base: Tensor, tuned: Tensor) -> None:
        """Count a piece of a tensor, where the tuned one is of 16 bits."""
        if tuned.dtype in BITS:
            values = tuned[:SAMPLED].float()
            exponents = torch.frexp(values).exponent - BITS[tuned.dtype]
            self.moved += (base[:SAMPLED].float() - values).abs_().sum().item()
            self.apart += torch.exp2(exponents.float()).sum().item()

    def warning(self, tuned: Path) -> str:
        """A line about weights that were rounded; empty where none were."""
        if not self.apart:
            return ""
        return (f"warning: {tuned} is stored in 16 bits: mean|tuned - base| is "
                f"{self.moved / self.apart:.2g} of the step between two such numbers. Below 10 or "
                "so rounding has changed what an average of it means: average the fp32 weights")


def average_folders(base: Path, tuned: Path, recipe: Recipe, out: Path, *,
                    kept: tuple[int, ...] | None = None, head: Tensor | None = None,
                    show: Callable[[Iterable[Matched]], Iterable[Matched]] = iter) -> str:
    """Write the average of two checkpoints to the new or empty folder `out`, in fp32: a checkpoint
    as the tuned one is, with its tokenizer, recipe.yaml and mergekit.yaml.

    Args:
        kept: see `match`.
        head: (1, d) in place of the tuned reward model's, which a recipe with `head: refit` needs.
        show: told of each tensor when its turn comes, such as a progress bar.
    Returns:
        A warning, or nothing.
    Raises:
        UserError: see `match`; `out` holds something; `refit` without a head.
    """
    found = match(base, tuned, recipe, kept)
    require_new(out)
    partial = out.with_name(f".{out.name}.partial")
    with lock(partial):
        require_new(out)  # nor has another launch made it while this one waited
        require_ours(partial, KIND, "--out")
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        claim(partial, KIND, "--out")
        try:
            warning = fill(partial, base, tuned, recipe, found, head, show)
            write_text(partial / "mergekit.yaml", yaml.safe_dump(
                as_mergekit(found, base, tuned, kept or kept_of(tuned, base)), sort_keys=False))
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return warning


def require_new(out: Path) -> None:
    """UserError unless an average may be made at `out`: nothing is written over."""
    require_ours(out, KIND, "--out")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: holds an averaged model already: name a new folder")


def fill(folder: Path, base: Path, tuned: Path, recipe: Recipe, found: list[Matched],
         head: Tensor | None = None,
         show: Callable[[Iterable[Matched]], Iterable[Matched]] = iter) -> str:
    """Write an average into a folder, its config.json last: until then nothing loads it. Returns a
    warning, or nothing."""
    if recipe.head == "refit" and head is None:
        raise UserError(f"recipe {recipe.name}: a head is refitted on the weak labels of an "
                        "experiment: name the recipe under `averages` of one, or keep the head")
    rounding = Rounding()
    write_tensors(folder / "model.safetensors", {each.name: each.tuned.shape for each in found},
                  (_values(each, head, rounding) for each in show(found)))
    for pattern in set(CHECKPOINT) - {"config.json", "README.md", *WEIGHTS}:
        for path in tuned.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    write_text(folder / "recipe.yaml", as_yaml(recipe))
    facts = json.loads((tuned / "config.json").read_text(encoding="utf-8"))
    facts.pop("torch_dtype", None)
    write_json(folder / "config.json", facts | {"dtype": "float32"})
    return rounding.warning(tuned)


def as_yaml(recipe: Recipe) -> str:
    """A recipe as a file of configs/averaging holds it."""
    return yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(recipe))), sort_keys=False)


def _values(each: Matched, head: Tensor | None, rounding: Rounding) -> Iterator[Tensor]:
    if head is not None and group_of(each.name) == "head":
        yield head.detach().float().cpu().flatten()
    elif each.base is None or (each.a == 0 and each.tuned.dtype not in BITS):
        yield from (piece.float() for piece in pieces(each.tuned))
    else:
        for of_base, of_tuned in zip(pieces(each.base), pieces(each.tuned), strict=True):
            rounding.add(of_base, of_tuned)
            yield mixed(of_base, of_tuned, each.a)
