"""Methods ranked over several experiments: results/methods/."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from configs.schema import EvalConfig
from src.common.console import table_lines
from src.common.errors import UserError
from src.common.files import atomic_path
from src.evaluation.across.committed_scores import committed_scores
from src.measures.cells import correctness
from src.measures.comparisons.methods import BASELINE, COST, differences, ranking_table
from src.reports.figures.methods import methods_figure
from src.reports.figures.style import STYLE, save
from src.reports.format import count
from src.reports.methods import comparison, statement
from src.reports.results import read_csv_table


def rank_methods(experiments: Sequence[str], results_dir: Path, folder: Path) -> str:
    """Write methods.csv and its figure into `folder`; return what to print.

    Raises:
        UserError: an experiment without scores, or without a method beside the baseline.
    """
    config = EvalConfig()
    by_experiment, scored, known = {}, [], []
    for experiment in experiments:
        runs, pairs = committed_scores(results_dir / experiment)
        found = differences(correctness(runs, pairs), pairs, config,
                            seed=_place(frozenset(pairs.prompt_ids), known))
        if not found:
            raise UserError(f"{experiment}: no method beside {BASELINE} with a seed that all its "
                            "cells have: there is nothing to compare")
        costs = _costs(results_dir / experiment)
        by_experiment[pairs.experiment] = [
            dataclasses.replace(one, cost=costs.get(one.method, one.cost)) for one in found]
        scored.append(f"{pairs.experiment} (n = {count(len(pairs.pair_ids))})")
    table = ranking_table(by_experiment, config.level)
    with atomic_path(folder / "methods.csv") as partial:
        table.to_csv(partial, index=False)
    with matplotlib.rc_context(STYLE):
        figure, title, caption = methods_figure(table, "Methods against the baseline",
                                                ", ".join(scored))
        drawn = save(figure, folder / "figures", "methods", title, caption)
    shown = comparison(table)
    return "\n".join([*table_lines(shown.columns, shown.rows, shown.words, True), "",
                      statement(table), f"table:  {folder / 'methods.csv'}",
                      f"figure: {drawn.path}"])


def _place(prompts: frozenset[str], known: list[frozenset[str]]) -> int:
    """The number of a set of prompts among those that are `known`, where it stands from now on.
    Two experiments on one set draw the same prompts: they are not twice as many."""
    if prompts not in known:
        known.append(prompts)
    return known.index(prompts)


def _costs(folder: Path) -> dict[str, float]:
    """Method -> its cost, from the experiment's own methods.csv: scores do not tell."""
    table = read_csv_table(folder / "methods.csv")
    return dict(zip(table.method, table[COST], strict=True))
