"""Accuracy of every model on every evaluation set, as a heat map."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.reports.figures.style import INK, QUIET, Margins, page
from src.reports.format import BASELINE_NAMES, count, interval_text, number

ROW, COLUMN = 0.36, 1.2
"""Inches of a cell; a column is wider where its name is."""
GAP = 0.15
"""Room beside the experiment's own test, and above a group's title, in cells."""
TITLES = {"teacher": "teachers", "ceiling": "ceilings", "student": "students",
          "baseline": "baseline"}


def transfer_heatmap(table: pd.DataFrame, note: str) -> tuple[Figure, str, str]:
    """Draw transfer.csv; return figure, title and caption.

    Args:
        table: `transfer_tables(...)`; the first data set is the experiment's own test.
        note: how to read the intervals.
    """
    names = list(dict.fromkeys(table["data"]))
    models = table.drop_duplicates(["role", "model", "teacher", "method"])
    keys = list(models[["role", "model", "teacher", "method"]].itertuples(index=False, name=None))
    rows, titles = _places([key[0] for key in keys])
    columns = [place + (GAP if place else 0.0) for place in range(len(names))]
    labels = [model_name(*key) for key in keys]
    left = 0.3 + 0.064 * max(map(len, labels))
    width = max(COLUMN, 0.25 + 0.068 * max(map(len, names)))
    title = f"{table.experiment.iloc[0]}: accuracy on its own test and elsewhere"
    figure, (axes,) = page(1, 1, (width * (columns[-1] + 1), ROW * (max(rows) + 1)), (0, 0), title,
                           note, margins=Margins(left, 0.95, 0.62, 0.12))
    axes.set_xlim(-0.5, columns[-1] + 0.5)
    axes.set_ylim(max(rows) + 0.5, -0.5)
    norm = _scale(table.accuracy)
    for row in table.itertuples():
        place = keys.index((row.role, row.model, row.teacher, row.method))
        _cell(axes, columns[names.index(row.data)], rows[place], row, norm)
    _name(axes, columns, [_heading(table[table["data"] == name]) for name in names], rows, labels)
    for place, role in titles:
        axes.annotate(TITLES[role], (0, place), (-3.5, 0), ("axes fraction", "data"),
                      "offset points", ha="right", va="center", fontsize=8, fontweight="bold",
                      color=QUIET, annotation_clip=False)
    _colour_bar(figure, axes, norm)
    caption = ("Accuracy with its interval, means over seeds; white is chance. First column: the "
               "experiment's own test pairs; the others are out of distribution.")
    return figure, title, caption


def model_name(role: str, model: str, teacher: str, method: str) -> str:
    """A row's name: `demo-L8`, or `demo-L8 from demo-L5, soft`."""
    if role == "baseline":
        return BASELINE_NAMES.get(model, model)
    return f"{model} from {teacher}, {method}" if teacher else model


def _places(roles: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """The y of each row, and of each group's title above its first row."""
    rows, titles, y = [], [], -0.5
    for before, role in zip(["", *roles], roles, strict=False):
        if role != before:
            titles.append((y + GAP, role))
            y += 0.9
        rows.append(y)
        y += 1
    return rows, titles


def _heading(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    dropped = f", {count(first.dropped)} dropped" if first.dropped else ""
    return f"{first['data']}\nn = {count(first.n)}{dropped}"


def _name(axes: Axes, columns: Sequence[float], headings: Sequence[str], rows: Sequence[float],
          labels: Sequence[str]) -> None:
    axes.xaxis.tick_top()
    axes.set_xticks(columns, headings)
    axes.set_yticks(rows, labels)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _scale(accuracy: pd.Series) -> Normalize:
    """White at chance, the ends as far from it as the farthest value, to the next twentieth."""
    reach = max(0.05, np.ceil((accuracy - 0.5).abs().max() * 20 - 1e-9) / 20)
    return Normalize(0.5 - reach, 0.5 + reach)


def _cell(axes: Axes, x: float, y: float, row: object, norm: Normalize) -> None:
    colour = matplotlib.colormaps["RdBu"](norm(row.accuracy))
    red, green, blue = colour[:3]
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
    axes.add_patch(Rectangle((x - 0.49, y - 0.46), 0.98, 0.92, linewidth=0, facecolor=colour))
    axes.text(x, y - 0.15, number(row.accuracy), ha="center", va="center", fontsize=8.5,
              fontweight="bold", color=ink)
    axes.text(x, y + 0.24, interval_text(row.low, row.high), ha="center", va="center", fontsize=6.6,
              color=ink)


def _colour_bar(figure: Figure, beside: Axes, norm: Normalize) -> None:
    box = beside.get_position()
    width, height = figure.get_size_inches()
    tall = min(box.height, 1.6 / height)
    axes = figure.add_axes((box.x1 + 0.22 / width, box.y1 - tall, 0.12 / width, tall))
    bar = figure.colorbar(ScalarMappable(norm, matplotlib.colormaps["RdBu"]), cax=axes)
    ends = norm.vmin, 0.5, norm.vmax
    bar.set_ticks(ends, labels=[f"{end:g}" for end in np.round(ends, 2)])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7.5)
