"""How two models are averaged, tensor by tensor: `configs/averaging/*.yaml`.

    averaged = a * base + (1 - a) * tuned        a = 1 is the base, a = 0 the tuned model

Decoder layers stand in blocks that have an `a` each; embeddings, final norm and heads have a policy
of their own. A tensor is told by its parsed name, never by a part of it.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from configs.field_types import Count, Name, Natural, NotNegative, Positive, Several, Share
from configs.strict_yaml import config, from_dict, read_yaml, require
from src.common.errors import UserError

FOLDER = Path(__file__).resolve().parent / "averaging"
GROUPS = {
    "embed": re.compile(r"(embed_tokens|wte|wpe)\.weight"),
    "final_norm": re.compile(r"(norm|ln_f)\.(weight|bias)"),
    "lm_head": re.compile(r"lm_head\.(weight|bias)"),
    "head": re.compile(r"score\.weight"),
}
"""What is in no decoder layer, by its name in a trunk."""
LAYER = re.compile(r"(?:layers|h)\.(\d+)\..+")
PREFIX = re.compile(r"^(model|transformer)\.")
TAX_PAIRS = 64
"""Of training, whose texts a tax under a budget is measured on."""
SPLIT = re.compile(r"split\|([\d#]*)\|([\d.|]+)")


@config
class Adaptive:
    """How the ratios of blocks are learned: the paper's adaptive averaging (arXiv 2309.06256, B.1)
    on weak labels of pairs that did not train the tuned model.

    Lowers the cross-entropy of the labels, plus penalty * sum m |a - mean|, over ratios whose mean
    over blocks, each counting m, is that of the recipe; or, with a `tax_budget`, over ratios of any
    mean that cost no more language than that.
    """

    solver: Literal["gradient", "grid"] = "gradient"
    """gradient: Adam on a number a block. grid: every point of a simplex, forward only."""
    target: Literal["weak", "student", "oracle"] = "weak"
    """What is predicted: the teacher's labels; the tuned model's own (the paper's choice); or human
    labels, which a row must be called after."""
    form: Literal["bisection", "published"] = "bisection"
    """published: a sigmoid plus eps over their sum (the paper's eq. 11), which may leave 0 to 1."""
    eps: NotNegative = 0.2
    """Of the published form."""
    counted: Literal["layers", "equal"] = "layers"
    """What a block counts in the mean: its layers, or as every other."""
    low: Share = 0.0
    high: Share = 1.0
    penalty: NotNegative = 0.0
    steps: Count = 60
    """Of Adam."""
    learning_rate: Positive = 0.1
    batch_pairs: Count = 256
    """Pairs of a step of Adam."""
    grid_steps: Annotated[Count, Field(le=100)] = 10
    """Of a grid, from low to high along each block."""
    pairs: Count = 1000
    """At most this many, evenly spaced, of the val pairs."""
    tax_budget: NotNegative | None = None
    """Nats a token that the average may be worse at foretelling training texts than its base, both
    under the base's own head; null to hold the mean instead. The paper knows the mean alone."""

    def __post_init__(self):
        require(self.low < self.high, f"low {self.low} must be below high {self.high}")
        require(self.tax_budget is None or self.form == "bisection", "form published has a fixed "
                f"mean, which tax_budget {self.tax_budget} takes the place of: leave one out")


@config
class Recipe:
    """Which share of the base each tensor gets."""

    name: Name
    alphas: Annotated[Several[Share], Field(min_length=1)]
    """Of each block, bottom first; or one, of all of them. Where ratios are learned one, their
    mean, or under a tax budget where learning begins."""
    blocks: Count | Literal["each"] | Several[Natural] = 1
    """The last layer of each block but the top one (`[10, 20]`: 0-10, 11-20, 21 and up); or how
    many blocks of as equal size as there are; or each: a block a layer."""
    embed: Literal["mean", "first"] | Share = "mean"
    """Tables of tokens and positions: the mean over layers, the lowest block's, or a number."""
    final_norm: Literal["mean", "last"] | Share = "mean"
    lm_head: Literal["mean", "last"] | Share = "mean"
    """A language model's head where it is no table of tokens. Reward models have none."""
    head: Literal["keep", "refit"] = "keep"
    """A reward model's: the tuned model's; or a logistic regression of weak labels on the averaged
    model's hidden states, of pairs that trained neither."""
    adaptive: Adaptive | None = None
    """How the blocks' own are learned, from the one in `alphas`; null to take them as they are."""

    def __post_init__(self):
        if isinstance(self.blocks, tuple):
            require(list(self.blocks) == sorted(set(self.blocks)), f"recipe {self.name}: blocks "
                    f"{list(self.blocks)}: expected the last layer of each block, ascending")
        if self.adaptive is not None:
            require(len(self.alphas) == 1, f"recipe {self.name}: alphas {list(self.alphas)}: an "
                    "adaptive recipe has one, the mean of what is learned")
            low, high, mean = self.adaptive.low, self.adaptive.high, self.alphas[0]
            require(self.adaptive.tax_budget is None or low < mean < high, f"recipe {self.name}: "
                    f"alphas [{mean}]: under a tax_budget learning begins there, which must lie "
                    f"between low {low} and high {high}")
            require(mean in (0, 1) or low <= mean <= high, f"recipe {self.name}: a mean of {mean} "
                    f"lies outside low {low} and high {high}")
        elif isinstance(self.blocks, int | tuple) and len(self.alphas) > 1:
            count = self.blocks if isinstance(self.blocks, int) else len(self.blocks) + 1
            require(len(self.alphas) == count, f"recipe {self.name}: {len(self.alphas)} alphas for "
                    f"{count} blocks: give each block one")

    @property
    def holds_tax(self) -> bool:
        """Whether ratios are learned under a tax budget."""
        return self.adaptive is not None and self.adaptive.tax_budget is not None

    @property
    def needs_labels(self) -> bool:
        """Whether it says less than all: ratios or a head are learned, from pairs of val."""
        return self.adaptive is not None or self.head == "refit"

    def bounds(self, layers: int) -> tuple[int, ...]:
        """The last layer of each block of a model of `layers` layers, ascending.

        Raises:
            UserError: fewer layers than blocks.
        """
        if self.blocks == "each":
            return tuple(range(layers))
        if isinstance(self.blocks, int):
            require(self.blocks <= layers, f"recipe {self.name}: {self.blocks} blocks, but the "
                    f"model has {layers} layers: give fewer")
            return tuple((i + 1) * layers // self.blocks - 1 for i in range(self.blocks))
        require(not self.blocks or self.blocks[-1] < layers - 1, f"recipe {self.name}: blocks "
                f"{list(self.blocks)}, but the model's layers are 0 to {layers - 1}, and the top "
                "block begins above the last of these: give lower ones")
        return (*self.blocks, layers - 1)

    def of_layers(self, layers: int) -> tuple[float, ...]:
        """The a of each decoder layer, bottom first."""
        bounds = self.bounds(layers)
        alphas = self.alphas * len(bounds) if len(self.alphas) == 1 else self.alphas
        require(len(alphas) == len(bounds), f"recipe {self.name}: {len(alphas)} alphas for "
                f"{len(bounds)} blocks: give each block one")
        sizes = [end - start for start, end in zip((-1, *bounds), bounds, strict=False)]
        return tuple(a for a, size in zip(alphas, sizes, strict=True) for _ in range(size))

    def at(self, mean: float) -> "Recipe":
        """The recipe with another mean over its blocks: the one ratio of all, or all of them in
        proportion.

        Raises:
            UserError: in proportion one would be above 1.
        """
        now, highest = mean_of(self.alphas), max(self.alphas)
        if len(self.alphas) > 1 and highest * mean > now:
            raise UserError(f"recipe {self.name}: at a mean of {mean} its highest ratio would be "
                            f"{highest * mean / max(now, 1e-9):.3f}: expected a mean of at most "
                            f"{now / highest if highest else 0:.3f}")
        alphas = (mean,) if len(self.alphas) == 1 else tuple(
            a * mean / now if now else mean for a in self.alphas)
        return replace(self, alphas=alphas)

    def weights(self, names: Iterable[str], layers: int) -> dict[str, float]:
        """The a of each tensor, by the name that it came with.

        Args:
            names: of a checkpoint or a module's state, with `model.` or `transformer.` or without.
            layers: decoder layers of the model.
        Raises:
            UserError: a name that no rule knows; blocks that the model has no layers for.
        """
        require(self.adaptive is None, f"recipe {self.name}: its ratios are learned on the weak "
                "labels of an experiment: name it under `averages` of one")
        of_layers = self.of_layers(layers)
        policies = {"mean": mean_of(of_layers), "first": of_layers[0], "last": of_layers[-1]}
        found = {}
        for name in names:
            group = group_of(name)
            if isinstance(group, int):
                require(group < layers, f"tensor {name}: the model has {layers} layers")
                found[name] = of_layers[group]
            else:
                policy = 0.0 if group == "head" else getattr(self, group)
                found[name] = policies.get(policy, policy)
        return found


def group_of(name: str) -> int | str:
    """The decoder layer that a tensor is of, or its group, a key of GROUPS.

    Raises:
        UserError: a name that no rule knows.
    """
    trunk_name = PREFIX.sub("", name)
    match = LAYER.fullmatch(trunk_name)
    if match:
        return int(match[1])
    for group, names in GROUPS.items():
        if names.fullmatch(trunk_name):
            return group
    raise UserError(f"tensor {name}: neither of a decoder layer nor an embedding, final norm or "
                    "head: how it is averaged has to be decided, so nothing was")


def mean_of(alphas: Iterable[float]) -> float:
    """The mean, which of equal numbers is that number to the last bit."""
    alphas = list(alphas)
    return alphas[0] if len(set(alphas)) == 1 else math.fsum(alphas) / len(alphas)


def load_recipe(name: str) -> Recipe:
    """The recipe called `name` of configs/averaging, that of a YAML file, or of a published string
    such as `split|10#20|0.4|0.3|0.2`.

    Raises:
        UserError: no such recipe; an unknown key; an impossible value.
    """
    if name.startswith("split|"):
        return published(name)
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
        raise UserError(f"no recipe {name!r}: expected one of {known}, the path of a YAML file, or "
                        "a string such as split|10#20|0.4|0.3|0.2")
    return from_dict(Recipe, {"name": path.stem, **read_yaml(path)}, str(path))


def published(text: str) -> Recipe:
    """The recipe that a part-wise string of the paper's code means (weight_interpolation.py of
    avalonstrel/Mitigating-the-Alignment-Tax-of-RLHF): bounds are inclusive, embeddings follow the
    lowest block. Its final norm and head follow an option that the string does not hold: here the
    mean.

    Raises:
        UserError: not of that form, or another number of ratios than of blocks.
    """
    match = SPLIT.fullmatch(text)
    try:
        bounds = [int(bound) for bound in match[1].split("#") if bound]
        alphas = [float(alpha) for alpha in match[2].split("|")]
    except (TypeError, ValueError) as error:
        raise UserError(f"{text!r}: expected bounds and one ratio more than these, such as "
                        "split|10#20|0.4|0.3|0.2") from error
    require(len(alphas) == len(bounds) + 1, f"{text!r}: {len(alphas)} ratios for "
            f"{len(bounds) + 1} blocks: give one more ratio than bounds")
    return from_dict(Recipe, {"name": "published", "blocks": bounds, "alphas": alphas,
                              "embed": "first"}, repr(text))
