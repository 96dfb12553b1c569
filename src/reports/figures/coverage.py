"""Coverage and width of the pooled intervals and those of pgr.csv, scenario by scenario."""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from src.reports.figures.style import INK, METHODS, QUIET, STYLE, Drawn, Margins, page, save

BAND = (0.935, 0.97)
"""Within which a nominal 95% interval is taken as one."""
KINDS = {"pooled": (METHODS[0], "o", -0.14), "nested": (METHODS[1], "s", 0.14)}
NAMES = {"gain": "gain", "gap": "gap", "pgr": "PGR"}


def draw_coverage(table: pd.DataFrame, folder: Path) -> Drawn:
    """Draw coverage.csv into `folder`/figures/coverage.png."""
    rows = table[table.of == "cell"]
    names = list(dict.fromkeys(zip(rows.scenario, rows.seeds, strict=True)))
    counts = rows.groupby("interval").repetitions.max()
    title = "How often a nominal 95% interval of one cell holds the truth"
    with matplotlib.rc_context(STYLE):
        figure, axes = page(
            4, 4, (1.75, 0.2 * len(names)), (0.18, 0.5), title,
            f"Simulated experiments, {counts['pooled']:,} of each kind for pooled intervals "
            f"(circles) and {counts['nested']:,} for those of pgr.csv (squares). Filled: mean over "
            "the cells of an experiment, with its Monte-Carlo 95% interval. Hollow: the cell that "
            "is covered least. Grey: 93.5 to 97%. Last panel: median width of pooled intervals "
            "over that of pgr.csv; triangles up gain, down gap, dots PGR.",
            margins=Margins(1.75, 0.25, 0.3, 0.45))
        for panel, (key, name) in zip(axes, NAMES.items(), strict=False):
            _coverage(panel, rows[rows.figure == key], names)
            panel.set_title(f"coverage of {name}")
        _widths(axes[3], rows, names)
        for panel in axes:
            panel.set_ylim(len(names) - 0.4, -0.6)
            panel.set_yticks(range(len(names)), [])
            panel.grid(axis="x")
            panel.grid(visible=False, axis="y")
            panel.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(names)), [f"{name}, {seeds} seeds" for name, seeds in names])
        caption = "Coverage of pooled intervals and of those of pgr.csv, and the ratio of widths."
        return save(figure, folder / "figures", "coverage", title, caption)


def _coverage(axes: Axes, rows: pd.DataFrame, names: list[tuple[str, int]]) -> None:
    axes.axvspan(*BAND, color=QUIET, alpha=0.18, linewidth=0)
    axes.axvline(0.95, color=QUIET, linewidth=0.8)
    for row in rows.itertuples():
        colour, marker, shift = KINDS[row.interval]
        place = names.index((row.scenario, row.seeds)) + shift
        axes.plot([row.coverage - 1.96 * row.coverage_se, row.coverage + 1.96 * row.coverage_se],
                  [place, place], color=colour, linewidth=1.3)
        axes.plot(row.coverage, place, marker, color=colour, markersize=3.5)
        axes.plot(row.worst_cell, place, marker, color=colour, markersize=3.5,
                  markerfacecolor="none", markeredgewidth=0.7)
    axes.set_xlim(0.71, 1.01)
    axes.set_xticks([0.75, 0.8, 0.85, 0.9, 0.95], ["75", "80", "85", "90", "95%"])


def _widths(axes: Axes, rows: pd.DataFrame, names: list[tuple[str, int]]) -> None:
    wide = rows.pivot_table(index=["scenario", "seeds", "figure"], columns="interval",
                            values="width")
    axes.axvline(1.0, color=QUIET, linewidth=0.8)
    for (scenario, seeds, figure), ratio in (wide.pooled / wide.nested).items():
        marker = {"gain": "^", "gap": "v", "pgr": "o"}[figure]
        axes.plot(ratio, names.index((scenario, seeds)), marker, color=INK, markersize=3.5,
                  markerfacecolor=INK if figure == "pgr" else "none", markeredgewidth=0.7)
    axes.set_title("width, pooled / pgr.csv")
    axes.set_xlim(0.25, 1.2)
