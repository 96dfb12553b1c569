"""Are gains only what pre-training leaked? PGR and ceiling over the share of verdict documents.

Experiments of one grid, each on a base model of its own, whose text had another share of documents
that say what is right; the share, in percent, is the number that the experiment's name ends with.
Writes results/saliency/. A share has one base model: what another pre-training seed would give is
in no interval.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.common.console import table_lines
from src.common.errors import UserError
from src.common.files import atomic_path
from src.evaluation.across.committed_scores import committed_scores
from src.measures.bootstrap import interval, nested_replicates, resampled_means
from src.measures.cells import ALL, correctness, interval_fields, recovered
from src.measures.change.layers import over_seeds
from src.measures.run_scores import EvalPairs, RunScores
from src.reports.figures.saliency import saliency_figure
from src.reports.figures.style import STYLE, save
from src.reports.format import estimate

SHARE = re.compile(r"_(\d+)$")
COLUMNS = ["verdicts, %", "method", "teacher", "ceiling", "gain", "gap", "PGR", "seeds"]


def write_saliency(experiments: Sequence[str], results_dir: Path, folder: Path) -> str:
    """Write saliency.csv, trend.csv and their figure into `folder`; return what to print.

    Raises:
        UserError: fewer than two shares; a name without one; an experiment without scores, with
            several teachers or students, or without a student beside its teacher and ceiling.
    """
    shares = {name: _share(name) for name in experiments}
    if len(set(shares.values())) < 2:
        raise UserError(f"--experiment {' '.join(experiments)}: expected two shares of verdict "
                        "documents at least")
    config, rows, by_seed = EvalConfig(), [], []
    for name in sorted(shares, key=shares.get):
        own, seeds = _rows(*committed_scores(results_dir / name), config)
        rows += [{"share": shares[name], **row} for row in own]
        by_seed += [{"share": shares[name], **row} for row in seeds]
    table = pd.DataFrame(rows)
    trend = trend_table(pd.DataFrame(by_seed), config.level)
    for name, written in (("saliency", table), ("trend", trend)):
        with atomic_path(folder / f"{name}.csv") as partial:
            written.to_csv(partial, index=False)
    with matplotlib.rc_context(STYLE):
        figure, title, caption = saliency_figure(table, config.level)
        drawn = save(figure, folder / "figures", "saliency", title, caption)
    return "\n".join([*table_lines(COLUMNS, _shown(table), 2), "", *statements(table, trend), "",
                      f"tables: {folder}/*.csv", f"figure: {drawn.path}"])


def _share(name: str) -> int:
    found = SHARE.search(name)
    if not found:
        raise UserError(f"--experiment {name}: expected a name that ends with the share of verdict "
                        "documents in percent, such as demo_verdicts_5")
    return int(found[1])


def _rows(runs: Sequence[RunScores], pairs: EvalPairs,
          config: EvalConfig) -> tuple[list[dict], list[dict]]:
    """A row a method, and a row a method and seed."""
    models = [run for run in runs if run.role != "baseline"]
    right = correctness(models, pairs)
    found = recovered(right, pairs, config, {run.name: run.name for run in models
                                             if run.role == "student"})
    cells = {one.key[:2] for one in found if one.key[0] != ALL}
    if len(cells) != 1:
        raise UserError(f"{pairs.experiment}: expected students of one size and one teacher, each "
                        f"beside its teacher and ceiling, found {len(cells)} such cells")
    rows, by_seed = [], []
    for one in found:
        teacher, student, method = one.key
        keys = {"weak": ("teacher", teacher, "", ""), "ceiling": ("ceiling", student, "", ""),
                "student": ("student", student, teacher, method)}
        values = {name: np.stack([right[*key, seed] for seed in one.seeds])
                  for name, key in keys.items()}  # (S, n) each
        rows.append({
            "experiment": pairs.experiment, "teacher": teacher, "student": student,
            "method": method, "seeds": " ".join(map(str, one.seeds)), "n": len(pairs.pair_ids),
            **{field: value for name in ("weak", "ceiling")
               for field, value in interval_fields(name, _mean(values[name], pairs,
                                                               config)).items()},
            **interval_fields("gain", one.result.gain), **interval_fields("gap", one.result.gap),
            **interval_fields("pgr", one.result.pgr), "status": one.result.status})
        means = {name: each.mean(axis=1) for name, each in values.items()}
        by_seed += [{"method": method, "seed": seed, "ceiling": top, "gain": strong - weak,
                     "gap": top - weak} for seed, weak, top, strong in
                    zip(one.seeds, *(means[name] for name in ("weak", "ceiling", "student")),
                        strict=True)]
    return rows, by_seed


def _mean(values: np.ndarray, pairs: EvalPairs, config: EvalConfig):
    """Mean of values (S, n) with its interval over prompts and seeds."""
    over_prompts = resampled_means(values.mean(axis=0)[None], pairs.prompt_ids,
                                   samples=config.bootstrap_samples)
    replicates = nested_replicates(values[:, None], over_prompts, pairs.prompt_ids)
    return interval(float(values.mean()), replicates.along([1.0]), config.level)


def trend_table(by_seed: pd.DataFrame, level: float) -> pd.DataFrame:
    """trend.csv: what ceiling, gain and gap rise by from one share to the next higher one, on a
    straight line; a slope a seed, with Student's interval over seeds."""
    steps = {share: step for step, share in enumerate(sorted(set(by_seed.share)))}
    rows = []
    for method, own in by_seed.groupby("method", sort=False):
        for name in ("ceiling", "gain", "gap"):
            slopes = [np.polyfit(seed.share.map(steps), seed[name], 1)[0]
                      for _, seed in own.groupby("seed") if len(seed) == len(steps)]
            if slopes:
                rows.append({"method": method, "figure": name, "shares": len(steps),
                             "seeds": len(slopes),
                             **interval_fields("step", over_seeds(slopes, level))})
    return pd.DataFrame(rows)


def statements(table: pd.DataFrame, trend: pd.DataFrame) -> list[str]:
    """Whether there is a gain at the lowest share, and whether gains go with the share."""
    said = []
    for row in table[table.share == table.share.min()].itertuples():
        verdict = ("there is a gain" if row.gain_low > 0 else
                   "students fall below their teacher" if row.gain_high < 0 else
                   "no gain is told from 0")
        said.append(f"With {row.share}% verdict documents, {row.method}: {verdict} "
                    f"({estimate(row, 'gain', 3, signed=True)}), PGR "
                    f"{estimate(row, 'pgr', 2) if row.status == 'ok' else row.status}.")
    for row in trend.itertuples():
        goes = ("rises" if row.step_low > 0 else "falls" if row.step_high < 0 else
                "is not told to change")
        said.append(f"{row.method}: {row.figure} {goes} with the share "
                    f"({estimate(row, 'step', 3, signed=True)} a step).")
    return said


def _shown(table: pd.DataFrame) -> list[list[str]]:
    return [[f"{row.share}", row.method, estimate(row, "weak"), estimate(row, "ceiling"),
             estimate(row, "gain", 3, signed=True), estimate(row, "gap"),
             estimate(row, "pgr", 2) if row.status == "ok" else row.status, row.seeds]
            for row in table.itertuples()]
