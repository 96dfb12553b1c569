"""PGR, inherited errors and lost skill side by side, over the depth of students."""

import pandas as pd
from matplotlib.figure import Figure

from src.measures.comparisons.methods import BASELINE
from src.reports.figures.style import INK, MARKERS, METHODS, QUIET, Margins, page, panel_title

PANELS = {"pgr": ("PGR", "gap recovered, where it is defined"),
          "inherited": ("Errors inherited", "of the pairs that the teacher gets wrong"),
          "nats_lost": ("Skill lost", "nats a token, held-out answers"),
          "moved": ("Distance moved", "|change| / |weights|")}


def degradation_by_depth(cells: pd.DataFrame, experiment: str,
                         level: float) -> tuple[Figure, str, str]:
    """Draw cells.csv, a line a teacher, of soft labels or else its first method; return figure,
    title and caption."""
    method = BASELINE if (cells.method == BASELINE).any() else cells.method.iloc[0]
    title = f"{experiment}: what larger students take over, and what they lose"
    caption = (f"Students of {method}, a line a teacher; means over seeds, bars: "
               f"{100 * level:.6g}% intervals over seeds. Dotted: ceilings of the same size, "
               "which no teacher taught.")
    own = cells[cells.method == method]
    teachers, depths = list(dict.fromkeys(own.teacher)), sorted(set(own.layers))
    shown = {column: words for column, words in PANELS.items() if own[column].notna().any()}
    room = 0.7 + 0.075 * max(map(len, teachers))
    figure, axes = page(len(shown), 2, (2.7, 2.0), (0.75, 0.75), title, caption,
                        margins=Margins(left=0.6, right=room, top=0.4, bottom=0.5))
    for panel, (column, (name, below)) in zip(axes, shown.items(), strict=True):
        for place, teacher in enumerate(teachers):
            rows = own[(own.teacher == teacher) & own[column].notna()]
            colour = METHODS[place % len(METHODS)]
            x = rows.layers + 0.08 * (place - (len(teachers) - 1) / 2)
            panel.vlines(x, rows[f"{column}_low"], rows[f"{column}_high"], color=colour,
                         linewidth=1, alpha=0.7)
            panel.plot(x, rows[column], MARKERS[place % len(MARKERS)] + "-", color=colour,
                       markersize=4.5, linewidth=1, label=f"of {teacher}")
            if column == "inherited":
                panel.plot(x, rows.inherited_by_ceiling, ":", color=colour, linewidth=1.2)
        panel.axhline(0, color=QUIET, linewidth=0.8)
        panel.set_xlim(depths[0] - 0.5, depths[-1] + 0.5)
        panel.set_xticks(depths)
        panel.set_xlabel("layers of the student")
        panel_title(panel, name, below, INK)
    last = axes[min(1, len(axes) - 1)]
    last.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handletextpad=0.3)
    return figure, title, caption
