"""A mixture: which data configs are read for it, and which of their files.

A source of a mixture keeps its own rules: form, columns, comparisons. Splits, lengths and seed are
the mixture's. A source's own test and val files stay out, for they are what others report on.
"""

from collections.abc import Sequence
from dataclasses import replace

from configs.schema import DataConfig, load_config
from data.read.sources import as_fixture
from src.common.errors import UserError

HELD_OUT = ("test", "val")
RULES = ("form", "keys", "columns", "texts", "template", "compare", "pointwise", "wrong_move",
         "hub_config", "hub_dir", "hub_split", "header", "encoding")
"""What a mixture leaves to its sources."""


def parts_of(config: DataConfig) -> list[DataConfig]:
    """The configs that are read for `config`: the sources of a mixture, or itself.

    Raises:
        UserError: an unknown source, one that is there twice, a mixture of mixtures, a source that
            has nothing but files to test on, or a rule that a source should have.
    """
    if not config.sources:
        return [config]
    _refuse_rules(config)
    parts = [load_config(DataConfig, name) for name in config.sources]
    names = [part.name for part in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data/{config.name}: sources: {', '.join(twice)} is there twice: list "
                        "each source once")
    for family in config.expected:
        if not sources_of(family, names):
            raise UserError(f"data/{config.name}: expected: {family}: no source is called so, or "
                            f"begins so; they are {', '.join(names)}")
    return [_part(config, part) for part in parts]


def sources_of(family: str, names: Sequence[str]) -> list[str]:
    """The sources that a key of a mixture's `expected` speaks of: the one called so, and those
    whose names begin so. What is published for HH as a whole lies here in three sources."""
    return [name for name in names if f"{name}_".startswith(f"{family}_")]


def _refuse_rules(config: DataConfig) -> None:
    plain = DataConfig(name=config.name, path="none")
    stray = [rule for rule in RULES if getattr(config, rule) != getattr(plain, rule)]
    if stray:
        raise UserError(f"data/{config.name}: {', '.join(stray)}: a mixture reads each source by "
                        "the source's own rules: say it in the configs of its sources")


def _part(mixture: DataConfig, part: DataConfig) -> DataConfig:
    """A source as the mixture reads it: fixture, limit and max_bad_frac of the mixture hold."""
    if part.sources:
        raise UserError(f"data/{mixture.name}: sources: {part.name} is a mixture itself: list its "
                        f"sources instead ({', '.join(part.sources)})")
    files = {name: path for name, path in part.files.items() if name not in HELD_OUT}
    if part.files and not files:
        raise UserError(f"data/{mixture.name}: sources: {part.name} has files to test on and none "
                        "to train on: name it in decontaminate, not in sources")
    limits = [limit for limit in (mixture.limit, part.limit) if limit is not None]
    part = replace(part, files=files, limit=min(limits, default=None),
                   max_bad_frac=max(mixture.max_bad_frac, part.max_bad_frac))
    return as_fixture(part) if mixture.fixture else part
