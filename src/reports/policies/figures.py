"""The figures of judged policies: mean rewards, before against after, differences, wins, best of n.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from src.measures.policies.paired import TIE
from src.measures.policies.tables import REFERENCE, Judged, Key
from src.reports.figures.style import (
    FAINT,
    INK,
    METHODS,
    QUIET,
    Margins,
    page,
    panel_title,
)
from src.reports.format import number

Drawing = tuple[Figure, str, str]
"""A figure, its title and its caption."""
COLOURS = {"gt": INK, "teacher": "#b3700a", "student": METHODS[0]}
"""By whose labels a policy was made."""
UNIT = "judge's standard deviations"


def draw(judged: Judged, tables: Mapping[str, pd.DataFrame], level: float) -> dict[str, Drawing]:
    """Every figure by its file's name."""
    told = (f"{judged.experiment}: {len(judged.prompts)} prompts of test, seeds "
            f"{' '.join(map(str, judged.seeds))}, judge: the {judged.judge}. Rewards in the "
            f"{UNIT} from the mean of the fine-tuned policy ({REFERENCE}). Intervals: "
            f"{100 * level:.6g}%, over prompts, and seeds where there are several.")
    figures: dict[str, Callable[[], Drawing]] = {
        "dpo_data_mean": lambda: means(tables["policy"], told),
        "dpo_data_scatter": lambda: before_after(judged, told),
        "dpo_data_difference": lambda: histograms(judged, told),
        "dpo_data_wins": lambda: wins(tables["policy"], told)}
    if len(tables["best_of"]):
        figures["best_of"] = lambda: best_of(tables["best_of"], told)
    return {name: make() for name, make in figures.items()}


def means(table: pd.DataFrame, told: str) -> Drawing:
    """The mean reward of each policy's answers, with its interval and the answers' length."""
    title = "Mean reward of each policy's answers"
    figure, (axes,) = page(1, 1, (4.4, 0.26 * len(table) + 0.2), (0, 0), title,
                           f"{told} Right of the plot: tokens of an answer.",
                           margins=Margins(1.6, 0.9, 0.15, 0.5))
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.itertuples(), strict=True):
        colour = COLOURS[row.labels]
        axes.plot([row.reward_low, row.reward_high], [place, place], color=colour, linewidth=1.6)
        axes.plot(row.reward, place, "o", color=colour, markersize=4.5)
        axes.annotate(number(row.tokens, 1), (1, place), (8, 0), ("axes fraction", "data"),
                      "offset points", va="center", fontsize=7.5, color=QUIET)
    _names(axes, places, table)
    axes.axvline(0, color=QUIET, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.set_xlabel(f"reward, {UNIT}")
    caption = ("Mean reward by the judge with its interval; the dashed line is the fine-tuned "
               "policy that all others begin at.")
    return figure, title, caption


def before_after(judged: Judged, told: str) -> Drawing:
    """A dot a prompt and seed: reward before against after, with the line where both are equal."""
    shown, title = _shown(judged), "Reward before and after, prompt by prompt"
    figure, panels = page(len(shown), 3, (2.3, 2.3), (0.5, 0.9), title, f"{told} Before: "
                          f"{REFERENCE}. Above the line: better after.",
                          margins=Margins(0.62, 0.25, 0.5, 0.5))
    before = judged.reference.z(judged.before.rewards)
    for axes, key in zip(panels, shown, strict=True):
        after = judged.reference.z(judged.policies[key].rewards)
        axes.scatter(before, after, s=float(np.clip(4_000 / before.size, 2, 10)), linewidths=0,
                     alpha=float(np.clip(600 / before.size, 0.15, 0.7)), color=COLOURS[key[1]],
                     rasterized=True, zorder=2)
        low = min(before.min(), after.min())
        axes.axline((low, low), slope=1, color=INK, linewidth=1.0, zorder=3)
        axes.grid(axis="both")
        axes.set_xlabel("before")
        axes.set_ylabel("after")
        panel_title(axes, " ".join(key), f"above: {np.mean(after > before):.0%}, on the line: "
                    f"{np.mean(after == before):.0%}", QUIET)
    return figure, title, "Reward of each prompt's answer before (x) and after (y), and y = x."


def histograms(judged: Judged, told: str) -> Drawing:
    """How far the reward of each prompt's answer moved."""
    shown, title = _shown(judged), "Difference in reward, after less before"
    figure, panels = page(len(shown), 3, (2.3, 1.7), (0.5, 0.9), title, f"{told} Before: "
                          f"{REFERENCE}.", margins=Margins(0.62, 0.25, 0.5, 0.5))
    before = judged.reference.z(judged.before.rewards)
    moved = {key: (judged.reference.z(judged.policies[key].rewards) - before).ravel()
             for key in shown}
    most = max(0.5, *(float(np.abs(d).max()) for d in moved.values()))
    edges = np.linspace(-most, most, 42)
    for axes, (key, d) in zip(panels, moved.items(), strict=True):
        axes.hist(d, edges, color=COLOURS[key[1]], linewidth=0, alpha=0.85)
        axes.axvline(d.mean(), color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_xlabel(f"difference, {UNIT}")
        axes.set_ylabel("prompts x seeds")
        panel_title(axes, " ".join(key), f"mean {number(d.mean(), 2, signed=True)} (dashed), "
                    f"median {number(np.median(d), 2, signed=True)}", QUIET)
    return figure, title, "Histograms of the difference in reward to each prompt; dashed: the mean."


def wins(table: pd.DataFrame, told: str) -> Drawing:
    """Shares of prompts on which a policy's answer is better, as good, worse."""
    title = f"How often each policy's answer is better than that of {REFERENCE}"
    table = table[table.policy != REFERENCE]
    figure, (axes,) = page(1, 1, (4.4, 0.3 * len(table) + 0.2), (0, 0), title,
                           f"{told} Tie: less than {TIE} apart. Right of the plot: win rate, a tie "
                           "counts half.", margins=Margins(1.6, 0.9, 0.3, 0.5))
    places = np.arange(len(table))[::-1]
    total = table.better + table.ties + table.worse
    left = np.zeros(len(table))
    for name, colour in (("better", METHODS[2]), ("ties", FAINT), ("worse", METHODS[1])):
        share = (table[name] / total).to_numpy()
        axes.barh(places, share, 0.7, left, color=colour, linewidth=0, label=name)
        left += share
    for place, row in zip(places, table.itertuples(), strict=True):
        axes.annotate(number(row.win_rate, 2), (1, place), (8, 0), ("axes fraction", "data"),
                      "offset points", va="center", fontsize=7.5, color=QUIET)
    _names(axes, places, table)
    axes.axvline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of prompts")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    return figure, title, "Better, tie and worse against the fine-tuned policy, over all seeds."


def best_of(table: pd.DataFrame, told: str) -> Drawing:
    """Reward of the best of n by each labelling model: the judge's, and its own."""
    title = "Best of n answers, without training"
    figure, (axes,) = page(1, 1, (4.0, 2.5), (0, 0), title, f"{told} Dashed: the reward by the "
                           "model that picks, in its own standard deviations.",
                           margins=Margins(0.62, 0.3, 0.2, 0.5))
    for source, own in table.groupby("labels", sort=False):
        colour = COLOURS[source]
        axes.fill_between(own.answers, own.reward_low, own.reward_high, color=colour, alpha=0.15,
                          linewidth=0)
        axes.plot(own.answers, own.reward, "o-", color=colour, markersize=3.5,
                  label=f"picked by the {source}")
        axes.plot(own.answers, own.proxy_reward, color=colour, linewidth=1.0,
                  linestyle=(0, (4, 2)))
    axes.set_xscale("log", base=2)
    sizes = sorted(set(table.answers))
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{size:g}" for size in sizes])
    axes.set_xlabel("answers to pick from, n")
    axes.set_ylabel(f"reward, {UNIT}")
    axes.legend(loc="upper left")
    return figure, title, ("The judge's reward of the best of n (lines), beside what the picking "
                           "model itself gives (dashed).")


def _names(axes: Axes, places: np.ndarray, table: pd.DataFrame) -> None:
    axes.set_yticks(places, [f"{row.policy} {row.labels}" for row in table.itertuples()])
    for tick, row in zip(axes.get_yticklabels(), table.itertuples(), strict=True):
        tick.set_color(COLOURS[row.labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.grid(axis="x")
    axes.grid(False, axis="y")


def _shown(judged: Judged) -> list[Key]:
    """Policies that a panel is drawn of: all but the reference."""
    return [key for key in judged.policies if key[0] != REFERENCE]
