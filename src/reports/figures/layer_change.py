"""How far layers moved: lines over depth, and t-SNE of the same tokens before and after."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.reports.figures.style import INK, MARKERS, METHODS, QUIET, Margins, page, panel_title

ROLES = {role: (METHODS[place], MARKERS[place])
         for place, role in enumerate(("teacher", "ceiling", "student"))}
CLOUDS = (("chosen, before", QUIET, "o"), ("rejected, before", QUIET, "^"),
          ("chosen, after", METHODS[0], "o"), ("rejected, after", METHODS[1], "^"))


def change_by_layer(table: pd.DataFrame, experiment: str, measures: Mapping[str, str],
                    level: float) -> tuple[Figure, str, str]:
    """Draw layers.csv, a panel a measure; return figure, title and caption."""
    title = f"{experiment}: how far each layer moved in reward fine-tuning"
    caption = ("A line a model, up to its last layer; means over seeds at the last token of "
               f"held-out answers, bars: {100 * level:.6g}% intervals over seeds. States of a deep "
               "layer carry what the layers below it changed; weights do not.")
    if not table.trained.all():
        caption += " Layers before a line begins did not train."
    models = [own for _, own in table[table.trained].groupby(["role", "name", "teacher"],
                                                             sort=False, dropna=False)]
    figure, axes = page(len(measures), 3, (2.6, 2.2), (0.75, 0.75), title, caption,
                        margins=Margins(left=0.62, right=1.0, top=0.4, bottom=0.5))
    for panel, (column, words) in zip(axes, measures.items(), strict=True):
        for own, aside in zip(models, _beside(models), strict=True):
            role = own.role.iloc[0]
            x, colour, marker = own.layer + aside, *ROLES[role]
            panel.vlines(x, own[f"{column}_low"], own[f"{column}_high"], color=colour,
                         linewidth=1, alpha=0.4)
            panel.plot(x, own[column], marker + "-", color=colour, markersize=3.5, linewidth=1,
                       label=role)
        panel.set_ylim(bottom=0)
        panel.set_xlim(0.4, table.layer.max() + 0.6)
        panel.set_xlabel("layer, first to last kept")
        panel_title(panel, words, "0: as it was", INK)
    lines = dict(zip(*reversed(axes[-1].get_legend_handles_labels()), strict=True))
    axes[-1].legend(lines.values(), lines.keys(), loc="upper left", bbox_to_anchor=(1.02, 1.0),
                    handletextpad=0.3)
    return figure, title, caption


def _beside(models: Sequence[pd.DataFrame]) -> list[float]:
    """How far aside to draw each model, so that those of as many layers stand side by side."""
    last = [own.layer.iloc[-1] for own in models]
    places = [last[:place].count(own) - (last.count(own) - 1) / 2
              for place, own in enumerate(last)]
    return [place * min(0.12, 0.6 / last.count(own)) for place, own in zip(places, last,
                                                                          strict=True)]


def tsne_pictures(points: Mapping[int, np.ndarray], run: str, data: str) -> tuple[Figure, str, str]:
    """Draw t-SNE of some layers: (2n, 2) each, n answers before, then after, chosen ones first."""
    answers = len(next(iter(points.values()))) // 2
    title = f"{run}: held-out answers behind each layer, before and after"
    caption = (f"t-SNE of hidden states at the last token of {answers} answers to test prompts of "
               f"{data}, each layer by itself, both states of an answer in one picture. Distances "
               "between clouds mean little.")
    figure, axes = page(len(points), 4, (1.9, 1.9), (0.15, 0.4), title, caption,
                        margins=Margins(left=0.2, right=1.5, top=0.3, bottom=0.15))
    for panel, (layer, found) in zip(axes, points.items(), strict=True):
        for (name, colour, marker), own in zip(CLOUDS, np.split(found, 4), strict=True):
            panel.plot(*own.T, marker, color=colour, markersize=2.2, alpha=0.6, label=name,
                       markeredgewidth=0)
        panel.set_title(f"layer {layer}")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
    axes[min(3, len(axes) - 1)].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0),
                                       handletextpad=0.2, markerscale=2)
    return figure, title, caption
