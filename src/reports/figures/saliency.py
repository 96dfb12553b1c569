"""Accuracy and PGR over the share of pre-training text that says what is right."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.figures.style import (
    CEILING,
    INK,
    METHODS,
    QUIET,
    TEACHER,
    Margins,
    page,
    panel_title,
)

APART = 0.12
"""Between the methods of one share; shares are 1 apart."""


def saliency_figure(table: pd.DataFrame, level: float) -> tuple[Figure, str, str]:
    """Draw saliency.csv; return figure, title and caption."""
    title = "Weak-to-strong gains over what pre-training says of right and wrong"
    caption = (f"n = {table.n.iloc[0]:,.0f} test pairs, seeds {table.seeds.iloc[0]}; bars: "
               f"{100 * level:.6g}% intervals over prompts and seeds, one base model a share. PGR "
               "is shown where it is defined.")
    figure, axes = page(3, 3, (2.2, 2.2), (0.65, 0.5), title, caption,
                        margins=Margins(0.6, 1.2, 0.45, 0.5))
    shares = sorted(set(table.share))
    methods = list(dict.fromkeys(table.method))
    first = table[table.method == methods[0]]
    for name, colour, column in (("ceiling", CEILING, "ceiling"), ("teacher", TEACHER, "weak")):
        _line(axes[0], first, shares, column, colour, 0.0, name)
    for place, method in enumerate(methods):
        own = table[table.method == method]
        for panel, column in ((axes[1], "gain"), (axes[2], "pgr")):
            _line(panel, own, shares, column, METHODS[place % len(METHODS)],
                  APART * (place - (len(methods) - 1) / 2), method)
    for panel, name, below in zip(axes, ("Accuracy", "Gain", "PGR"), (
            "on test pairs", "student less teacher", "gain over gap"), strict=True):
        panel_title(panel, name, below, INK)
        panel.set_xticks(range(len(shares)), [f"{share}%" for share in shares])
        panel.set_xlim(-0.5, len(shares) - 0.5)
        panel.set_xlabel("verdict documents")
    for panel in axes[1:]:
        panel.axhline(0, color=QUIET, linewidth=0.8)
    if table.pgr.isna().all():
        axes[2].text(0.5, 0.6, "undefined at every share", transform=axes[2].transAxes,
                     color=QUIET, ha="center")
        axes[2].set_yticks([])
    axes[0].legend(loc="best")
    axes[2].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handletextpad=0.3)
    return figure, title, caption


def _line(axes: Axes, rows: pd.DataFrame, shares: list[int], column: str, colour: str,
          aside: float, label: str) -> None:
    known = rows[rows[column].notna()]
    x = [shares.index(share) + aside for share in known.share]
    axes.vlines(x, known[f"{column}_low"], known[f"{column}_high"], color=colour, linewidth=1.2,
                alpha=0.75)
    axes.plot(x, known[column], "o-", color=colour, markersize=4.5, linewidth=1, label=label)
