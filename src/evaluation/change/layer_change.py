"""Which layers does reward fine-tuning change? results/layer_change/<experiment>/.

Every run's hidden states and weights, layer by layer, beside those of the same layers untrained,
on the same answers of the test pairs. The claim "deep layers change more" is a slope over depth.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from configs.run import RunConfig
from configs.schema import EvalConfig
from model.base.truncate import decoder_layers
from model.base.trunk import frozen_of
from src.common.files import atomic_path, write_text
from src.common.hashing import commit
from src.evaluation.change.before_after import (
    SPLIT,
    BeforeAfter,
    after,
    baseline_runs,
    before,
    before_and_after,
    held_out_texts,
    runtime_of,
)
from src.measures.cells import interval_fields
from src.measures.change.layers import (
    depth_order,
    depth_slope,
    linear_cka,
    mean_cosine,
    over_seeds,
    relative_change,
    side_by_side,
)
from src.reports.document import to_markdown
from src.reports.figures.layer_change import change_by_layer, tsne_pictures
from src.reports.figures.style import STYLE, save
from src.reports.layer_change import blocks, console
from src.runs.freed import require_weights
from src.runs.plan import Plan
from src.scoring.layer_states import Entering, states_behind_layers

TEXTS = 2000
"""Answers that the numbers are of, at most; half of them chosen."""
PICTURED = 400
"""Of them in the pictures."""
PANELS = 8
MEASURES = {"states": "1 - CKA", "direction": "1 - cosine", "weights": "relative weight change"}
"""Column -> what it is: the higher, the more the layer changed."""

Change = dict[str, np.ndarray]
"""Measure -> (L,), of one run."""


def write_layer_change(plan: Plan, runs_dir: Path, results_dir: Path) -> str:
    """Write layers.csv, depth.csv, two figures and report.md; return what to print.

    Raises:
        UserError: no run is finished, or the weights of one were freed.
    """
    groups, config = baseline_runs(plan, runs_dir), plan.experiment.eval
    for _, folder in (each for runs in groups.values() for each in runs):
        require_weights(folder)
    changes = _changes(groups, plan)
    frozen = {key: frozen_of(runs[0][0]) for key, runs in groups.items()}
    layers = layers_table(plan, changes, frozen, config)
    depth = depth_table(plan, changes, frozen, config)
    folder = results_dir / "layer_change" / plan.experiment.name
    for name, table in (("layers", layers), ("depth", depth)):
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    run, own = _pictured(groups)
    pictures = _tsne(run, own, plan)
    with matplotlib.rc_context(STYLE):
        drawn = [save(*_named(folder, name, found)) for name, found in (
            ("layers", change_by_layer(layers, plan.experiment.name, MEASURES, config.level)),
            ("tsne", tsne_pictures(pictures, run.display_name, plan.data.name)))]
    facts = {"experiment": plan.experiment.name, "data": f"{plan.data.name}, split {SPLIT}",
             "commit": commit(), "date": datetime.date.today().isoformat()}
    write_text(folder / "report.md", to_markdown(
        f"Which layers change: {plan.experiment.name}", blocks(layers, depth, drawn, facts)))
    return "\n".join([*console(depth), f"report: {folder / 'report.md'}"])


def _named(folder: Path, name: str, found: tuple) -> tuple:
    figure, title, caption = found
    return figure, folder / "figures", name, title, caption


def _changes(groups: dict, plan: Plan) -> dict[tuple, list[tuple[int, Change]]]:
    """Each group's runs: (seed, change)."""
    def read(model: PreTrainedModel, run: RunConfig, entering: Entering) -> np.ndarray:
        return states_behind_layers(model, held_out_texts(plan, run, TEXTS), runtime_of(plan),
                                    entering)

    runs = [each for found in groups.values() for each in found]
    changes = {each.run.identity: _change(each)
               for each in before_and_after(runs, plan, "layers", read)}
    return {key: [(run.seed, changes[run.identity]) for run, _ in found]
            for key, found in groups.items()}


def _change(both: BeforeAfter) -> Change:
    """The measures of each layer: 0 of those that are equal."""
    pairs = list(zip(both.before[both.equal:], both.after, strict=True))
    own = {"states": [1 - linear_cka(*pair) for pair in pairs],
           "direction": [1 - mean_cosine(*pair) for pair in pairs],
           "weights": [relative_change(*(_tensors(model, number)
                                         for model in (both.cut, both.tuned)))
                       for number in range(both.equal, len(both.run.kept))]}
    return {name: np.array([0.0] * both.equal + values) for name, values in own.items()}


def _tensors(model, number: int) -> dict[str, np.ndarray]:
    """Name -> tensor of one decoder layer."""
    return {name: tensor.detach().float().cpu().numpy()
            for name, tensor in decoder_layers(model)[number].named_parameters()}


def layers_table(plan: Plan, changes: dict, frozen: dict, config: EvalConfig) -> pd.DataFrame:
    """layers.csv: one row a group and layer, means over seeds.

    Args:
        frozen: of each group's layers, how many of the lowest did not train.
    """
    rows = []
    for key, found in changes.items():
        for layer in range(len(found[0][1]["weights"])):
            spans = {name: over_seeds([change[name][layer] for _, change in found], config.level)
                     for name in MEASURES}
            rows.append({**_facts(plan, key, found), "layer": layer + 1,
                         "trained": layer >= frozen[key],
                         **{field: value for name, span in spans.items()
                            for field, value in interval_fields(name, span).items()}})
    return pd.DataFrame(rows)


def depth_table(plan: Plan, changes: dict, frozen: dict, config: EvalConfig) -> pd.DataFrame:
    """depth.csv: one row a group and measure: what the deepest layer changes more than the first
    that trained, on a straight line, and the rank correlation with depth. Layers below, which could
    not change, are left out: they alone would make the answer yes."""
    rows = []
    for key, found in changes.items():
        for name in MEASURES:
            values = [change[name][frozen[key]:] for _, change in found]
            slope = over_seeds([depth_slope(each) for each in values], config.level)
            says = "yes" if slope.low > 0 else "no" if slope.high < 0 else "not told"
            rows.append({**_facts(plan, key, found), "measure": name,
                         "trained_layers": len(values[0]), **interval_fields("slope", slope),
                         "rank": float(np.mean([depth_order(each) for each in values])),
                         "deeper_changes_more": says})
    return pd.DataFrame(rows)


def _facts(plan: Plan, key: tuple[str, str, str], found: Sequence[tuple[int, Change]]) -> dict:
    role, name, teacher = key
    return {"experiment": plan.experiment.name, "role": role, "name": name, "teacher": teacher,
            "seeds": " ".join(str(seed) for seed, _ in found)}


def _pictured(groups: dict) -> tuple[RunConfig, Path]:
    """The first seed of the deepest ceiling; of a teacher where there are no ceilings."""
    rank = {"teacher": 0, "student": 1, "ceiling": 2}
    return max((runs[0] for runs in groups.values()),
               key=lambda each: (rank[each[0].kind], len(each[0].kept)))


def _tsne(run: RunConfig, folder: Path, plan: Plan) -> dict[int, np.ndarray]:
    """Layer -> (2n, 2), of some of the layers, evenly spaced: n answers before, then after; of
    either the first half are the chosen ones."""
    texts = held_out_texts(plan, run, PICTURED)
    states = [states_behind_layers(model, texts, runtime_of(plan))
              for model in (before(run, plan), after(run, folder, plan))]
    places = np.unique(np.linspace(0, len(run.kept) - 1, PANELS).round().astype(int))
    return {int(place) + 1: side_by_side(*(each[place] for each in states), seed=0)
            for place in places}
