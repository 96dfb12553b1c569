"""How the runs trained, and how far their confidence can be trusted."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.measures import metrics
from src.reports.figures.ladder import teacher_title
from src.reports.figures.style import (
    FAINT,
    INK,
    QUIET,
    TEACHER,
    Margins,
    depth_colours,
    page_width,
    panel_grid,
    panel_title,
)
from src.reports.format import count, number
from src.reports.results import Results, Rungs

TRUTH = "trained on ground truth"
WINDOW = 1 / 20
"""Share of the training that a curve's running mean covers."""
FEWEST = 20
"""A bin of fewer pairs has no point in the calibration figure."""


def learning_curves(results: Results) -> tuple[Figure, str, str]:
    """Training loss against step, a panel per role, teacher and method."""
    curves, rungs = results.curves, Rungs.of(results.accuracy)
    groups = list(_panels(curves, rungs))
    title = f"{results.meta['experiment']}: training loss"
    notes = ("Strong: mean over seeds and a twentieth of the training; faint: each seed as logged, "
             "one point in a thousand outside the panel. Students' losses are against weak "
             "labels: heights compare within a panel only.")
    figure, panels, colours = _page_with_key(
        len(groups), min(4, max(2, len(groups))), (2.25, 1.6), (0.5, 0.9), title, notes, results,
        curves.name)
    for index, (axes, (name, below, rows)) in enumerate(zip(panels, groups, strict=True)):
        for rung in rungs.sort(rows.name):
            _draw_curve(axes, rows[rows.name == rung], colours[rung])
        panel_title(axes, name, below, QUIET if below == TRUTH else TEACHER)
        axes.set_ylim(*_loss_limits(rows))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("optimiser step")
        if index % min(4, max(2, len(groups))) == 0:
            axes.set_ylabel("loss")
    caption = ("Training loss. Strong lines are means over seeds and a twentieth of the training; "
               "faint lines are the seeds as logged. Colour is the rung.")
    return figure, title, caption


def _panels(table: pd.DataFrame, rungs: Rungs) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(title, line below it, rows) of teachers, ceilings, students by method and teacher."""
    for role, title in (("teacher", "teachers"), ("ceiling", "ceilings")):
        rows = table[table.role == role]
        if len(rows):
            yield title, TRUTH, rows
    students = table[table.role == "student"]
    for method in dict.fromkeys(students.method):
        for teacher in rungs.sort(students[students.method == method].teacher):
            several = "-of-" in teacher
            yield (f"students, {method}",
                   f"{'' if several else 'teacher: '}{teacher_title(teacher, rungs)}",
                   students[(students.method == method) & (students.teacher == teacher)])


def _draw_curve(axes: Axes, rows: pd.DataFrame, colour: tuple[float, ...]) -> None:
    for _, seed in rows.groupby("seed"):
        axes.plot(seed.step, seed.loss, color=colour, linewidth=0.5, alpha=0.22, zorder=2)
    mean = rows.groupby("step").loss.mean()
    window = max(1, round(len(mean) * WINDOW))
    smooth = mean.rolling(window, center=True, min_periods=1).mean()
    keep = np.unique(np.linspace(0, len(smooth) - 1, 400).astype(int))
    axes.plot(smooth.index[keep], smooth.to_numpy()[keep], color=colour, linewidth=1.4, zorder=3)


def _loss_limits(rows: pd.DataFrame) -> tuple[float, float]:
    """All but the extreme thousandths, so that one spike does not flatten the panel."""
    low, high = rows.loss.quantile([0.001, 0.999])
    pad = 0.05 * (high - low) or 0.02
    return low - pad, high + pad


def _page_with_key(panels: int, columns: int, size: tuple[float, float], gap: tuple[float, float],
                   title: str, notes: str, results: Results, names: pd.Series,
                   ) -> tuple[Figure, list[Axes], dict[str, tuple[float, ...]]]:
    """A `panel_grid`, with the rungs' colours over its first panel in as many rows as they need."""
    rungs = Rungs.of(results.accuracy)
    colours = depth_colours(rungs.sort(names))
    ticks, margins = [rungs.ticks[name] for name in colours], Margins(0.62, 0.25, 0.88, 0.5)
    room = page_width(panels, columns, size, gap, margins) - margins.left
    across = max(1, min(len(ticks), 10, int(room / (0.36 + 0.068 * max(map(len, ticks))))))
    rows = -(-len(ticks) // across)
    figure, axes = panel_grid(panels, columns, size, gap, title, notes, results,
                              dataclasses.replace(margins, top=margins.top + 0.17 * (rows - 1)))
    box = axes[0].get_position()
    figure.legend([Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()],
                  ticks, ncols=across, title=rungs.axis_label, alignment="left", loc="lower left",
                  borderaxespad=0, borderpad=0, title_fontsize=8, handlelength=1.2,
                  columnspacing=1.2,
                  bbox_to_anchor=(box.x0, box.y1 + 0.44 / figure.get_figheight()))
    return figure, axes, colours


def calibration_figure(results: Results) -> tuple[Figure, str, str]:
    """Accuracy against confidence, a panel per role and method, with the pairs in each bin."""
    table, rungs = results.calibration, Rungs.of(results.accuracy)
    table = table[table.role != "baseline"]
    groups = [(f"{role}s, {method}" if method else f"{role}s", rows)
              for (role, method), rows in table.groupby(["role", "method"], sort=False)]
    title = f"{results.meta['experiment']}: calibration"
    notes = ("Colour: one rung, over its seeds and teachers; black: all of the panel; bins of "
             f"fewer than {FEWEST} pairs have no point. Below the diagonal a model is surer than "
             "it is right. ECE: expected calibration error, mean over models. Grey: share of "
             "pairs per bin.")
    figure, panels, colours = _page_with_key(len(groups), 4, (2.2, 2.2), (0.62, 0.75), title,
                                             notes, results, table.name)
    for index, (axes, (name, rows)) in enumerate(zip(panels, groups, strict=True)):
        bins = rows[["n", "confidence", "accuracy"]].to_numpy(float)
        _reliability(axes, rows, colours, rungs)
        panel_title(axes, name, f"n = {count(rows.n.sum())} scored pairs, "
                    f"ECE {number(metrics.calibration_error(bins))}", QUIET)
        axes.set_xlabel("confidence")
        if index % 4 == 0:
            axes.set_ylabel("accuracy")
    caption = ("Share of pairs ranked rightly against the model's own confidence, max(P, 1 - P) "
               "of P(chosen > rejected). n counts pairs over seeds and models.")
    return figure, title, caption


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Bins of several models together, each pair counted once."""
    weighted = rows.assign(confidence=rows.confidence * rows.n, accuracy=rows.accuracy * rows.n)
    sums = weighted.groupby("bin_low")[["n", "confidence", "accuracy"]].sum()
    return sums.assign(confidence=sums.confidence / sums.n, accuracy=sums.accuracy / sums.n)


def _reliability(axes: Axes, rows: pd.DataFrame, colours: dict[str, tuple[float, ...]],
                 rungs: Rungs) -> None:
    everything = _pooled(rows).query("n >= @FEWEST")
    each = {rung: _pooled(rows[rows.name == rung]).query("n >= @FEWEST")
            for rung in rungs.sort(rows.name)}
    lowest = min([0.5, *everything.accuracy, *(y for bins in each.values() for y in bins.accuracy)])
    low = np.floor(lowest * 20) / 20 if len(everything) else 0.4
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(low - 0.14, 1.02)
    axes.plot([0.5, 1], [0.5, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    widths = rows.groupby("bin_low").bin_high.first().loc[everything.index] - everything.index
    axes.bar(everything.index, 0.11 * everything.n / everything.n.max(), widths * 0.9,
             bottom=low - 0.14, align="edge", color=FAINT, zorder=1)
    for rung, bins in each.items():
        axes.plot(bins.confidence, bins.accuracy, color=colours[rung], linewidth=1.0, alpha=0.75,
                  zorder=2)
    axes.plot(everything.confidence, everything.accuracy, color=INK, linewidth=1.5, marker="o",
              markersize=3.2, zorder=3)
    axes.set_yticks(np.arange(np.ceil(low * 10) / 10, 1.01, 0.1))
    axes.set_xticks(np.arange(0.5, 1.01, 0.1))
