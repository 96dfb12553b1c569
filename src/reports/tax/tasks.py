"""Scores on questions beside chance: the base, an average, and the tuned model."""

import pandas as pd
from matplotlib.figure import Figure

from src.measures.tax.front import BASE, TUNED, UNIFORM
from src.reports.figures.style import CEILING, METHODS, QUIET, Margins, page, panel_title
from src.reports.tax.front import NAMES


def tasks_figure(own: pd.DataFrame, experiment: str, level: float) -> tuple[Figure, str, str]:
    """Draw one student's rows of tasks.csv, a panel a task; return figure, title and caption."""
    row = own.iloc[0]
    title = f"{experiment}: what {row.student} taught by {row.teacher} still answers"
    caption = (f"Accuracy on {int(own.n.min()):,} questions or more a task, through lm-eval; means "
               f"over seeds {row.seeds}, bars: {100 * level:.6g}% intervals over questions and "
               "seeds. Filled: the likeliest answer (acc); open: for its length (acc_norm). "
               "Dashed: chance.")
    tasks = list(dict.fromkeys(own.task))
    figure, axes = page(len(tasks), 3, (2.0, 1.9), (0.5, 0.6), title, caption,
                        margins=Margins(left=0.6, right=0.3, top=0.45, bottom=0.4))
    for panel, task in zip(axes, tasks, strict=True):
        rows = own[own.task == task]
        families = list(dict.fromkeys(rows.family))
        for place, each in enumerate(rows.itertuples()):
            x = families.index(each.family) + (0.18 if each.metric == "acc_norm" else 0)
            colour = {BASE: QUIET, TUNED: CEILING}.get(each.family, METHODS[0])
            panel.vlines(x, each.score_low, each.score_high, color=colour, linewidth=1, alpha=0.7)
            panel.plot([x], [each.score], "o", color=colour, markersize=5, zorder=3 + place,
                       markerfacecolor="white" if each.metric == "acc_norm" else colour)
        panel.axhline(rows.chance.iloc[0], color=QUIET, linewidth=1, linestyle="--")
        panel.set_xticks(range(len(families)), [
            f"{NAMES[family]} {rows[rows.family == family].a.iloc[0]:g}" if family == UNIFORM
            else NAMES[family] for family in families])
        panel.set_xlim(-0.5, len(families) - 0.5)
        panel_title(panel, task, f"chance {rows.chance.iloc[0]:.2f}", QUIET)
    return figure, title, caption
