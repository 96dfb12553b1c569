"""The paper's figure: test accuracy against depth, one panel per teacher."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.measures.best_ceiling import BEST
from src.reports.figures.style import (
    CEILING,
    INK,
    MARKERS,
    METHODS,
    QUIET,
    TEACHER,
    Margins,
    label_ends,
    panel_grid,
)
from src.reports.format import BASELINE_NAMES, number
from src.reports.results import Results, Rungs, mean_over_seeds

BEST_LABEL = "best ceiling"
LABEL_HEIGHT = 0.15
"""Inches; the labels beside a panel stand above each other."""
MARK_WIDTH = 0.08
"""Inches; the marks of one rung stand side by side."""
FEW = 6
"""Methods whose marks stand closer than the space between two rungs allows; of more, thin lines."""


def accuracy_by_depth(results: Results) -> tuple[Figure, str, str]:
    """Draw teachers, students and ceilings by rung; return figure, title and caption."""
    models = mean_over_seeds(results.accuracy)
    everyone = Rungs.of(results.accuracy)
    taught = everyone.sort(models[models.role == "student"].teacher)
    rungs = _across(results.accuracy) if taught else everyone
    title, bars = _words(results, rungs, bool(taught))
    shown = list(rungs.names)
    longest = max(len(rungs.ticks[name]) for name in shown)
    turned = not rungs.base and longest * len(shown) > 34
    best = _best(results, models)
    labels = _labels(models, best)
    room = 0.22 + 0.064 * max(len(f"{label} 0.123") for label in labels)
    places = {teacher: _places(models, rungs, teacher) for teacher in taught or [""]}
    width = max(2.3, 0.42 * len(shown),
                MARK_WIDTH * len(shown) * max(map(len, places.values())))
    columns = 3 if width < 2.8 else 2
    figure, panels = panel_grid(
        max(len(taught), 1), columns, (width, max(2.35, LABEL_HEIGHT * len(labels))),
        (room + 0.4, 1.25 if turned else 0.85), title, bars + "." if taught else "", results,
        Margins(left=max(0.62, 0.06 * longest) if turned else 0.62, right=room, top=0.32,
                bottom=0.95 if turned else 0.55))
    cells = _on_lines(results.cells, models)
    limits = _y_limits(models, cells)
    for axes, teacher in zip(panels, taught or [""], strict=True):
        axes.set_ylim(limits)
        _panel(axes, cells, models, rungs, teacher, best, places[teacher])
        if teacher:
            axes.set_title(f"teacher: {teacher_title(teacher, everyone)}", color=TEACHER)
        _name_ticks(axes, rungs, shown, turned, [*places[teacher].values(), 0.0])
    for axes in panels[::columns]:
        axes.set_ylabel(f"accuracy on {results.meta['split']}")
    caption = ("Accuracy of teachers, of students trained on their labels, and of ceilings "
               "trained on ground truth, means over seeds. Dotted lines are baselines."
               + (f" {bars}." if taught else "")
               + (" Thin line: the best ceiling, which is not the deepest." if len(best) else ""))
    return figure, title, caption


def _words(results: Results, rungs: Rungs, taught: bool) -> tuple[str, str]:
    """The figure's title, and what its bars are."""
    title = f"{results.meta['experiment']}: accuracy against " + (
        "depth" if rungs.base else "base model") + (", one panel per teacher" if taught else "")
    return title, (f"Bars: {results.percent} intervals of the difference to the teacher's line, "
                   f"paired over {results.resampled}: a student's bar that clears the line is a "
                   "gain")


def teacher_title(name: str, rungs: Rungs) -> str:
    """A teacher's rung; several together name their base once, to be no wider than a panel."""
    rule, of, members = name.partition("-of-")
    if not of:
        return rungs.title(name)
    first, *others = members.split("+")
    base = f"{first.rpartition('-')[0]}-"
    return f"{rule} of {' + '.join([first, *(each.removeprefix(base) for each in others)])}"


def _on_lines(cells: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The cells with their teacher's line for `weak`, on which bars stand, also where a cell has
    fewer seeds than the line."""
    lines = models[models.role == "teacher"].set_index("name").accuracy
    return cells.assign(weak=cells.teacher.map(lines).astype(float).fillna(cells.weak))


def _panel(axes: Axes, cells: pd.DataFrame, models: pd.DataFrame, rungs: Rungs, teacher: str,
           best: pd.DataFrame, places: dict[str, float]) -> None:
    """One teacher's line, the ceilings, and the students it taught; without one, the ladder."""
    labels = _baselines(axes, models)
    cells = cells[cells.teacher == teacher]
    methods = list(dict.fromkeys(models[models.role == "student"].method))
    ceilings = _ordered(models[models.role == "ceiling"], rungs)
    if len(ceilings):
        for value in best.accuracy:  # else the label of the last rung reads as that of the highest
            axes.axhline(value, color=CEILING, linewidth=0.7, alpha=0.6, zorder=1)
            labels.append((value, f"{BEST_LABEL} {number(value)}", CEILING))
        spans = cells.drop_duplicates("student").set_index("student")
        _line(axes, rungs, ceilings, spans, "gap", CEILING, "D", 0.0)
        labels.append((ceilings.accuracy.iloc[-1],
                       f"ceiling {number(ceilings.accuracy.iloc[-1])}", CEILING))
    for index, method in enumerate(methods):
        rows = _ordered(models[(models.role == "student") & (models.teacher == teacher)
                               & (models.method == method)], rungs)
        if len(rows):
            colour = METHODS[index % len(METHODS)]
            spans = cells[cells.method == method].set_index("student")
            _line(axes, rungs, rows, spans, "gain", colour, MARKERS[index % len(MARKERS)],
                  places[method], 1.5 if len(places) <= FEW else 0.4)
            labels.append((rows.accuracy.iloc[-1], f"{method} {number(rows.accuracy.iloc[-1])}",
                           colour))
    labels += _teachers(axes, models[models.role == "teacher"], rungs, teacher)
    label_ends(axes, labels)


def _best(results: Results, models: pd.DataFrame) -> pd.DataFrame:
    """The ceiling that is the best one, and not the deepest; no rows where they are one."""
    names = results.ceilings[results.ceilings.place == BEST].name
    return models[(models.role == "ceiling") & models.name.isin(names)]


def _labels(models: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """What stands beside the panels, without the numbers."""
    baselines = models[models.role == "baseline"].name
    return ["ceiling", "teacher", *(BEST_LABEL for _ in best.name),
            *(BASELINE_NAMES.get(name, name) for name in baselines),
            *dict.fromkeys(models[models.role == "student"].method)]


def _places(models: pd.DataFrame, rungs: Rungs, teacher: str) -> dict[str, float]:
    """Method -> how far the marks of its students stand from their rung's place: side by side, with
    room for the ceiling's in the middle and between two rungs."""
    students = models[(models.role == "student") & (models.teacher == teacher)]
    methods = list(dict.fromkeys(students.method))
    at = np.array([rungs.place(name) for name in rungs.names])
    nearest = np.diff(at).min() if len(at) > 1 else 1.0
    step = 0.8 * nearest / (len(methods) + 1)
    if len(methods) <= FEW:
        step = min(step, 0.016 * (at[-1] - at[0] or 1))
    left = (len(methods) + 1) // 2
    return {method: step * (index - left + (index >= left)) for index, method in enumerate(methods)}


def _across(accuracy: pd.DataFrame) -> Rungs:
    """The rungs of students and ceilings, which may be of one base where teachers are of others."""
    rows = accuracy[accuracy.role.isin(["student", "ceiling"])]
    return Rungs.of(rows.assign(teacher=""))


def _ordered(rows: pd.DataFrame, rungs: Rungs) -> pd.DataFrame:
    return rows.sort_values("name", key=lambda names: names.map(rungs.place), kind="stable")


def _line(axes: Axes, rungs: Rungs, rows: pd.DataFrame, spans: pd.DataFrame, difference: str,
          colour: str, marker: str, shift: float, line_width: float = 1.5) -> None:
    """Means joined by a line, with weak + [low, high] of the difference as the bar."""
    _joined(axes, rungs, rows, shift, color=colour, marker=marker, linewidth=line_width,
            markeredgecolor="white", markeredgewidth=0.5, zorder=4)
    for name in rows.name:
        if name in spans.index:
            span, place = spans.loc[name], rungs.place(name) + shift
            ends = span.weak + span[f"{difference}_low"], span.weak + span[f"{difference}_high"]
            axes.plot([place, place], ends, color=colour, linewidth=1.0, alpha=0.75, zorder=3,
                      solid_capstyle="butt")


def _joined(axes: Axes, rungs: Rungs, rows: pd.DataFrame, shift: float, **style: Any) -> None:
    """Means at their rungs' places, joined by a line where they are of one ladder."""
    accuracy = rows.set_index("name").accuracy
    for names in rungs.ladders(rows.name):
        axes.plot([rungs.place(name) + shift for name in names], accuracy[names], markersize=4,
                  **style)


def _teachers(axes: Axes, teachers: pd.DataFrame, rungs: Rungs,
              teacher: str) -> list[tuple[float, str, str]]:
    """The panel's teacher as a horizontal line, or all teachers as a ladder of their own."""
    if not teacher:
        teachers = _ordered(teachers, rungs)
        if len(teachers):
            _joined(axes, rungs, teachers, 0.0, marker="o", color=TEACHER, linewidth=1.5)
        return [(row.accuracy, f"teachers {number(row.accuracy)}", TEACHER)
                for row in teachers.tail(1).itertuples()]
    rows = teachers[teachers.name == teacher]
    for row in rows.itertuples():
        axes.axhline(row.accuracy, color=TEACHER, linewidth=1.5, dashes=(5, 2), zorder=2)
    return [(row.accuracy, f"teacher {number(row.accuracy)}", TEACHER)
            for row in rows.itertuples()]


def _baselines(axes: Axes, models: pd.DataFrame) -> list[tuple[float, str, str]]:
    labels = []
    for row in models[models.role == "baseline"].itertuples():
        axes.axhline(row.accuracy, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        labels.append((row.accuracy, f"{BASELINE_NAMES.get(row.name, row.name)} "
                       f"{number(row.accuracy)}", QUIET))
    return labels


def _name_ticks(axes: Axes, rungs: Rungs, shown: list[str], turned: bool,
                beside: list[float]) -> None:
    """`beside`: how far marks stand from their rung."""
    places = [rungs.place(name) for name in shown]
    reach = places[-1] - places[0]
    margin = max(0.07 * reach or 0.5, max(np.abs(beside)) + 0.03 * reach)
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    axes.set_xticks(places, [rungs.ticks[name] for name in shown],
                    **({"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
                       if turned else {}))
    axes.set_xlabel(rungs.axis_label, color=INK)


def _y_limits(models: pd.DataFrame, cells: pd.DataFrame) -> tuple[float, float]:
    """Room for every mean and every bar, the same in all panels."""
    values = pd.concat([models.accuracy, cells.weak + cells.gain_low, cells.weak + cells.gain_high,
                        cells.weak + cells.gap_low, cells.weak + cells.gap_high]).dropna()
    pad = 0.06 * (values.max() - values.min()) or 0.02
    return values.min() - pad, values.max() + pad
