"""The figure of one model's rewards: chosen against rejected, margins, calibration."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.measures.reward_profile import RewardProfile, ScoredPairs
from src.reports.figures.style import FAINT, INK, METHODS, QUIET, Margins, page, panel_title
from src.reports.format import count, number

RIGHT, WRONG = METHODS[0], METHODS[1]
"""Colours of pairs whose chosen answer has the higher reward, or the lower."""
FEWEST = 20
"""A calibration bin of fewer pairs has no point."""


@dataclass(frozen=True)
class Subject:
    """Whose figures these are."""

    model: str
    scored_on: str
    """Data, split, pairs, prompts, seed."""
    mark: str = ""
    """The contamination mark, or empty."""


def rewards_figure(view: RewardProfile, scored: ScoredPairs,
                   subject: Subject) -> tuple[Figure, str, str]:
    """Chosen against rejected reward, the margins, and how far confidence can be trusted."""
    title = f"{subject.model}: rewards"
    skipped = (f" {count(view.pointwise)} pointwise records have no second reward, so no dot."
               if view.pointwise else "")
    panels = 3 if scored.whole.any() else 2
    figure, (*cloud, margins, trust) = page(
        panels, panels, (2.9, 2.9), (0.72, 0.5), title,
        f"Scored on {subject.scored_on}. Blue: right, the chosen answer has the higher reward; "
        f"orange: wrong. Margin: reward of chosen - rejected.{skipped} Calibration: bins of fewer "
        f"than {FEWEST} pairs have no point; grey: share of pairs per bin; ECE: expected "
        "calibration error.", subject.mark, Margins(0.62, 0.25, 0.5, 0.5))
    for axes in cloud:
        _cloud(axes, scored.rewards[scored.whole])
        panel_title(axes, "chosen against rejected",
                    f"{count(scored.whole.sum())} pairs; above the diagonal: right", QUIET)
    _margins(margins, scored.margins)
    panel_title(margins, "margins", f"mean {number(scored.margins.mean(), 2, signed=True)}, "
                f"standard deviation {number(scored.margins.std(), 2)}, ties "
                f"{count(view.figures.ties)}", QUIET)
    _trust(trust, view)
    panel_title(trust, "calibration", f"ECE {number(view.calibration_error)}, log-loss "
                f"{number(view.log_loss)}, Brier {number(view.brier)}", QUIET)
    caption = ("The reward of the chosen answer against that of the rejected one: pairs above the "
               "diagonal are ranked rightly. Margins. Calibration: share of pairs ranked rightly "
               "against the model's own confidence, max(P, 1 - P) of P(chosen > rejected).")
    return figure, title, caption


def dots(axes: Axes, x: np.ndarray, y: np.ndarray, margins: np.ndarray) -> None:
    """Pairs as dots, smaller and fainter the more there are; drawn as pixels in an SVG."""
    size, alpha = np.clip(12_000 / len(x), 2.5, 12), np.clip(1_500 / len(x), 0.2, 0.7)
    for sign, colour in ((1, RIGHT), (-1, WRONG), (0, QUIET)):
        inside = np.sign(margins) == sign
        axes.scatter(x[inside], y[inside], s=size, alpha=float(alpha), color=colour, linewidths=0,
                     rasterized=True, zorder=2)


def _cloud(axes: Axes, rewards: np.ndarray) -> None:
    axes.set_xlabel("reward of the rejected answer")
    axes.set_ylabel("reward of the chosen answer")
    axes.grid(axis="both")
    chosen, rejected = rewards.T
    dots(axes, rejected, chosen, chosen - rejected)
    low, high = rewards.min(), rewards.max()
    pad = 0.04 * (high - low) or 0.5
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(low - pad, high + pad)
    axes.axline((low, low), slope=1, color=INK, linewidth=1.0, zorder=3)


def _margins(axes: Axes, margins: np.ndarray) -> None:
    """A histogram whose bars do not straddle 0."""
    bars = np.clip(np.sqrt(len(margins)), 8, 40)
    width = (margins.max() - margins.min()) / bars or 1.0
    edges = width * np.arange(np.floor(margins.min() / width), np.ceil(margins.max() / width) + 2)
    pairs, _ = np.histogram(margins, edges)
    axes.bar(edges[:-1], pairs, width * 0.92, align="edge", linewidth=0,
             color=np.where(edges[:-1] >= 0, RIGHT, WRONG))
    axes.axvline(margins.mean(), color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.annotate("mean", (margins.mean(), 1), (3, -2), ("data", "axes fraction"),
                  "offset points", va="top", fontsize=7.5)
    axes.set_ylim(0, 1.1 * pairs.max())
    axes.yaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("margin, chosen - rejected")
    axes.set_ylabel("pairs")


def _trust(axes: Axes, view: RewardProfile) -> None:
    bins = [part for part in view.calibration if part.n >= FEWEST]
    low = min([0.5, *(np.floor(part.accuracy * 10) / 10 for part in bins)])
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(low - 0.14, 1.02)
    axes.plot([0.5, 1], [0.5, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    most = max((part.n for part in bins), default=1)
    axes.bar([part.low for part in bins], [0.11 * part.n / most for part in bins],
             [0.9 * (part.high - part.low) for part in bins], bottom=low - 0.14, align="edge",
             color=FAINT, zorder=1)
    axes.plot([part.confidence for part in bins], [part.accuracy for part in bins], color=INK,
              marker="o", markersize=3.5, linewidth=1.5, zorder=3)
    if not bins:
        axes.text(0.75, 0.55, "too few pairs", ha="center", color=QUIET)
    axes.set_yticks(np.arange(low, 1.01, 0.1))
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
