"""Figures of a benchmark: the score of every part beside what length alone makes of it."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from src.measures.benchmarks.against import Difference
from src.measures.benchmarks.parts import LEVEL, Score
from src.measures.benchmarks.rm_bench import STYLES
from src.reports.benchmark import Report
from src.reports.figures.style import INK, METHODS, QUIET, STYLE, Drawn, Margins, page, save
from src.reports.format import number

LINE = 0.2
"""Inches for a part."""
BASELINE_MARKS = {"longer": (">", METHODS[1]), "shorter": ("<", METHODS[2])}


def draw_benchmark(report: Report, folder: Path) -> list[Drawn]:
    """scores.png, and styles.png where there is a matrix of styles."""
    with matplotlib.rc_context(STYLE):
        drawn = [_save(folder, "scores", *scores_figure(report))]
        if report.matrix is not None:
            drawn.append(_save(folder, "styles", *styles_figure(report)))
        return drawn


def draw_differences(found: list[Difference], name: str, other: str, benchmark: str,
                     folder: Path) -> Drawn:
    """against_<other>.png: what one model has over another in each subset."""
    with matplotlib.rc_context(STYLE):
        return _save(folder, f"against_{other}",
                     *differences_figure(found, name, other, benchmark))


def differences_figure(found: list[Difference], name: str, other: str,
                       benchmark: str) -> tuple[Figure, str]:
    """A line a subset, in their order; returns the title too."""
    title = f"{name} against {other} on {benchmark}"
    footer = ("Share of rows that the first gets right less that of the second, and its 95% "
              "interval, prompts resampled. Filled: the two differ (McNemar's exact test, Holm's "
              f"correction for {len(found)} subsets).")
    label = 0.35 + 0.064 * max(len(each.subset) for each in found)
    figure, (axes,) = page(1, 1, (4.2, LINE * (len(found) + 0.6)), (0, 0), title, footer,
                           margins=Margins(label, 0.75, 0.1, 0.5))
    for place, each in enumerate(found):
        apart = each.p_holm < 1 - LEVEL
        axes.plot([each.low, each.high], [place, place], color=METHODS[0], linewidth=1.4)
        axes.plot(each.difference, place, "o", color=METHODS[0], markersize=5,
                  markerfacecolor=METHODS[0] if apart else "white")
        axes.annotate(number(each.difference), (1, place), (6, 0), ("axes fraction", "data"),
                      "offset points", fontsize=7.5, color=INK if apart else QUIET, va="center")
    axes.axvline(0, color=QUIET, linewidth=0.8, zorder=0)
    _lines(axes, [each.subset for each in found])
    axes.set_xlabel("difference")
    return figure, title


def scores_figure(report: Report) -> tuple[Figure, str]:
    """A line a part, overall first, then sections with their subsets; returns the title too."""
    scores = ordered(report.scores)
    title = f"{report.model} on {report.benchmark}: {number(report.overall.score)}"
    footer = ("Dots: score and its 95% interval, prompts resampled"
              + ("; triangles: the longer (>) or the shorter (<) response wins."
                 if report.baselines else ".") + " Filled: overall, sections; open: subsets."
              + "".join(f" {note[:1].upper()}{note[1:]}." for note in report.notes))
    label = 0.35 + 0.064 * max(len(score.name) for score in scores)
    figure, (axes,) = page(1, 1, (4.2, LINE * (len(scores) + 0.6)), (0, 0), title, footer,
                           margins=Margins(label, 0.75, 0.1, 0.5))
    for place, score in enumerate(scores):
        filled = score.kind != "subset"
        axes.plot([score.low, score.high], [place, place], color=METHODS[0], linewidth=1.4,
                  zorder=2)
        axes.plot(score.score, place, "o", color=METHODS[0], markersize=5, zorder=3,
                  markerfacecolor=METHODS[0] if filled else "white")
        for name, found in report.baselines.items():
            marker, colour = BASELINE_MARKS[name]
            axes.plot(found.get(score.name, np.nan), place, marker, color=colour, markersize=4,
                      alpha=0.85, linewidth=0, zorder=1)
        axes.annotate(number(score.score), (1, place), (6, 0),
                      ("axes fraction", "data"), "offset points", fontsize=7.5,
                      color=INK if filled else QUIET, va="center")
    _finish(axes, scores)
    return figure, title


def ordered(scores: list[Score]) -> list[Score]:
    """Overall, styles, then each section before its subsets, then subsets of no section."""
    sections = [score for score in scores if score.kind == "section"]
    names = {score.name for score in sections}
    found = [score for score in scores if score.kind in ("overall", "style")]
    for section in sections:
        found += [section, *(score for score in scores if score.kind == "subset"
                             and score.section == section.name)]
    return found + [score for score in scores
                    if score.kind == "subset" and score.section not in names]


def styles_figure(report: Report) -> tuple[Figure, str]:
    """RM-Bench's matrix as a heat map."""
    title = f"{report.model} on {report.benchmark}: styles"
    figure, (axes,) = page(1, 1, (2.6, 2.6), (0, 0), title,
                           "Share of rows whose right response has the higher reward, mean of the "
                           "domains. Below the diagonal easy, on it normal, above it hard: the "
                           "wrong response is the more elaborate one.",
                           margins=Margins(1.5, 1.3, 0.15, 0.6))
    axes.imshow(report.matrix, vmin=0, vmax=1, cmap="Blues")
    for (row, column), share in np.ndenumerate(report.matrix):
        axes.text(column, row, number(share), ha="center", va="center", fontsize=10,
                  color="white" if share > 0.6 else INK)
    axes.set_xticks(range(3), STYLES)
    axes.set_yticks(range(3), STYLES)
    axes.set_xlabel("wrong response")
    axes.set_ylabel("right response")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure, title


def _finish(axes: matplotlib.axes.Axes, scores: list[Score]) -> None:
    _lines(axes, [score.name for score in scores])
    for tick, score in zip(axes.get_yticklabels(), scores, strict=True):
        tick.set_fontweight("bold" if score.kind != "subset" else "normal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("score")


def _lines(axes: matplotlib.axes.Axes, names: list[str]) -> None:
    """A named line each, from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")


def _save(folder: Path, name: str, figure: Figure, title: str) -> Drawn:
    return save(figure, folder, name, title, "")
