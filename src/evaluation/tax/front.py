"""What does a reward model cost, and does averaging with its base buy that back?
results/front/<experiment>/.

Every student of an experiment is averaged with its base in memory, by many recipes; each average is
a point of accuracy on the test pairs and of nats lost on held-out text.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from tqdm import tqdm

from configs.run import RunConfig
from src.common.errors import UserError
from src.common.files import atomic_path, write_text
from src.common.hashing import commit
from src.evaluation.change.before_after import SPLIT
from src.evaluation.experiment import eval_pairs, finished_runs, score_runs
from src.evaluation.tax.points import answers_as_windows, measure, probe_margins
from src.evaluation.tax.recipes import Average, averages
from src.measures.cells import correctness
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.tax.front import BASE, PROBE, Peers, Point, areas_table, front_table
from src.reports.document import to_markdown
from src.reports.figures.style import STYLE, save
from src.reports.results import seed_list
from src.reports.tax.figure import front_figure
from src.reports.tax.front import blocks, console
from src.runs.plan import Plan
from src.scoring.windows import Windows, read_windows

WINDOW, WINDOWS = 512, 32
"""Tokens of a window of text, and how many of them are read."""
Group = tuple[str, str, str]
"""Student, teacher, method."""


def write_front(plan: Plan, runs_dir: Path, results_dir: Path, text: Path | None) -> str:
    """Write front.csv, areas.csv, a figure a student and report.md; return what to print.

    Args:
        text: what the tax is measured on; None for held-out answers to the test pairs' prompts.
    Raises:
        UserError: no student is finished; the weights of one were freed.
    """
    found, config = finished_runs(plan, runs_dir)[0], plan.experiment.eval
    groups = _students(found)
    if not groups:
        raise UserError(f"{plan.experiment.name}: no student is finished: run "
                        f"./weak_to_strong.sh {plan.experiment.name}")
    pairs, _ = eval_pairs(plan, SPLIT)
    fronts, areas = [], []
    for key, runs in groups.items():
        texts = _texts(plan, runs[0][0], text)
        points = _points(runs, plan, texts, pairs, runs_dir)
        facts = {**dict(zip(("student", "teacher", "method"), key, strict=True)),
                 "seeds": seed_list([run.seed for run, _ in runs])}
        peers = _peers(runs, found, plan, pairs, runs_dir)
        table = front_table(points, texts.tokens, texts.bytes, pairs.prompt_ids, peers, config)
        fronts.append(_with(facts, table))
        areas.append(_with(facts, areas_table(points, texts.tokens, config)))
    return _write(results_dir / "front" / plan.experiment.name, pd.concat(fronts),
                  pd.concat(areas), plan, text)


def _students(found: Sequence[tuple[RunConfig, Path]]) -> dict[Group, list[tuple[RunConfig, Path]]]:
    groups: dict[Group, list[tuple[RunConfig, Path]]] = {}
    for run, folder in found:
        if run.kind == "student" and run.method.learner == "gradient":
            groups.setdefault((run.name, run.teacher, run.method.name), []).append((run, folder))
    return groups


def _texts(plan: Plan, run: RunConfig, text: Path | None) -> Windows:
    if text is None:
        return answers_as_windows(plan, run)
    return read_windows(text, plan.bases[run.model].tokenizer, WINDOW, WINDOWS)


def _points(runs: Sequence[tuple[RunConfig, Path]], plan: Plan, texts: Windows, pairs: EvalPairs,
            runs_dir: Path) -> list[Point]:
    """Every average of the runs of one student, over seeds, and the linear probe."""
    right, nats, probes, planned = [], [], [], []
    for run, folder in runs:
        planned.append(averages(run))
        bar = tqdm(measure(run, folder, plan, planned[-1], texts, runs_dir), run.display_name,
                   total=len(planned[-1]), unit="average")
        found = list(bar)
        ids = plan.split(run, SPLIT).pair_ids
        right.append([_right(run, ids, one.margins, pairs) for one in found])
        nats.append([one.nats for one in found])
        probes.append(_right(run, ids, probe_margins(run, plan, runs_dir), pairs))
    base = next(place for place, one in enumerate(planned[0]) if one.family == BASE)
    lost = np.array(nats) - np.array(nats)[:, [base]]  # (S, points, R)
    points = [Point(one.family, one.mean, one.place, _shares([each[place] for each in planned]),
                    np.array(right)[:, place], lost[:, place])
              for place, one in enumerate(planned[0])]
    return [*points, Point(PROBE, 1.0, "", "", np.array(probes), lost[:, base])]


def _right(run: RunConfig, ids: np.ndarray, margins: np.ndarray, pairs: EvalPairs) -> np.ndarray:
    """(n,) in the order of `pairs`."""
    scores = RunScores(run.kind, run.name, len(run.kept), run.teacher, run.method.name, run.seed,
                       ids, margins)
    return correctness([scores], pairs)[scores.key]


def _shares(of_seeds: Sequence[Average]) -> str:
    """Each block's share of the base, means over seeds."""
    means = np.mean([one.recipe.alphas for one in of_seeds], axis=0)
    return " ".join(f"{share:.2f}" for share in means)


def _peers(runs: Sequence[tuple[RunConfig, Path]], found: Sequence[tuple[RunConfig, Path]],
           plan: Plan, pairs: EvalPairs, runs_dir: Path) -> Peers | None:
    """The runs' teachers and ceilings; None where not all of them are finished."""
    wanted = [[("teacher", run.teacher, "", "", run.seed), ("ceiling", run.name, "", "", run.seed)]
              for run, _ in runs]
    keys = {key for both in wanted for key in both}
    others = [(run, folder) for run, folder in found
              if (run.kind, run.name, "", "", run.seed) in keys]
    if len(others) < len(keys):
        return None
    right = correctness(score_runs(others, plan, SPLIT, runs_dir), pairs)
    return Peers(*(np.stack([right[both[place]] for both in wanted]) for place in range(2)))


def _with(facts: dict[str, str], table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({**{name: [value] * len(table) for name, value in facts.items()},
                         **table.to_dict("list")})


def _write(folder: Path, front: pd.DataFrame, areas: pd.DataFrame, plan: Plan,
           text: Path | None) -> str:
    for name, table in (("front", front), ("areas", areas)):
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    drawn = []
    with matplotlib.rc_context(STYLE):
        for key, own in front.groupby(["student", "teacher", "method"], sort=False):
            figure, title, caption = front_figure(own, plan.experiment.name,
                                                  plan.experiment.eval.level)
            drawn.append(save(figure, folder / "figures", "-".join(("front", *key)).replace(
                "/", "_"), title, caption))
    facts = {"experiment": plan.experiment.name, "commit": commit(),
             "data": f"{plan.data.name}, split {SPLIT}, n = {front.n.iloc[0]} pairs",
             "held-out text": f"{text.name if text else 'answers to the test pairs prompts'}, "
                              f"{front.texts.iloc[0]} pieces",
             "date": datetime.date.today().isoformat()}
    write_text(folder / "report.md", to_markdown(
        f"What alignment costs: {plan.experiment.name}", blocks(front, areas, drawn, facts)))
    return "\n".join([*console(front, areas), f"report: {folder / 'report.md'}"])
