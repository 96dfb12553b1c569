"""Accuracy against tax: curves over the share of the base, and each block alone."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.measures.tax.front import BASE, BLOCK, NO_CURVE, PROBE, TUNED, UNIFORM
from src.reports.figures.style import (
    CEILING,
    INK,
    MARKERS,
    METHODS,
    QUIET,
    Margins,
    page,
    panel_title,
)
from src.reports.tax.front import NAMES


def front_figure(own: pd.DataFrame, experiment: str, level: float) -> tuple[Figure, str, str]:
    """Draw one student's rows of front.csv; return figure, title and caption."""
    row = own.iloc[0]
    title = f"{experiment}: what {row.student} taught by {row.teacher} knows, and what it cost"
    caption = (f"Test accuracy against nats a token lost on held-out text; up and to the left is "
               f"better. Means over seeds {row.seeds}; bars: {100 * level:.6g}% intervals over "
               "pairs or texts and seeds, of some points. Numbers: share of the base. A star: a "
               "linear probe of the base, which costs nothing.")
    figure, axes = page(2, 2, (3.3, 2.7), (0.6, 0.6), title, caption,
                        margins=Margins(left=0.75, right=1.5, top=0.45, bottom=0.5))
    _curves(axes[0], own)
    _blocks(axes[1], own)
    for panel in axes:
        panel.set_xlabel("tax: nats a token lost")
        panel.axvline(0, color=QUIET, linewidth=0.8)
        panel.set_xlim(*_around(own.tax))
        panel.set_ylim(*_around(own.accuracy))
    axes[0].set_ylabel("accuracy")
    axes[0].legend(loc="lower right", handletextpad=0.3)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handletextpad=0.3)
    return figure, title, caption


def _around(values: pd.Series) -> tuple[float, float]:
    """Limits of an axis with room around every estimate; an interval may leave them."""
    room = 0.18 * max(values.max() - values.min(), 1e-3)
    return values.min() - room, values.max() + room


def _curves(panel: Axes, own: pd.DataFrame) -> None:
    panel_title(panel, "Averages", "tuned model to base, by share of the base", INK)
    families = dict.fromkeys([UNIFORM, *own.family[~own.family.isin(NO_CURVE)]])
    for place, family in enumerate(families):
        rows = own[own.family.isin((family, TUNED, BASE))].sort_values("a")
        colour = METHODS[place % len(METHODS)]
        inner = rows[rows.family == family]
        if family == UNIFORM:
            _bars(panel, inner, colour)
        panel.plot(rows.tax, rows.accuracy, "-", color=colour, linewidth=1.3,
                   zorder=4 if family == UNIFORM else 3)
        panel.plot(inner.tax, inner.accuracy, MARKERS[place % len(MARKERS)], color=colour,
                   markersize=4.5, label=NAMES[family], zorder=4)
    for each in own[own.family == UNIFORM].itertuples():
        panel.annotate(f"{each.a:g}", (each.tax, each.accuracy), (-3, 4), "data",
                       "offset points", fontsize=7, color=METHODS[0], ha="right")
    _ends(panel, own)


def _ends(panel: Axes, own: pd.DataFrame) -> None:
    """Tuned model, base and probe, which every curve shares."""
    for family, words, side in ((TUNED, "tuned", -1), (BASE, "base", 1)):
        row = own[own.family == family]
        _bars(panel, row, CEILING)
        panel.plot(row.tax, row.accuracy, "o", color=CEILING, markersize=5.5, zorder=5)
        panel.annotate(words, (row.tax.iloc[0], row.accuracy.iloc[0]), (7 * side, -10), "data",
                       "offset points", fontsize=7.5, color=CEILING,
                       ha="left" if side > 0 else "right")
    row = own[own.family == PROBE]
    _bars(panel, row, QUIET)
    panel.plot(row.tax, row.accuracy, "*", color=QUIET, markersize=9, zorder=5)


def _blocks(panel: Axes, own: pd.DataFrame) -> None:
    panel_title(panel, "One block to the base", "all else stays tuned; line: uniform", INK)
    line = own[own.family.isin((UNIFORM, TUNED, BASE))].sort_values("a")
    panel.plot(line.tax, line.accuracy, "-", color=METHODS[0], linewidth=1, alpha=0.5)
    _ends(panel, own)
    tuned = own[own.family == TUNED].iloc[0]
    for place, row in enumerate(own[own.family == BLOCK].itertuples()):
        colour = METHODS[(place + 1) % len(METHODS)]
        panel.plot([tuned.tax, row.tax], [tuned.accuracy, row.accuracy], "-", color=colour,
                   linewidth=1)
        _bars(panel, own[(own.family == BLOCK) & (own.place == row.place)], colour)
        panel.plot([row.tax], [row.accuracy], MARKERS[(place + 1) % len(MARKERS)], color=colour,
                   markersize=5, label=row.place, zorder=4)


def _bars(panel: Axes, rows: pd.DataFrame, colour: str) -> None:
    panel.vlines(rows.tax, rows.accuracy_low, rows.accuracy_high, color=colour, linewidth=0.9,
                 alpha=0.5)
    panel.hlines(rows.accuracy, rows.tax_low, rows.tax_high, color=colour, linewidth=0.9, alpha=0.5)
