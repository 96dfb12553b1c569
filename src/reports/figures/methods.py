"""Each method's difference to the baseline, with its interval and what is said of it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.measures.comparisons.methods import BETTER, WORSE
from src.reports.figures.style import INK, METHODS, QUIET, WARNING, Margins, page, provenance
from src.reports.format import interval_text, number
from src.reports.results import Results

SHOWN = 0.15
"""Differences beyond it, of controls such as shuffled labels, are an arrow at the edge: on an axis
that held them, all others would be one line."""
COLOURS = {BETTER: METHODS[0], WORSE: WARNING}


def methods_of_experiment(results: Results) -> tuple[Figure, str, str]:
    """Draw methods.csv of one experiment; return figure, title and caption."""
    title = f"{results.meta['experiment']}: methods against the baseline"
    return methods_figure(results.methods, title, provenance(results), results.contamination)


def methods_figure(table: pd.DataFrame, title: str, scored_on: str,
                   mark: str = "") -> tuple[Figure, str, str]:
    """Draw rows of methods.csv.

    Args:
        scored_on: the data, pairs and seeds, for the footer.
        mark: the contamination mark, or empty.
    """
    left = 0.3 + 0.066 * max(map(len, table.method))
    caption = (f"Accuracy of students, in points, less that of {table.baseline.iloc[0]} with the "
               "same teacher and seed. Bars: intervals over prompts, and seeds where there are "
               "several. Blue: better, red: worse, by interval and by Wilcoxon's test over cells "
               "after Holm; else grey."
               + (f" Arrows: beyond {100 * SHOWN:.0f} points."
                  if (table.difference.abs() > SHOWN).any() else ""))
    figure, (axes,) = page(1, 1, (3.4, 0.3 + 0.3 * len(table)), (0, 0), title,
                           f"Scored on {scored_on}. {caption}", mark,
                           Margins(left, 3.0, 0.2, 0.5))
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(table.itertuples()):
        colour = COLOURS.get(row.verdict, QUIET)
        if abs(row.difference) > SHOWN:
            side = float(row.difference > 0)
            axes.plot(side, place, "<>"[int(side)], color=colour, markersize=5, clip_on=False,
                      transform=axes.get_yaxis_transform())
        else:
            _bar(axes, row, place, colour)
        axes.annotate(_words(row), (1, place), (6, 0), ("axes fraction", "data"), "offset points",
                      va="center", fontsize=7.5, color=colour, annotation_clip=False)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_yticks(range(len(table)), table.method)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points of accuracy over the baseline")
    return figure, title, caption


def _bar(axes: Axes, row: object, place: int, colour: str) -> None:
    axes.plot([100 * row.difference_low, 100 * row.difference_high], [place, place],
              color=colour, linewidth=1.5, solid_capstyle="butt")
    axes.plot(100 * row.difference, place, "o", color=colour, markersize=5)


def _words(row: object) -> str:
    span = interval_text(100 * row.difference_low, 100 * row.difference_high, 1)
    return (f"{number(100 * row.difference, 1, signed=True)} {span}  wins {row.wins:.0f} of "
            f"{row.cells:.0f}, Holm p {number(row.p_holm, 3)}")
