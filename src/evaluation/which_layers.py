"""Which layers a teacher should keep, over several experiments: results/which_layers/."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from configs.schema import EvalConfig
from src.common.files import atomic_path, read_json, write_text
from src.common.hashing import commit
from src.evaluation.across.committed_scores import committed_scores
from src.evaluation.layer_rules import rules_table
from src.reports.document import to_markdown
from src.reports.figures.style import STYLE, save
from src.reports.figures.which_layers import accuracy_by_rule
from src.reports.which_layers import MEAN, blocks, console

TITLE = "Which layers to keep"


def compare_layers(experiments: Sequence[str], results_dir: Path, folder: Path) -> str:
    """Write which_layers.csv, its figure and report.md into `folder`; return what to print.

    Raises:
        UserError: an experiment without scores, or without two rules to compare.
    """
    config, tables, notes = EvalConfig(), [], []
    for experiment in experiments:
        runs, pairs = committed_scores(results_dir / experiment)
        tables.append(rules_table(runs, pairs, config))
        meta = read_json(results_dir / experiment / "meta.json")
        notes += [note for note in meta.get("notes", []) if note not in notes]
    table = pd.concat(tables, ignore_index=True)
    with atomic_path(folder / "which_layers.csv") as partial:
        table.to_csv(partial, index=False)
    with matplotlib.rc_context(STYLE):
        figure, title, caption = accuracy_by_rule(table[table.layers != MEAN], config.level)
        drawn = save(figure, folder / "figures", "which_layers", title, caption)
    facts = {"experiments": ", ".join(experiments), "commit": commit(),
             "date": datetime.date.today().isoformat()}
    write_text(folder / "report.md", to_markdown(TITLE, blocks(table, drawn, notes, facts)))
    return "\n".join([*console(table), f"report: {folder / 'report.md'}"])
