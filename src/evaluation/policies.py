"""How good are an experiment's policies, by a judge that labelled for none of them?

Each policy answers the same prompts of test. Answers and their rewards stay in its run's folder,
    <run folder>/answers/test.parquet        one answer a prompt; test-16.parquet to pick from
and results/<experiment>/policy/ gets tables, figures and a page. The question that it answers: does
a policy aligned to a weak-to-strong student beat one aligned to the student's teacher?
"""

import dataclasses
import datetime
import functools
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from tqdm import tqdm

from configs.run import RunConfig
from model.base.weights import weights_fingerprint
from model.policy_model import load_language_model
from src.common.files import atomic_path, holds_meta, write_json, write_text
from src.common.hashing import commit
from src.common.lock import clear_partials, lock
from src.common.owned import claim
from src.common.table_files import made_once
from src.evaluation.policy_pairs import by_pairrm
from src.measures.policies.paired import Answers, fitted_tau
from src.measures.policies.tables import (
    REFERENCE,
    Judged,
    best_of_table,
    comparison_table,
    policy_table,
    with_best_of,
)
from src.reports.document import to_html, to_markdown
from src.reports.figures.style import STYLE, save
from src.reports.policies.figures import draw
from src.reports.policies.page import blocks, console
from src.runs.folders import require_finished
from src.runs.freed import require_weights, run_fingerprint
from src.runs.plan import Plan
from src.scoring.answers import log_probabilities, rewards_of
from src.scoring.generations import Prompts, Sampling, answer, answer_inputs, prompts_of
from src.scoring.pairs import margins, scores_of
from src.scoring.texts import TextScorer

SPLIT = "test"
KIND = "policies, judged"
FOLDER = "policy"
COLUMNS = ("reward_judge", "tokens", "characters", "finished", "log_ratio")
"""Of answers, in the order in which `Answers` has them."""
PROMPT_SEED = (0,)
"""The same prompts for all seeds."""


def evaluate_policies(plan: Plan, runs_dir: Path, results_dir: Path) -> str:
    """Judge every policy, write tables, figures and the page; return the lines to print.

    Raises:
        UserError: a policy or a reward model is not finished, or has no weights any more.
    """
    found = {run.identity: require_finished(
        runs_dir, run.stage, run.identity, run.display_name,
        f"run ./dpo.sh {plan.experiment.name} first") for run in _needed(plan)}
    judged, texts = _judged(plan, found, runs_dir)
    folder = results_dir / plan.experiment.name / FOLDER
    with lock(folder):
        claim(folder, KIND, "results folder", holds_meta("judge"))
        clear_partials(folder)
        return _write(folder, judged, texts, plan)


def _needed(plan: Plan) -> list[RunConfig]:
    """The policies, and the reward models that label for them or judge them."""
    named = {other.identity: other for run in plan.policies for other in (run, *plan.needed(run))}
    return list(named.values())


def _judged(plan: Plan, found: dict[str, Path], runs_dir: Path) -> tuple[Judged, pd.DataFrame]:
    """The judged answers, and of the first seed's policies the texts."""
    config = plan.experiment.policies
    prompts = prompts_of(plan, plan.policies[0], SPLIT, config.prompts, PROMPT_SEED)
    tables: dict[tuple[str, str], list[pd.DataFrame]] = {}
    first: list[pd.DataFrame] = []
    for run in tqdm(plan.policies, desc="answers", unit="policy"):
        table = judged_answers(run, plan, found, prompts, 1)
        tables.setdefault((run.policy.name, run.policy.source), []).append(table)
        if run.policy.step == REFERENCE:
            first.append(judged_answers(run, plan, found, prompts, max(config.best_of)))
    roles = [name.removeprefix("reward_") for name in first[0] if name.startswith("reward_")]

    def of(own: list[pd.DataFrame], column: str) -> np.ndarray:
        return np.stack([table[column].to_numpy() for table in own]).reshape(
            len(own), len(prompts.ids), -1)

    policies = {key: Answers(*(of(own, column)[..., 0] for column in COLUMNS), (
        of(own, f"reward_{key[1]}")[..., 0] if key[0] != REFERENCE and key[1] in roles else None))
        for key, own in tables.items()}
    if config.temperature != 1:
        policies = {key: own if key[0] == REFERENCE else _without_kl(own)
                    for key, own in policies.items()}
    judged = Judged(
        plan.experiment.name, config.judge, plan.experiment.seeds, np.array(prompts.ids), policies,
        {role: of(tables[REFERENCE, "gt"], f"reward_{role}")[..., 0] for role in roles
         if role != "judge"},
        {role: of(first, f"reward_{role}") for role in roles},
        *(of(first, column) for column in ("tokens", "characters", "finished")),
        np.array([_tau(run, plan, found) for run in plan.policies if run.policy.step == REFERENCE]),
        by_pairrm(tables, prompts, plan.policies, found, config.pairrm))
    return judged, _texts(tables, prompts).head(config.examples)


def _without_kl(answers: Answers) -> Answers:
    """Log-ratios are of temperature 1: of answers drawn at another one their mean is no KL."""
    return dataclasses.replace(answers, log_ratio=np.full_like(answers.log_ratio, np.nan))


def judged_answers(run: RunConfig, plan: Plan, found: dict[str, Path], prompts: Prompts,
                   answers: int) -> pd.DataFrame:
    """A policy's answers to the prompts, with the reward of each by the judge and by every model
    that labels for a policy of the same seed; made once.

    Returns:
        `prompt_id, sample, response, tokens, characters, finished, log_ratio, reward_judge` and,
        where they label, `reward_teacher, reward_student`. `log_ratio`: log-probability of the
        answer less that by the policy that is fine-tuned alone, in nats, both at temperature 1.
    """
    config, folder = plan.experiment.policies, found[run.identity]
    sampling = Sampling(answers, config.max_new_tokens, config.temperature, run.seed)
    models, tokenizer = _scorers(run, plan, found), plan.bases[run.model].tokenizer
    reference = next(found[other.identity] for other in plan.policies
                     if other.seed == run.seed and other.policy.step == REFERENCE)
    inputs = {**answer_inputs(folder, prompts, sampling, tokenizer),
              "reference": weights_fingerprint(reference),
              **{role: run_fingerprint(place) for role, place in models.items()}}
    name = SPLIT if answers == 1 else f"{SPLIT}-{answers}"

    def made() -> pd.DataFrame:
        for place in models.values():
            require_weights(place)
        runtime, policy = plan.experiment.runtime, load_language_model(folder)
        table = answer(policy, tokenizer, prompts, sampling, runtime, run.display_name)
        table["log_ratio"] = 0.0
        if folder != reference:
            table["log_ratio"] = np.subtract(*(
                log_probabilities(model, tokenizer, prompts, table, runtime)
                for model in (policy, load_language_model(reference))))
        for role, place in models.items():
            table[f"reward_{role}"] = rewards_of(_scorer(place), prompts, table)
        return table.drop(columns="ids")

    return made_once(folder / "answers" / f"{name}.parquet", inputs, made)


@functools.lru_cache(maxsize=3)
def _scorer(folder: Path) -> TextScorer:
    """Kept, for the policies of a seed are scored by the same few reward models in turn."""
    return TextScorer(folder)


def _scorers(run: RunConfig, plan: Plan, found: dict[str, Path]) -> dict[str, Path]:
    """`judge`, `teacher`, `student` -> folder of the reward model of the policy's seed."""
    own = {other.policy.source: other.labels for other in plan.policies
           if other.seed == run.seed and other.labels in found}
    return {"judge": found[run.judge],
            **{source: found[own[source]] for source in plan.experiment.policies.labels
               if source in own}}


def _tau(run: RunConfig, plan: Plan, found: dict[str, Path]) -> float:
    """Of the judge of a policy's seed, on the human pairs of test."""
    judge = next(other for other in plan.needed(run) if other.identity == run.judge)
    table = scores_of(found[run.judge], judge, plan.split(judge, SPLIT), SPLIT,
                      plan.experiment.runtime)
    return fitted_tau(margins(table))


def _texts(tables: dict[tuple[str, str], list[pd.DataFrame]], prompts: Prompts) -> pd.DataFrame:
    """Of the first seed: prompt, and a column of answers for each policy."""
    said = {" ".join(key): own[0].response.to_numpy() for key, own in tables.items()}
    return pd.DataFrame({"prompt": [each[-1]["content"] for each in prompts.messages], **said})


def _write(folder: Path, judged: Judged, texts: pd.DataFrame, plan: Plan) -> str:
    config, sizes = plan.experiment.eval, plan.experiment.policies.best_of
    judged = with_best_of(judged, max(sizes))
    tables = {"policy": policy_table(judged, config),
              "comparison": comparison_table(judged, config),
              "best_of": best_of_table(judged, sizes, config)}
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with matplotlib.rc_context(STYLE):
        drawn = [save(figure, folder / "figures", name, title, caption)
                 for name, (figure, title, caption) in draw(judged, tables, config.level).items()]
    facts = {"experiment": plan.experiment.name, "judge": judged.judge,
             "data": f"{plan.data.name}, split {SPLIT}, n = {len(judged.prompts)} prompts",
             "seeds": " ".join(map(str, judged.seeds)), "commit": commit(),
             "date": datetime.date.today().isoformat()}
    page = blocks(judged, tables, drawn, texts, facts)
    title = f"Policies of {plan.experiment.name}"
    write_json(folder / "meta.json", facts)
    write_text(folder / "report.md", to_markdown(title, page))
    write_text(folder / "report.html", to_html(title, page))
    return "\n".join([*console(tables), f"report: {folder / 'report.html'}"])
