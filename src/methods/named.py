"""Functions that a method calls by name, each with options of its own.

A parameter without a default is something that the caller knows and any of them may ask for. One
with a default is an option, which YAML sets and whose type it is held to:

    @LOSSES.add("mine")
    def mine(margin: Tensor, label: Tensor, beta: Positive = 1.0) -> Tensor:

    - {name: mine, loss: mine, loss_options: {beta: 2.0}}
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from configs.strict_yaml import config, from_dict, require, shown


class Named(dict[str, Callable[..., Any]]):
    """Functions of one kind by their names.

    Args:
        kind: what they are called, and the key of a method that names one.
        known: what any of them may ask for.
    """

    def __init__(self, kind: str, known: tuple[str, ...]):
        super().__init__()
        self.kind, self.known = kind, known
        self._options: dict[str, type] = {}

    def add(self, name: str) -> Callable[[Callable], Callable]:
        """Decorator: give a function its name. TypeError where it asks for what nobody knows."""
        def added(function: Callable) -> Callable:
            self[name] = function
            for asked in self.asks(name):
                if asked not in self.known:
                    raise TypeError(f"{self.kind} {name}: parameter {asked}: expected one of "
                                    f"{', '.join(self.known)}, or a default, which makes it an "
                                    "option")
            self._options[name] = _options_of(function)
            return function
        return added

    def asks(self, name: str) -> list[str]:
        """What the function called `name` wants to be given, of what is known."""
        return [key for key, parameter in inspect.signature(self[name]).parameters.items()
                if parameter.default is parameter.empty]

    def checked(self, name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Those of `options` that are not the function's defaults, so that a default that is spelt
        out makes no other run of it.

        Raises:
            UserError: no function of this name; an option that it has not; an impossible value.
        """
        require(name in self, f"{where}: {self.kind} {shown(name)} is none of {', '.join(self)}")
        place = f"{where}: {self.kind}_options"
        known = dataclasses.fields(self._options[name])
        require(bool(known) or not options, f"{place}: {self.kind} {name} has no options, found "
                f"{', '.join(map(str, options))}")
        found = dataclasses.asdict(from_dict(self._options[name], dict(options), place))
        return {option.name: found[option.name] for option in known
                if found[option.name] != option.default}

    def option(self, name: str, options: Mapping[str, Any], key: str, otherwise: Any) -> Any:
        """The option `key`, given or by default, of the function called `name`; `otherwise` where
        it has none of that name."""
        return options.get(key, getattr(self._options[name], key, otherwise))

    def call(self, name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """What the function makes of what it asks for, and of its options."""
        return self[name](**{key: given[key] for key in self.asks(name)}, **options)


def _options_of(function: Callable) -> type:
    """The config class whose keys are the function's parameters with a default."""
    types = get_type_hints(function, include_extras=True)
    options = {key: parameter.default
               for key, parameter in inspect.signature(function).parameters.items()
               if parameter.default is not parameter.empty}
    hints = {key: types.get(key, type(default)) for key, default in options.items()}
    return config(type(function.__name__, (), {"__annotations__": hints, **options}))
