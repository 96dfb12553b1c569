"""What does a reward model cost, and does averaging with its base buy that back?
results/front/<experiment>/.

Every student of an experiment is averaged with its base in memory, by many recipes; each average is
a point of accuracy on the test pairs and of nats lost on held-out text.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from tqdm import tqdm

from configs.run import RunConfig
from model.base.truncate import positions
from src.common.errors import UserError
from src.common.files import atomic_path, write_text
from src.common.hashing import commit
from src.common.lock import lock
from src.common.owned import clear
from src.evaluation.change.before_after import SPLIT
from src.evaluation.experiment import eval_pairs, finished_runs, score_runs
from src.evaluation.tax.averaged import Averaged
from src.evaluation.tax.points import answers_as_windows, measured, probe_margins
from src.evaluation.tax.questions import answered
from src.evaluation.tax.ratios import with_ratios
from src.evaluation.tax.recipes import Average, averages
from src.measures.cells import correctness
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.tax.front import BASE, PROBE, Peers, Point, areas_table, front_table
from src.measures.tax.tasks import tasks_table
from src.reports.document import to_markdown
from src.reports.figures.style import STYLE, Drawn, save
from src.reports.results import seed_list
from src.reports.tax.figure import front_figure
from src.reports.tax.front import blocks, console, of_student, students_of
from src.reports.tax.tasks import tasks_figure
from src.runs.plan import Plan
from src.scoring.windows import Windows, read_windows

if TYPE_CHECKING:
    from lm_eval.api.task import Task

WINDOW, WINDOWS = 512, 32
"""Tokens of a window of text, or all that the model takes; and how many windows are read."""
Group = tuple[str, str, str]
"""Student, teacher, method."""


@dataclass(frozen=True)
class Asked:
    """What the tax is measured on."""

    text: Path | None = None
    """None for held-out answers to the test pairs' prompts."""
    tasks: Sequence["Task"] = ()
    limit: int | None = None
    """Questions of each task; None for all."""


def write_front(plan: Plan, runs_dir: Path, results_dir: Path, asked: Asked) -> str:
    """Write front.csv, areas.csv, tasks.csv, figures and report.md; return what to print.

    Raises:
        UserError: no student is finished; the weights of one were freed.
    """
    found, config = finished_runs(plan, runs_dir)[0], plan.experiment.eval
    groups = _students(found)
    if not groups:
        raise UserError(f"{plan.experiment.name}: no student is finished: run "
                        f"./weak_to_strong.sh {plan.experiment.name}")
    pairs, _ = eval_pairs(plan, SPLIT)
    tables: dict[str, list[pd.DataFrame]] = {"front": [], "areas": [], "tasks": []}
    for key, runs in groups.items():
        texts = _texts(plan, runs[0][0], asked.text)
        models = [Averaged(run, folder, plan, runs_dir) for run, folder in runs]
        planned = [[replace(one, recipe=with_ratios(model, one.recipe))
                    for one in averages(model.run)] for model in models]
        points = _points(models, planned, texts, pairs)
        peers = _peers(runs, found, plan, pairs, runs_dir)
        own = {"front": front_table(points, texts.tokens, texts.bytes, pairs.prompt_ids, peers,
                                    config),
               "areas": areas_table(points, texts.tokens, config),
               "tasks": tasks_table(answered(models, planned[0], asked.tasks, asked.limit),
                                    config)}
        facts = {**dict(zip(("student", "teacher", "method"), key, strict=True)),
                 "seeds": seed_list([run.seed for run, _ in runs])}
        for name, table in own.items():
            tables[name].append(_with(facts, table))
    folder = results_dir / "front" / plan.experiment.name
    with lock(folder):
        return _write(folder, {name: pd.concat(parts) for name, parts in tables.items()}, plan,
                      asked)


def _students(found: Sequence[tuple[RunConfig, Path]]) -> dict[Group, list[tuple[RunConfig, Path]]]:
    groups: dict[Group, list[tuple[RunConfig, Path]]] = {}
    for run, folder in found:
        if run.kind == "student" and run.method.learner == "gradient":
            groups.setdefault((run.name, run.teacher, run.method.name), []).append((run, folder))
    return groups


def _texts(plan: Plan, run: RunConfig, text: Path | None) -> Windows:
    if text is None:
        return answers_as_windows(plan, run)
    base = plan.bases[run.model]
    return read_windows(text, base.tokenizer, min(WINDOW, positions(base.hf_config, base.key)),
                        WINDOWS)


def _points(models: Sequence[Averaged], planned: Sequence[Sequence[Average]], texts: Windows,
            pairs: EvalPairs) -> list[Point]:
    """Every average of the runs of one student, over seeds, and the linear probe."""
    right, nats, probes = [], [], []
    for averaged, points in zip(models, planned, strict=True):
        run, plan = averaged.run, averaged.plan
        found = [measured(averaged, one.recipe, texts)
                 for one in tqdm(points, run.display_name, unit="average")]
        ids = plan.split(run, SPLIT).pair_ids
        right.append([_right(run, ids, one.margins, pairs) for one in found])
        nats.append([one.nats for one in found])
        probes.append(_right(run, ids, probe_margins(run, plan, averaged.runs_dir), pairs))
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


def _write(folder: Path, tables: dict[str, pd.DataFrame], plan: Plan, asked: Asked) -> str:
    clear(folder, ["tasks.csv", "figures/*.png"])  # of an earlier call
    for name, table in tables.items():
        if len(table):
            with atomic_path(folder / f"{name}.csv") as partial:
                table.to_csv(partial, index=False)
    front, text = tables["front"], asked.text.name if asked.text else "answers to test prompts"
    facts = {"experiment": plan.experiment.name, "commit": commit(),
             "data": f"{plan.data.name}, split {SPLIT}, n = {front.n.iloc[0]} pairs",
             "held-out text": f"{text}, {front.texts.iloc[0]} pieces, "
                              f"{front.tokens.iloc[0]:,} tokens",
             "date": datetime.date.today().isoformat()}
    write_text(folder / "report.md", to_markdown(
        f"What alignment costs: {plan.experiment.name}",
        blocks(tables, _drawn(folder, tables, plan), facts)))
    return "\n".join([*console(tables), f"report: {folder / 'report.md'}"])


def _drawn(folder: Path, tables: dict[str, pd.DataFrame], plan: Plan) -> list[Drawn]:
    """A figure a student, and one of its questions where some were asked."""
    drawn, name, level = [], plan.experiment.name, plan.experiment.eval.level
    with matplotlib.rc_context(STYLE):
        for key, own in students_of(tables["front"]):
            end = "-".join(key).replace("/", "_")
            drawn.append(save(*_named(folder, f"front-{end}", front_figure(own, name, level))))
            answers = of_student(tables["tasks"], key)
            if len(answers):
                drawn.append(save(*_named(folder, f"tasks-{end}",
                                          tasks_figure(answers, name, level))))
    return drawn


def _named(folder: Path, name: str, found: tuple) -> tuple:
    figure, title, caption = found
    return figure, folder / "figures", name, title, caption
