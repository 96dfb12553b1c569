"""The averages of a student and its base that an experiment asks for, as runs."""

import dataclasses
from collections.abc import Sequence

from configs.averaging import Recipe, load_recipe
from configs.run import RunConfig
from configs.schema import AverageConfig
from src.common.errors import UserError
from src.methods.labelling import ORACLE


def recipes_of(averages: Sequence[AverageConfig], where: str) -> list[Recipe]:
    """Each recipe at each of its alphas, named as methods are: `uniform_0.4`, `part_wise`.

    Raises:
        UserError: no such recipe; alphas that it cannot take; two of one name.
    """
    found = [recipe for average in averages for recipe in _at(average)]
    names = [recipe.name for recipe in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: averages repeat {', '.join(twice)}, which no table could tell "
                        "apart: leave one out or name it otherwise in configs/averaging")
    return found


def _at(average: AverageConfig) -> list[Recipe]:
    recipe = load_recipe(average.recipe)
    if not average.alphas:
        return [recipe]
    if recipe.holds_tax:
        raise UserError(f"averages: alphas {list(average.alphas)} of {average.recipe}, whose mean "
                        "its tax_budget leaves open: leave them out, and write a recipe for each "
                        "budget")
    return [dataclasses.replace(recipe.at(a), name=f"{recipe.name}_{a:g}") for a in average.alphas]


def average_of(student: RunConfig, recipe: Recipe) -> RunConfig:
    """The average of a student's run by a recipe. What reads human labels is called so."""
    name = f"{student.method.name}+{recipe.name}"
    if recipe.adaptive is not None and recipe.adaptive.target == "oracle":
        name = name if name.startswith(ORACLE) else f"{ORACLE}_{name}"
    return dataclasses.replace(student, kind="average", earlier=student.identity, average=recipe,
                               method=dataclasses.replace(student.method, name=name))
