"""The numbers of one reward model as CSV files and as lines for the terminal."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from src.common.console import table_lines
from src.common.files import atomic_path
from src.measures.reward_profile import RewardProfile, ScoredPairs
from src.reports.figures.rewards import Subject
from src.reports.rewards import correlations, headline, length_lines, summary_table


def write_tables(output: Path, view: RewardProfile, scored: ScoredPairs) -> None:
    """One CSV for each of `tables`."""
    for name, table in tables(view, scored).items():
        with atomic_path(output / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)


def tables(view: RewardProfile, scored: ScoredPairs) -> dict[str, pd.DataFrame]:
    """The report's numbers in full, by file; an interval or figure that does not exist is empty."""
    single = {**dataclasses.asdict(view.figures), "auroc": view.auroc, "log_loss": view.log_loss,
              "brier": view.brier, "calibration_error": view.calibration_error}
    summary = [("accuracy", view.n, *dataclasses.astuple(view.accuracy))]
    summary += [(name, view.n, value, None, None) for name, value in single.items()]
    groups = [(kind, group.name, group.n, *dataclasses.astuple(group.accuracy))
              for kind, parts in view.groups.items() for group in parts]
    return {
        "summary": pd.DataFrame(summary, columns=["figure", "n", "value", "low", "high"]),
        "groups": pd.DataFrame(groups, columns=["by", "group", "n", "accuracy", "low", "high"]),
        "length_bias": pd.DataFrame(_length_rows(view),
                                    columns=["figure", "n", "value", "low", "high"]),
        "calibration": pd.DataFrame([dataclasses.asdict(part) for part in view.calibration]),
        "rewards": pd.DataFrame({
            "pair_id": scored.pair_ids, "subset": scored.subset, "difficulty": scored.difficulty,
            "prompt_tokens": scored.lengths[:, 0], "chosen_tokens": scored.lengths[:, 1],
            "rejected_tokens": scored.lengths[:, 2],
            "reward_chosen": scored.rewards[:, 0].astype(np.float32),
            "reward_rejected": scored.rewards[:, 1].astype(np.float32)}),
    }


def _length_rows(view: RewardProfile) -> list[tuple]:
    bias = view.bias
    if bias is None:
        return []
    rows = [(f"{kind}, {name}", bias.n, *dataclasses.astuple(getattr(one, kind)))
            for name, one in correlations(bias).items() for kind in ("pearson", "spearman")]
    rows += [(f"accuracy where {group.name}", group.n, *dataclasses.astuple(group.accuracy))
             for group in bias.groups]
    return [*rows, ("longer wins", bias.n, *dataclasses.astuple(bias.longer_wins)),
            ("prefers longer", bias.n, *dataclasses.astuple(bias.prefers_longer))]


def console_lines(view: RewardProfile, subject: Subject, left_out: str) -> list[str]:
    """The main figures in words, for the terminal."""
    lines = [f"! {subject.mark}"] if subject.mark else []
    lines += [f"{subject.model}: {subject.scored_on}", *([left_out] if left_out else [])]
    named = [[name, value] for name, _, value in summary_table(view).rows]
    named += length_lines(view.bias) if view.bias else []
    lines += table_lines(named[0], named[1:], numbers_left=True)
    for kind, groups in view.groups.items():
        low = min(groups, key=lambda group: group.accuracy.estimate)
        high = max(groups, key=lambda group: group.accuracy.estimate)
        lines.append(f"by {kind}: from {low.accuracy.estimate:.3f} ({low.name}, n {low.n:,}) to "
                     f"{high.accuracy.estimate:.3f} ({high.name}, n {high.n:,})")
    return [*lines, headline(view)]
