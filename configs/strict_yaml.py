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

from configs.errors import UserError

T = TypeVar("T")
NAME_LENGTH = 100


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
    """A YAML file's mapping; UserError where it is unreadable or something else."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    require(isinstance(value, dict), f"{path}: expected keys and values, found {value!r}")
    return value


def from_dict(cls: type[T], value: Any, where: str) -> T:
    """Build dataclass `cls` from a mapping, refusing unknown keys and wrong types."""
    require(isinstance(value, dict), f"{where}: expected keys and values, found {value!r}")
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
        require(value in args, f"{where}: {value!r} is none of {', '.join(map(str, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, where)
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list, found {value!r}")
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        require(isinstance(value, dict), f"{where}: expected keys and values, found {value!r}")
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}")
                for k, v in value.items()}
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    require(type(value) is hint, f"{where}: expected {getattr(hint, '__name__', hint)}, "
            f"found {value!r}")
    require(hint is not float or math.isfinite(value), f"{where}: expected a number, "
            f"found {value!r}")
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
