"""Gain against the errors that teacher and ceiling share, a dot a cell."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.figures.style import MARKERS, METHODS, QUIET, Margins, page
from src.reports.format import interval_text, number

PANELS = {"capa": "CAPA of teacher and ceiling",
          "wrong_overlap": "pairs that both get wrong, of those that either does"}


def shared_errors_figure(cells: pd.DataFrame, slopes: pd.DataFrame) -> tuple[Figure, str, str]:
    """Draw cells.csv and slopes.csv of results/shared_errors; return figure, title and caption."""
    title = "Do students gain more where teacher and ceiling err on other pairs?"
    experiments = list(dict.fromkeys(cells.experiment))
    caption = ("A dot a cell of teacher and student, soft labels, means over seeds; bars are "
               "intervals of the gain over prompts and seeds. Above each panel: points of gain per "
               "0.1 on its axis, with intervals that resample experiments.")
    figure, axes = page(2, 2, (3.1, 2.9), (0.55, 0.5), title, caption,
                        margins=Margins(0.6, 1.5, 0.75, 0.5))
    for panel, (column, label) in zip(axes, PANELS.items(), strict=True):
        for place, name in enumerate(experiments):
            _dots(panel, cells[cells.experiment == name], column, place, name)
        panel.axhline(0, color=QUIET, linewidth=0.8)
        panel.set_xlabel(label)
        panel.set_title(_slopes(slopes[slopes.predictor == column]), fontsize=7.5,
                        fontweight="normal", color=QUIET)
        panel.grid(axis="both")
    axes[0].set_ylabel("gain, points of accuracy")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handletextpad=0.3)
    return figure, title, caption


def _dots(axes: Axes, rows: pd.DataFrame, column: str, place: int, name: str) -> None:
    colour, marker = METHODS[place % len(METHODS)], MARKERS[(place + place // 6) % len(MARKERS)]
    axes.vlines(rows[column], 100 * rows.gain_low, 100 * rows.gain_high, color=colour,
                linewidth=0.8, alpha=0.5)
    axes.plot(rows[column], 100 * rows.gain, marker, color=colour, markersize=5, label=name,
              markeredgecolor="white", markeredgewidth=0.5)


def _slopes(rows: pd.DataFrame) -> str:
    return "\n".join(f"{row.model}: {number(row.slope, 2, signed=True)} "
                     f"{interval_text(row.slope_low, row.slope_high, 2)}"
                     for row in rows.itertuples())
