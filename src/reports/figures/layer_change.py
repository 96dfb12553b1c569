"""How far layers moved: lines over depth, and t-SNE of the same tokens before and after."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.reports.figures.style import (
    INK,
    MARKERS,
    METHODS,
    QUIET,
    Margins,
    label_ends,
    page,
    panel_title,
)
from src.reports.format import model_name, number

CLOUDS = (("chosen, before", QUIET, "o"), ("rejected, before", QUIET, "^"),
          ("chosen, after", METHODS[0], "o"), ("rejected, after", METHODS[1], "^"))


def change_by_layer(table: pd.DataFrame, experiment: str, measures: Mapping[str, str],
                    level: float) -> tuple[Figure, str, str]:
    """Draw layers.csv, a panel a measure; return figure, title and caption."""
    title = f"{experiment}: how far each layer moved in reward fine-tuning"
    caption = ("Means over seeds at the last token of held-out answers; bars: "
               f"{100 * level:.6g}% intervals over seeds. States of a deep layer carry what the "
               "layers below it changed; weights do not.")
    if not table.trained.all():
        caption += " Layers that stand at 0 did not train."
    groups = [own for _, own in table.groupby(["role", "name", "teacher"], sort=False)]
    names = [model_name(next(own.itertuples())) for own in groups]
    room = 0.3 + 0.062 * (max(map(len, names)) + 6)
    figure, axes = page(len(measures), 2, (2.6, 2.2), (room + 0.6, 0.8), title, caption,
                        margins=Margins(left=0.62, right=room, top=0.4, bottom=0.5))
    for panel, (column, words) in zip(axes, measures.items(), strict=True):
        ends = []
        for place, (name, own) in enumerate(zip(names, groups, strict=True)):
            colour = METHODS[place % len(METHODS)]
            x = own.layer + 0.06 * (place - len(groups) / 2)
            panel.vlines(x, own[f"{column}_low"], own[f"{column}_high"], color=colour,
                         linewidth=1, alpha=0.7)
            panel.plot(x, own[column], MARKERS[place % len(MARKERS)] + "-", color=colour,
                       markersize=4, linewidth=1)
            last = own[column].iloc[-1]
            ends.append((last, f"{name} {number(last)}", colour))
        panel.set_ylim(bottom=0)
        panel.set_xlabel("layer, first to last kept")
        panel_title(panel, words, "0: as it was", INK)
        label_ends(panel, ends)
    return figure, title, caption


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
