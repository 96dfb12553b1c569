"""Functions by name: their options come from their own parameters, and are held to their types."""

import inspect
import json
import re
import unittest.mock

import pytest
import torch
import yaml
from torch import Tensor

from configs.field_types import Positive, SomeShare
from configs.identity import facts
from configs.schema import MethodConfig
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.methods import losses
from src.methods.label_treatments import TREATMENTS
from src.methods.losses import LOSSES, check_losses
from src.methods.named import Named

KINDS = Named("loss", ("margin", "label", "progress"))


@KINDS.add("mine")
def mine(margin: Tensor, progress: float, beta: Positive = 1.0, share: SomeShare = 0.5,
         side: str = "left", twice=False) -> list:
    return [margin, progress, beta, share, side, twice]


@KINDS.add("plain")
def plain(margin, label):
    return [margin, label]


def test_a_function_gets_what_it_asks_for_and_its_options():
    given = {"margin": 1, "label": 2, "progress": 3}
    assert KINDS.call("mine", given, {"beta": 4.0, "twice": True}) == [1, 3, 4.0, 0.5, "left", True]
    assert KINDS.call("plain", given, {}) == [1, 2]


def test_options_are_those_that_differ_from_the_defaults_in_the_order_of_the_function():
    options = {"twice": True, "side": "left", "share": 0.25, "beta": 1}
    assert list(KINDS.checked("mine", options, "e").items()) == [("share", 0.25), ("twice", True)]


@pytest.mark.parametrize(("name", "options", "message"), [
    ("yours", {}, "e: loss 'yours' is none of mine, plain"),
    ("mine", {"gamma": 1}, "e: loss_options: unknown key gamma; expected some of beta, share, "
                           "side, twice"),
    ("mine", {"beta": "a"}, "e: loss_options: beta 'a' must be a number"),
    ("mine", {"beta": 0}, "e: loss_options: beta 0.* must be above 0"),
    ("mine", {"share": 2.0}, "e: loss_options: share 2.0 must be at most 1"),
    ("mine", {"side": 1}, "e: loss_options: side 1 must be text"),
    ("mine", {"twice": 1}, "e: loss_options: twice 1 must be true or false"),
    ("plain", {"beta": 1.0}, "e: loss_options: loss plain has no options, found beta")])
def test_what_a_function_does_not_take_is_refused_in_a_line(name, options, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        KINDS.checked(name, options, "e")


def test_a_function_that_asks_for_what_nobody_knows_is_told_when_it_is_named():
    with pytest.raises(TypeError, match="loss odd: parameter beta: expected one of margin, label, "
                                        "progress, or a default, which makes it an option"):
        @KINDS.add("odd")
        def odd(margin, beta):
            return margin * beta


def test_a_default_that_is_spelt_out_makes_no_other_run():
    plain, spelt, other = check_losses([
        MethodConfig("a", "product", loss_options=options)
        for options in ({}, {"alpha": 1, "beta": 1.0}, {"beta": 2})], "e")
    assert facts(plain) == facts(spelt) == {"loss": "product", "aux_coef": 0.0, "warmup_frac": 0.2}
    assert facts(other) == {**facts(plain), "loss_options": {"beta": 2.0}}


def test_the_loss_that_contributing_shows_can_be_pasted():
    """Into losses.py, a list of methods and test_losses.py."""
    text = (REPO_ROOT / "CONTRIBUTING.md").read_text().partition("## A loss")[2]
    code, methods, test = (re.search(f"```{language}\n(.*?)```", text, re.DOTALL)[1]
                           for language in ("python", "yaml", "python test"))
    names = {**vars(losses), "MARGIN": torch.tensor([-1.0, 0.5]), "LABEL": torch.tensor([0.2, 0.9])}
    known = set(names)
    with unittest.mock.patch.dict(LOSSES):
        exec(code + test, names)
        method, = check_losses([MethodConfig(**each) for each in yaml.safe_load(methods)], "e")
        assert method.loss_options
        for name in set(names) - known:
            if name.startswith("test_"):
                names[name]()


@pytest.mark.parametrize("functions", [LOSSES, TREATMENTS], ids=lambda functions: functions.kind)
def test_the_page_of_methods_has_every_name_with_its_options_and_their_defaults(functions):
    page = (REPO_ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = page.split(f"| {functions.kind} | what it")[1].split("\n\n")[0]
    rows = {re.match(r"\| `(\w+)`", row)[1]: row for row in table.splitlines()[2:]}
    assert set(rows) == set(functions)
    for name, function in functions.items():
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty:
                default = parameter.default
                as_yaml = json.dumps(default) if isinstance(default, tuple) else default
                assert f"`{key}: {as_yaml}`" in rows[name]
