"""An experiment's finished runs, scored on one split -> the files of `results/<experiment>/`."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from configs.identity import facts
from configs.run import STAGES, RunConfig
from data.pairs.pair_files import read_pairs
from data.records import SPLITS
from model.hub.present import dequantised_from
from src.common.errors import UserError, reading
from src.common.files import atomic_path, holds_meta, read_json, write_json
from src.common.hashing import commit, content_hash
from src.common.join import in_order
from src.common.lock import clear_partials, name_under_lock
from src.common.owned import claim, clear
from src.evaluation.across.earlier_runs import earlier_note, runs_table
from src.evaluation.side_by_side import score_side_by_side, scores_in
from src.measures import tables
from src.measures.baselines import LENGTH_ONLY, TFIDF, AnswerTexts, length_margins, tfidf_margins
from src.measures.best_ceiling import ceilings_table, with_best_ceiling
from src.measures.cells import correctness
from src.measures.comparisons.methods import differences, methods_table
from src.measures.run_scores import EvalPairs, RunScores
from src.methods.experts import mean_margin
from src.methods.labelling import is_link
from src.methods.log_odds import log_odds, sigmoid
from src.reports.experiment import write_report
from src.reports.results import Results, contamination_mark
from src.runs.cards import Accuracy, write_model_card
from src.runs.folders import find_finished
from src.runs.freed import run_fingerprint
from src.runs.plan import Plan
from src.runs.seconds import training_seconds
from src.scoring.pairs import margins, require_scorable

RESULTS_FORMAT = 5
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")
SEARCH = "search.csv"
"""Of src.search, which may be all that a checkout has of an experiment."""
SUB_FOLDERS = ("look", "benchmarks", "policy", *SPLITS)
"""Of an experiment's results, filled by other calls than its evaluation on test."""


def planned_runs(plan: Plan) -> list[RunConfig]:
    """All runs that an experiment asks for. Links of chains are not among them: they are on the way
    to those."""
    return [run for stage in STAGES for run in plan.stage(stage)
            if not is_link(run.method, plan.experiment.methods)]


def finished_runs(plan: Plan, runs_dir: Path) -> tuple[list[tuple[RunConfig, Path]], list[str]]:
    """The experiment's runs that are done, with their folders, and the names of those that are not.

    Raises:
        UserError: none is done.
    """
    found, missing = [], []
    for run in planned_runs(plan):
        folder = find_finished(runs_dir, run.stage, run.identity)
        if folder is None:
            missing.append(run.display_name)
        else:
            found.append((run, folder))
    if not found:
        name = plan.experiment.name
        raise UserError(f"no run of {name} is finished: train them with ./train_teacher_model.sh "
                        f"{name}, ./train_student_model.sh {name} and ./weak_to_strong.sh {name}")
    return found, missing


def eval_pairs(plan: Plan, split: str) -> tuple[EvalPairs, AnswerTexts]:
    """The pairs of `split` as every tokenizer of the experiment has them, and their answers."""
    tokenised = plan.split(plan.runs[0], split)
    table = read_pairs(plan.prepared.folder, split, ["pair_id", "chosen", "rejected"]).to_pandas()
    table = table.set_index("pair_id").loc[tokenised.pair_ids]
    pairs = EvalPairs(
        experiment=plan.experiment.name, data=plan.data.name, split=split,
        pair_ids=tokenised.pair_ids, prompt_ids=tokenised.prompt_ids,
        length_chosen=table.chosen.str.len().to_numpy(),
        length_rejected=table.rejected.str.len().to_numpy())
    return pairs, AnswerTexts(tokenised.pair_ids, table.chosen.tolist(), table.rejected.tolist())


def score_runs(found: list[tuple[RunConfig, Path]], plan: Plan, split: str, runs_dir: Path,
               workers: int = 1, earlier: Sequence[tuple[RunConfig, RunScores]] = ()
               ) -> list[RunScores]:
    """Margins of every finished run on `split`; runs that were scored before are only read.

    Args:
        workers: runs to score at a time.
        earlier: runs that are not here, as they were scored elsewhere; they take their place in the
            order of the plan.
    """
    for run, folder in found:
        require_scorable(folder, run, plan.split(run, split), split)
    score_side_by_side(found, plan, split, runs_dir, workers)
    seconds = training_seconds([*found, *_links(plan, runs_dir)])
    with tqdm(found, desc=f"scores on {split}", unit="run") as bar:  # ends its line before an error
        scored = [(run, dataclasses.replace(
            run_scores(run, folder, scores_in(run, folder, plan, split, runs_dir)),
            seconds=seconds[run.identity])) for run, folder in bar]
    place = {run.identity: number for number, run in enumerate(planned_runs(plan))}
    scored = sorted([*scored, *earlier], key=lambda one: place.get(one[0].identity, len(place)))
    runs, scores = map(list, zip(*scored, strict=True))
    return scores + combined_teachers(runs, scores)


def _links(plan: Plan, runs_dir: Path) -> list[tuple[RunConfig, Path]]:
    """The links of chains that are done: what their students cost is theirs too."""
    links = [(run, find_finished(runs_dir, run.stage, run.identity))
             for run in plan.stage("students") if is_link(run.method, plan.experiment.methods)]
    return [(run, folder) for run, folder in links if folder is not None]


def combined_teachers(runs: Sequence[RunConfig], scored: Sequence[RunScores]) -> list[RunScores]:
    """Several teachers as one, whatever their students' methods make of their labels: the margin of
    a pair is the mean of theirs.

    Args:
        scored: what each of `runs` makes of the pairs, in their order.
    """
    known = {run.identity: scores for run, scores in zip(runs, scored, strict=True)}
    combined = {}
    for run in runs:
        names = run.labels.split("+")
        if len(names) > 1 and set(names) <= known.keys():
            teachers = [known[identity] for identity in names]
            ids = teachers[0].pair_ids
            each = np.stack([in_order(one.margins, one.pair_ids, ids, f"scores of {one.column}",
                                      "delete them and run eval.py again") for one in teachers])
            combined[run.teacher, run.seed] = RunScores(
                "teacher", run.teacher, max(teacher.layers for teacher in teachers), "", "",
                run.seed, ids, log_odds(mean_margin(sigmoid(each))))
    return list(combined.values())


def run_scores(run: RunConfig, folder: Path, table: pd.DataFrame) -> RunScores:
    """A run's score table as the analysis takes it, with its learning curve."""
    with reading(folder / "log.jsonl", "train the run again"):
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    curve = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    return RunScores.of(run, table.pair_id.to_numpy(str), margins(table), curve)


def baselines(plan: Plan, pairs: EvalPairs, answers: AnswerTexts) -> list[RunScores]:
    """What needs no model: the shorter answer wins, and a regression on words, from train_1."""
    _, train = eval_pairs(plan, "train_1")
    margins = {LENGTH_ONLY: length_margins(pairs.length_chosen, pairs.length_rejected),
               TFIDF: tfidf_margins(train, answers)}
    return [RunScores("baseline", name, None, "", "", None, pairs.pair_ids, values)
            for name, values in margins.items()]


def inputs_hash(found: list[tuple[RunConfig, Path]], missing: list[str], plan: Plan, split: str,
                earlier: Sequence[tuple[RunConfig, RunScores]] = ()) -> str:
    """What the results are a function of. Weights enter by content: the same runs trained again
    elsewhere may differ in the last bits. Earlier runs enter by their margins."""
    weights = [run_fingerprint(folder) for _, folder in found]
    return content_hash([RESULTS_FORMAT, split, plan.data_hash, sorted(missing), weights,
                         facts(plan.experiment.eval),
                         [[run.display_name, run.identity] for run, _ in found],
                         [[run.display_name, run.identity, one.margins.tolist(), one.curve]
                          for run, one in earlier]])


def is_current(folder: Path, inputs: str) -> bool:
    """Whether `folder` holds the whole results for these inputs: the report is written last."""
    meta = read_json(folder / "meta.json")
    whole = all((folder / name).is_file() for name in ("scores.csv", "runs.csv", "report.html"))
    return whole and bool(meta) and meta.get("inputs") == inputs


def claim_results(folder: Path) -> None:
    """Make the folder of an experiment's results ours; UserError where it is somebody's."""
    claim(folder, "results", "results folder", lambda place: holds_meta("experiment")(place)
          or all(name_under_lock(item) in (SEARCH, *SUB_FOLDERS) for item in place.iterdir()))


def write_experiment(folder: Path, scored: list[RunScores], pairs: EvalPairs, plan: Plan,
                     missing: list[str], inputs: str) -> Path:
    """Tables, figures and report into `folder`; returns the path of report.html."""
    config = plan.experiment.eval
    claim_results(folder)
    clear_partials(folder)
    # runs that are gone cannot be asked again
    transfer = ["transfer.csv", "transfer_pgr.csv", "transfer.html", "transfer.md", "transfer.png"]
    kept = transfer if any(run.commit for run in scored) else []
    old = ["report.html", "pooled.csv", "ceilings.csv", "methods.csv", *transfer]
    clear(folder, old, keep=[*SUB_FOLDERS, *kept])
    clear(folder / "figures", ["*.png"], keep=kept)
    models = [run for run in scored if run.role != "baseline"]
    files = {
        "scores": tables.scores_table(scored, pairs),
        "accuracy": tables.accuracy_table(scored, pairs, config),
        "pgr": with_best_ceiling(tables.pgr_table(models, pairs, config), models, pairs, config),
        "pooled": tables.pooled_table(models, pairs, config),
        "ceilings": ceilings_table(models, pairs, config),
        "methods": methods_table(pairs.experiment, differences(
            correctness(models, pairs), pairs, config,
            seconds={run.key: run.seconds for run in models if run.seconds}), config.level),
        "companions": tables.companions_table(models, pairs),
        "calibration": tables.calibration_table(models, pairs),
        "curves": tables.curves_table(models, pairs),
        "runs": runs_table(models),
    }
    for name, table in files.items():
        if name in ("pooled", "ceilings", "methods") and not len(table):  # there is nothing to say
            continue
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    write_json(folder / "meta.json", _meta(models, pairs, plan, missing, inputs))
    return write_report(folder)


def _meta(models: list[RunScores], pairs: EvalPairs, plan: Plan, missing: list[str],
          inputs: str) -> dict[str, object]:
    notes = [f"not finished, so not in any table: {', '.join(missing)}"] if missing else []
    notes += earlier_note(models)
    rounded = {base.config.name: source for base in plan.bases.values()
               if (source := dequantised_from(base.config))}
    notes += [f"The weights of {name} are dequantised from {source}: rounded, not the original "
              "ones." for name, source in rounded.items()]
    contaminated = pairs.split != "test"
    if contaminated:
        notes.append(contamination_mark(pairs.split))
    return {
        "experiment": pairs.experiment, "data": pairs.data, "split": pairs.split,
        "n_pairs": len(pairs.pair_ids), "n_prompts": len(set(pairs.prompt_ids)),
        "seeds": list(plan.experiment.seeds), "level": plan.experiment.eval.level,
        "pgr_floor": plan.experiment.eval.pgr_floor, "contaminated": contaminated,
        "notes": notes, **({"dequantised": list(rounded)} if rounded else {}),
        "date": datetime.date.today().isoformat(), "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{p: version(p) for p in PACKAGES}},
        "inputs": inputs,
    }


def write_cards(found: list[tuple[RunConfig, Path]], results: Results) -> None:
    """The accuracy of every run, and of its like with other seeds, in its model card; nothing where
    the pairs were training pairs of some."""
    if results.contamination:
        return
    table = results.accuracy
    for run, folder in found:
        like = (table.role == run.role) & (table.name == run.name) & (table.teacher == run.teacher)
        if run.role == "student":
            like &= table.method == run.method.name
        scores = [Accuracy(int(row.seed), row.data, row.split, int(row.n), row.accuracy, row.low,
                           row.high, row.length_only, results.meta["level"])
                  for row in table[like].itertuples()]
        write_model_card(folder, scores)
