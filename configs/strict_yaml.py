"""The strict way from YAML to dataclasses: unknown keys and wrong types are UserErrors that name
the file and the key. pydantic checks them, the words are ours. Knows no config of ours.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import yaml
from pydantic import ConfigDict, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from src.common.errors import UserError

T = TypeVar("T")
NAME_LENGTH = 100
SHOWN_CHARS = 200
MOST_NODES = 100_000
"""Values in a YAML file, one that aliases repeat counted each time: a few lines can ask for more
than any memory holds."""
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
WORDS = {"Input should be": "must be", "a valid tuple": "a list",
         "a valid dictionary": "keys and values", "a valid integer": "a whole number",
         "a valid number": "a number", "a valid boolean": "true or false", "a valid string": "text",
         "greater than or equal to": "at least", "less than or equal to": "at most",
         "greater than": "above", "less than": "below",
         "Value should have at least 1 item after validation, not 0": "must not be empty"}
"""What pydantic says, and how it is said here."""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless `condition`."""
    if not condition:
        raise UserError(message)


def require_name(name: str, where: str = "") -> str:
    """`name`; UserError unless it can be a part of a folder's name."""
    require(0 < len(name) <= NAME_LENGTH and not name.startswith(".") and name.isprintable()
            and not set(name) & set("/\\"),
            f"{where}{name[:NAME_LENGTH]!r} becomes part of a folder's name: it needs 1 to "
            f"{NAME_LENGTH} printable characters, the first no dot, and no slash")
    return name


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which the library keeps the last in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                problem=f"key {', '.join(twice)} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; UserError where it is unreadable or something else.

    Besides its own errors the library lets through those of Python on numbers, dates and keys that
    Python cannot hold.
    """
    try:
        loader = _StrictLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _count(node, {})
        value = None if node is None else loader.construct_document(node)
    except RecursionError as error:
        raise UserError(f"{path}: not readable as YAML: nested too deeply") from error
    except (OSError, yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError,
            OverflowError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    require(isinstance(value, dict), f"{path}: expected keys and values, found {shown(value)}")
    return value


def _count(node: yaml.Node | None, counted: dict[int, int | None]) -> int:
    """How many values a node stands for; ValueError above MOST_NODES, or where it holds itself.

    Args:
        counted: what is known of nodes by their id; None while a node is being counted.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = None
        parts = node.value if isinstance(node, yaml.SequenceNode) else (
            part for pair in node.value for part in pair)
        counted[id(node)] = 1 + sum(_count(part, counted) for part in parts)
    count = counted[id(node)]
    if count is None:
        raise ValueError("an alias stands inside what it names")
    if count > MOST_NODES:
        raise ValueError(f"its aliases make more than {MOST_NODES:,} values of it")
    return count


def shown(value: Any) -> str:
    """A value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of so many digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass that only comes to be of values that fit its types.

    Its constructor takes mappings for dataclasses in it, and raises UserError with key and value.
    """
    cls._of_mapping = model_validator(mode="wrap")(classmethod(_of_mapping))
    cls = dataclass(frozen=True, config=STRICT)(cls)
    names = [field.name for field in dataclasses.fields(cls)]

    @functools.wraps(cls.__init__)
    def init(self: T, /, *args: Any, **values: Any) -> None:
        given = ArgsKwargs(args[len(names):], dict(zip(names, args, strict=False)) | values)
        try:
            self.__pydantic_validator__.validate_python(given, self_instance=self)
        except ValidationError as error:
            raise UserError(_told(error.errors(include_url=False), names)) from None

    cls.__init__ = init
    return cls


def _of_mapping(cls: type[T], value: Any, build: Callable[[Any], T]) -> T:
    return build(value if isinstance(value, ArgsKwargs | cls) else from_dict(cls, value))


def from_dict(cls: type[T], value: Any, where: str = "") -> T:
    """Build the `config` class `cls` from a mapping; UserErrors begin with `where`."""
    place = where and f"{where}: "
    require(isinstance(value, dict), f"{place}expected keys and values, found {shown(value)}")
    try:
        return cls(**{str(key): each for key, each in value.items()})
    except UserError as error:
        raise UserError(f"{place}{error}") from error


def _told(errors: list[dict[str, Any]], names: list[str]) -> str:
    """What is wrong, in a line: keys before values, and of the values the first key's."""
    unknown, missing = ([each["loc"][0] for each in errors if each["type"] == kind]
                        for kind in ("unexpected_keyword_argument", "missing"))
    if unknown:
        return f"unknown key {', '.join(sorted(unknown))}; expected some of {', '.join(names)}"
    if missing:
        return f"key {', '.join(missing)} is missing"
    # two, because what fits neither side of a union is an error for each
    key = errors[0]["loc"][:1]
    return " / ".join(_wrong(each) for each in errors[:2] if each["loc"][:1] == key)


def _wrong(error: dict[str, Any]) -> str:
    """The place (`layers[2]`, `files.test`), the value, and what was expected of it."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]
                    if isinstance(part, int) or "[" not in part).removeprefix(".")  # a union's side
    if error["type"] == "value_error":  # a check of our own
        return ": ".join(filter(None, (place, str(error["ctx"]["error"]))))
    message = error["msg"]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return f"{place} {shown(error['input'])} {message}"
