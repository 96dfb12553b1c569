"""Accuracy of one model in parts: by length difference, and by subset, length and difficulty."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.measures.bootstrap import Interval
from src.measures.groups import GroupAccuracy, quantile_bins
from src.measures.reward_profile import RewardProfile, ScoredPairs
from src.reports.figures.rewards import RIGHT, Subject, dots
from src.reports.figures.style import INK, METHODS, QUIET, Margins, page, panel_title
from src.reports.format import count, interval_text, number

MOST_ROWS = 40
"""Groups in one figure; its table has all."""
KINDS = {"subset": "subset", "length": "tokens of prompt and longer answer",
         "difficulty": "difficulty"}
"""What the groups of each kind are by."""


def length_figure(view: RewardProfile, scored: ScoredPairs,
                  subject: Subject) -> tuple[Figure, str, str]:
    """Margin against length difference, and accuracy by which answer is longer."""
    bias = view.bias
    title = f"{subject.model}: length"
    figure, (cloud, parts) = page(
        2, 2, (3.3, 2.9), (2.35, 0.5), title,
        f"Scored on {subject.scored_on}. Line: mean margin of equal shares of the pairs, by length "
        "difference; flat where length does not matter. Bars: "
        f"{100 * view.level:.6g}% intervals over prompts. Longer wins: a rule that prefers the "
        "longer answer; equal lengths count half.", subject.mark, Margins(0.62, 2.0, 0.5, 0.5))
    whole = scored.whole
    longer, margins = (scored.lengths[whole, 1] - scored.lengths[whole, 2]), scored.margins[whole]
    dots(cloud, longer, margins, margins)
    cloud.axhline(0, color=QUIET, linewidth=0.8)
    cloud.axvline(0, color=QUIET, linewidth=0.8)
    cloud.plot(*_binned_means(longer, margins), color=INK, marker="o", markersize=3.5,
               linewidth=1.5, zorder=4)
    cloud.set_xlabel("length difference, chosen - rejected (tokens)")
    cloud.set_ylabel("margin, chosen - rejected")
    given = bias.given_label
    panel_title(cloud, "margin against length", "correlation, label held fixed: Pearson "
                f"{number(given.pearson.estimate, 2, signed=True)}, Spearman "
                f"{number(given.spearman.estimate, 2, signed=True)}", QUIET)
    rows = [*bias.groups, GroupAccuracy("longer wins (baseline)", bias.n, bias.longer_wins),
            GroupAccuracy("the model prefers the longer", bias.n, bias.prefers_longer)]
    _rows(parts, rows, [INK] * len(bias.groups) + [QUIET, METHODS[3]])
    panel_title(parts, "accuracy by length, and the rule",
                "last row: a share of pairs, no accuracy", QUIET)
    caption = ("Left: margin against the difference in tokens. Right: accuracy where the longer, "
               "the equally long or the shorter answer is the chosen one; below, what preferring "
               "the longer answer scores, and how often the model does so.")
    return figure, title, caption


def _binned_means(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    index, names = quantile_bins(x.astype(np.float64), 8)
    inside = [index == number for number in range(len(names))]
    return [float(x[rows].mean()) for rows in inside], [float(y[rows].mean()) for rows in inside]


def groups_figure(kind: str, view: RewardProfile, subject: Subject) -> tuple[Figure, str, str]:
    """Accuracy of each group of one kind; of many groups those with the most pairs."""
    groups = view.groups[kind]
    kept = sorted(sorted(range(len(groups)), key=lambda i: -groups[i].n)[:MOST_ROWS])
    shown = [groups[i] for i in kept]
    title = f"{subject.model}: accuracy by {kind}"
    cut = f" The {len(shown)} largest of {len(groups)}." if len(shown) < len(groups) else ""
    left = 0.3 + 0.062 * max(len(group.name) for group in shown)
    figure, (axes,) = page(
        1, 1, (3.6, 0.35 + 0.24 * len(shown)), (0, 0), title,
        f"Scored on {subject.scored_on}. By {KINDS[kind]}.{cut} Dashed: all pairs. Bars: "
        f"{100 * view.level:.6g}% intervals over prompts.", subject.mark,
        Margins(left, 2.0, 0.2, 0.5))
    axes.axvline(view.accuracy.estimate, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    _rows(axes, shown, [RIGHT] * len(shown))
    axes.set_xlabel("accuracy")
    return figure, title, f"Accuracy by {KINDS[kind]}.{cut}"


def _rows(axes: Axes, groups: Sequence[GroupAccuracy], colours: Sequence[str]) -> None:
    """A row a group: dot, interval, and both in words at the right edge."""
    spans = [group.accuracy for group in groups]
    for place, (group, colour) in enumerate(zip(groups, colours, strict=True)):
        span = group.accuracy
        axes.plot([span.low, span.high], [place, place], color=colour, linewidth=1.5,
                  solid_capstyle="butt")
        axes.plot(span.estimate, place, "o", color=colour, markersize=5, markeredgecolor="white",
                  markeredgewidth=0.5)
        axes.annotate(f"{_span_text(span)}  n = {count(group.n)}", (1, place), (6, 0),
                      ("axes fraction", "data"), "offset points", va="center", fontsize=7.5,
                      color=colour, annotation_clip=False)
    ends = np.array([[span.estimate, span.low, span.high] for span in spans])
    low, high = np.nanmin(ends), np.nanmax(ends)
    pad = 0.06 * (high - low) or 0.02
    axes.set_xlim(low - pad, high + pad)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), [group.name for group in groups])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")


def _span_text(span: Interval) -> str:
    return f"{number(span.estimate)} {interval_text(span.low, span.high)}".strip()
