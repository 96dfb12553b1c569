"""The strict way from YAML to dataclasses: unknown keys and wrong types are UserErrors that name
the file and the key. Knows no config of ours.
"""

import contextlib
import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from src.common.errors import UserError

T = TypeVar("T")
NAME_LENGTH = 100
SHOWN_CHARS = 200
MOST_NODES = 100_000
"""Values in a YAML file, one that aliases repeat counted each time: a few lines can ask for more
than any memory holds."""


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless `condition`."""
    if not condition:
        raise UserError(message)


def require_name(name: str, where: str) -> None:
    """Raise UserError unless `name` can be a part of a folder's name."""
    require(0 < len(name) <= NAME_LENGTH and not name.startswith(".") and name.isprintable()
            and not set(name) & set("/\\"),
            f"{where}: name {name[:NAME_LENGTH]!r} becomes part of a folder's name: it needs 1 to "
            f"{NAME_LENGTH} printable characters, the first no dot, and no slash")


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


def from_dict(cls: type[T], value: Any, where: str) -> T:
    """Build dataclass `cls` from a mapping, refusing unknown keys and wrong types."""
    require(isinstance(value, dict), f"{where}: expected keys and values, found {shown(value)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(str(key) for key in set(value) - set(fields))
    require(not unknown, f"{where}: unknown key {', '.join(unknown)}; expected some of "
            f"{', '.join(fields)}")
    missing = [name for name, f in fields.items() if name not in value
               and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    require(not missing, f"{where}: key {', '.join(missing)} is missing")
    parsed = {key: _convert(hints[key], item, f"{where}: {key}") for key, item in value.items()}
    try:
        return cls(**parsed)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`; ints pass as floats, lists as tuples, nothing else is guessed."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is Literal:
        require(value in args, f"{where}: {shown(value)} is none of {', '.join(map(str, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, where)
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list, found {shown(value)}")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        require(isinstance(value, dict), f"{where}: expected keys and values, found {shown(value)}")
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}")
                for k, v in value.items()}
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            value = float(value)
    require(type(value) is not int or abs(value) < 1 << 63,
            f"{where}: {shown(value)} is beyond what a number may be here, 2^63")
    require(type(value) is hint, f"{where}: expected {getattr(hint, '__name__', hint)}, "
            f"found {shown(value)}")
    require(hint is not float or math.isfinite(value), f"{where}: expected a number, "
            f"found {shown(value)}")
    return value


def _convert_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for option in (arg for arg in args if arg is not type(None)):
        try:
            return _convert(option, value, where)
        except UserError as error:
            errors.append(str(error))
    raise UserError(" / ".join(errors))
