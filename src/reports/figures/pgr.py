"""PGR of every teacher and student as a heat map, one panel per method."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.reports.figures.style import INK, QUIET, Margins, panel_grid, panel_title
from src.reports.format import MISSING, UNDEFINED, interval_text, number, pgr_text
from src.reports.results import Results, Rungs

CELL = (0.98, 0.56)
"""Inches of one cell, which is wider where a student's name is."""
BAR = 1.0
"""Least height of the colour scale, inches."""
SCALE = Normalize(-1.0, 1.0)
"""0, nothing recovered, is white; values beyond the ends are marked in their cell."""
SUBTITLE = 1.6
"""Inches that the figures above a panel take, also where the panel itself is narrower."""
GAP, WIDTH = 0.35, 11.6
"""Inches between panels, and of all panels of a row with what is left of them."""


def pgr_heatmap(results: Results) -> tuple[Figure, str, str]:
    """Draw every cell of pgr.csv; return figure, title and caption."""
    cells, rungs = results.cells, Rungs.of(results.accuracy)
    teachers, students = rungs.sort(cells.teacher), rungs.sort(cells.student)
    methods = list(dict.fromkeys(cells.method))
    title = f"{results.meta['experiment']}: performance gap recovered (PGR), teacher to student"
    longest = max(len(rungs.ticks[name]) for name in students)
    size = max(CELL[0], 0.2 + 0.073 * longest) * len(students), CELL[1] * len(teachers)
    names = [_lines(rungs.ticks[name]) for name in teachers]
    left = 0.62 + 0.075 * max(len(line) for name in names for line in name.splitlines())
    notes = (f"[ ]: {results.percent} interval over {results.resampled}. Undefined: the gap's "
             f"interval holds 0, or the gap is below {results.meta.get('pgr_floor', 0.03):g}. "
             "Blank: no run.")
    beyond = _beyond(cells)
    if beyond:
        notes += f" Beyond the colour scale, marked with a triangle: {beyond}."
    gap = GAP + max(0.0, SUBTITLE - size[0])
    columns = max(1, int((WIDTH - left) // (size[0] + gap)))
    label = f"student: {rungs.axis_label}"
    if len(methods) > 1 and 0.06 * len(label) > size[0] + gap:  # into the next panel's
        label = label.replace(" of ", "\nof ")
    figure, panels = panel_grid(len(methods), columns, size, (gap, 1.0), title, notes, results,
                                Margins(left, 1.05 + max(0.0, SUBTITLE - size[0]), 0.5,
                                        max(0.55, BAR + 0.1 - size[1])))
    colours = matplotlib.colormaps["RdBu"]
    for place, (axes, method) in enumerate(zip(panels, methods, strict=True)):
        _frame(axes, [rungs.ticks[name] for name in students], names, label)
        if place % columns == 0:  # its row's others have the same teachers
            axes.tick_params(labelleft=True)
            axes.set_ylabel(f"teacher: {'layers' if rungs.base else 'model'}", color=INK)
        for row in cells[cells.method == method].itertuples():
            _cell(axes, students.index(row.student), teachers.index(row.teacher), row, colours)
        total = next(results.totals[results.totals.method == method].itertuples(), None)
        panel_title(axes, method, f"all cells: {pgr_text(total) if total else MISSING}", INK)
    _colour_bar(figure, panels[min(columns, len(panels)) - 1], colours)
    caption = ("PGR = (student - teacher) / (ceiling - teacher), with its interval. White is "
               "nothing recovered, blue the whole gap, red a student below its teacher. Hatched "
               "cells are undefined: their gap is too small, or too uncertain, to divide by.")
    return figure, title, caption + (f" Beyond the colour scale: {beyond}." if beyond else "")


def _beyond(cells: pd.DataFrame) -> str:
    """How many values the colour scale cannot show, in words; empty where it shows all."""
    outside = (cells.pgr.abs() > SCALE.vmax).sum()
    return f"{outside} of {len(cells)} values" if outside else ""


def _lines(name: str) -> str:
    """The name of several teachers in a line for each, so that it takes no panel's width."""
    return name.replace("-of-", " of\n").replace("+", " +\n")


def _frame(axes: Axes, students: list[str], teachers: list[str], label: str) -> None:
    axes.set_xlim(-0.5, len(students) - 0.5)
    axes.set_ylim(len(teachers) - 0.5, -0.5)
    axes.set_xticks(range(len(students)), students)
    axes.set_yticks(range(len(teachers)), teachers)
    axes.tick_params(length=0, labelleft=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(label, color=INK)


def _cell(axes: Axes, x: int, y: int, row: object, colours: Colormap) -> None:
    """PGR and its interval on its colour, or hatched grey with the gap that forbids it."""
    box = {"xy": (x - 0.485, y - 0.475), "width": 0.97, "height": 0.95, "linewidth": 0}
    if row.status != "ok":
        axes.add_patch(Rectangle(**box, facecolor="#eceef0"))
        axes.add_patch(Rectangle(**box, facecolor="none", edgecolor="#c3c8ce", hatch="////"))
        plate = {"boxstyle": "square,pad=0.12", "facecolor": "#eceef0", "edgecolor": "none"}
        axes.text(x, y - 0.13, UNDEFINED, ha="center", va="center", fontsize=8, color=INK,
                  style="italic", bbox=plate)
        axes.text(x, y + 0.22, f"gap {number(row.gap, signed=True)}", ha="center", va="center",
                  fontsize=6.8, color="#4d555d", bbox=plate)
        return
    colour = colours(SCALE(row.pgr))
    red, green, blue = colour[:3]
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
    axes.add_patch(Rectangle(**box, facecolor=colour))
    mark = "▲ " if row.pgr > SCALE.vmax else "▼ " if row.pgr < SCALE.vmin else ""
    axes.text(x, y - 0.15, mark + number(row.pgr, 2), ha="center", va="center", fontsize=9.5,
              fontweight="bold", color=ink)
    axes.text(x, y + 0.2, interval_text(row.pgr_low, row.pgr_high, 2), ha="center", va="center",
              fontsize=7, color=ink)


def _colour_bar(figure: Figure, beside: Axes, colours: Colormap) -> None:
    """A scale of fixed ends, so that two experiments can be laid side by side."""
    box = beside.get_position()
    width, height = figure.get_size_inches()
    tall = max(box.height, BAR / height)
    clear = max(box.x1, box.x0 + SUBTITLE / width)
    axes = figure.add_axes((clear + 0.2 / width, box.y1 - tall, 0.12 / width, tall))
    bar = figure.colorbar(ScalarMappable(SCALE, colours), cax=axes, extend="both",
                          extendfrac=0.06)
    bar.set_ticks([-1, 0, 1], labels=["-1", "0", "1"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7.5)
    bar.ax.set_title("PGR", fontsize=7.5, color=QUIET, loc="left", fontweight="normal")
