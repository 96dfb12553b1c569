"""The treatment that a method names: whether it can have it, and what that makes of labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from configs.run import RunConfig
from configs.schema import MethodConfig
from configs.strict_yaml import require, shown
from src.methods.label_treatments import TREATMENTS, Taught

ORACLE = "oracle"
"""How the names of methods that read human labels begin."""


def treat(method: MethodConfig, given: Mapping[str, Any]) -> Taught:
    """What a student of `method` learns from a split, of what its treatment asks for."""
    found = TREATMENTS.call(method.treatment, given, method.treatment_options)
    return found if isinstance(found, Taught) else Taught(found)


def keep_share(method: MethodConfig) -> float:
    """About which share of the pairs a student of `method` learns from: known without a label."""
    return TREATMENTS.option(method.treatment, method.treatment_options, "keep_share", 1.0)


def val_reader(run: RunConfig) -> str:
    """What of a run reads val, for people; empty where nothing does."""
    if run.average is not None:  # of a student that is a run of its own
        return f"recipe {run.average.name}" if run.average.needs_labels else ""
    if run.train.early_stopping_evals:
        return "early stopping"
    asked = TREATMENTS.asks(run.method.treatment)
    return f"treatment {run.method.treatment}" if any(
        each.startswith("val_") for each in asked) else ""


def first_of(method: MethodConfig, methods: Sequence[MethodConfig]) -> MethodConfig:
    """The one at the head of the methods that `method` is after: its teachers are those of all."""
    return method if not method.after else first_of(
        next(other for other in methods if other.name == method.after), methods)


def of_several(method: MethodConfig, methods: Sequence[MethodConfig]) -> bool:
    """Whether a student learns from all teachers together, instead of from each by itself."""
    return "labels" in TREATMENTS.asks(first_of(method, methods).treatment)


def is_link(method: MethodConfig, methods: Sequence[MethodConfig]) -> bool:
    """Whether a student of `method` stands on the way to another one of its chain."""
    return any(other.name == method.name and len(other.through) > len(method.through)
               for other in methods)


def check_treatments(methods: Sequence[MethodConfig], teachers: int,
                     where: str) -> tuple[MethodConfig, ...]:
    """The methods, of their treatments' options only those that are no defaults.

    Args:
        where: names the methods' experiment, for the message.
    Raises:
        UserError: a treatment without code, or not with these options; what it asks for is not
            there, or is a human label; an order of pairs, for a probe.
    """
    checked = []
    for method in methods:
        name = f"{where}: method {method.name}"
        options = TREATMENTS.checked(method.treatment, method.treatment_options, name)
        _check_asked(method, methods, teachers, f"{name}: treatment {shown(method.treatment)}")
        orders = TREATMENTS.option(method.treatment, options, "first_frac", 0.0) > 0
        require(not orders or method.learner == "gradient", f"{name}: treatment "
                f"{shown(method.treatment)} gives pairs an order, and learner {method.learner} "
                "takes all at once: leave out learner")
        checked.append(dataclasses.replace(method, treatment_options=options))
    return tuple(checked)


def _check_asked(method: MethodConfig, methods: Sequence[MethodConfig], teachers: int,
                 name: str) -> None:
    asked = set(TREATMENTS.asks(method.treatment))
    require("earlier" not in asked or bool(method.after),
            f"{name} learns from an earlier student: name its method under after")
    require("earlier" in asked or not method.after,
            f"{name} learns from no earlier student: leave out after {method.after}")
    several = of_several(method, methods)
    require(not (several and method.through), f"{name} is of several teachers: a chain begins with "
            "one: leave out through")
    require(teachers > 1 or not several,
            f"{name} is of several teachers, and there is one: name more under teachers")
    require(not (several and asked & {"label", "val_label"}),
            f"{name} is of one teacher, and {method.after}, which it is after, of several")
    require(several or "labels" not in asked,
            f"{name} is of several teachers, and {method.after}, which it is after, of one")
    _check_oracle(method, asked, name)


def _check_oracle(method: MethodConfig, asked: set[str], name: str) -> None:
    """Whatever reads human labels has a name that says so."""
    stops = method.stop_on == "truth"
    require(not (stops and "truth" in asked), f"{name} gives human labels of val to stop on: leave "
            "out stop_on truth")
    oracle = "truth" in asked or stops or method.after.startswith(ORACLE)
    require(not oracle or method.name.startswith(ORACLE), f"{name}"
            f"{', stop_on truth,' if stops else ''} reads human labels: a name that begins with "
            f"{ORACLE} marks its rows, such as {ORACLE}_{method.name}")
