"""Accuracy of teachers by the rule that chose their layers, one panel a model of an experiment."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.figures.style import MARKERS, METHODS, Margins, label_ends, page, panel_title
from src.reports.format import count, number

BAR = 0.16
"""Between the rules of one depth; depths are 1 apart."""
GROUP = ["experiment", "model", "data"]
"""What rules are compared within: two experiments may train one model on the same data."""


def in_several(table: pd.DataFrame) -> bool:
    """Whether experiments share a model and data, so that their names tell them apart."""
    return table.groupby(["model", "data"]).experiment.nunique().max() > 1


def accuracy_by_rule(table: pd.DataFrame, level: float) -> tuple[Figure, str, str]:
    """Draw rows of which_layers.csv, those of one depth each; return figure, title and caption."""
    panels = [own for _, own in table.groupby(GROUP, sort=False)]
    several = in_several(table)
    rules = list(dict.fromkeys(table.keep))
    title = "Which layers a teacher keeps: accuracy by rule and depth"
    caption = (f"Means over seeds; bars: {100 * level:.6g}% intervals over prompts and seeds, of "
               "each rule alone: rules meet the same pairs, so that differences are surer than "
               "bars look.")
    room = 0.3 + 0.058 * (max(map(len, rules)) + 6)
    figure, axes = page(len(panels), 2, (2.3, 2.1), (room + 0.5, 0.85), title, caption,
                        margins=Margins(left=0.62, right=room, top=0.45, bottom=0.5))
    for place, own in enumerate(panels):
        first = own.iloc[0]
        _panel(axes[place], own, rules)
        panel_title(axes[place], first.experiment if several else first.model,
                    f"{first.data}, n = {count(first.n)}", "black")
        if place % 2 == 0:
            axes[place].set_ylabel(f"accuracy on {first.split}")
    return figure, title, caption


def _panel(axes: Axes, rows: pd.DataFrame, rules: list[str]) -> None:
    depths = list(dict.fromkeys(rows.layers))
    labels = []
    for place, rule in enumerate(rules):
        own = rows[rows.keep == rule]
        x = [depths.index(layers) + BAR * (place - (len(rules) - 1) / 2) for layers in own.layers]
        colour = METHODS[place % len(METHODS)]
        axes.vlines(x, own.low, own.high, color=colour, linewidth=1.2, alpha=0.75)
        axes.plot(x, own.accuracy, MARKERS[place % len(MARKERS)], color=colour, markersize=4.5,
                  markeredgecolor="white", markeredgewidth=0.5)
        if len(own):
            last = own.accuracy.iloc[-1]
            labels.append((last, f"{rule} {number(last)}", colour))
    axes.set_xticks(range(len(depths)), depths)
    axes.set_xlim(-0.5, len(depths) - 0.5)
    axes.set_xlabel("layers kept")
    label_ends(axes, labels)
