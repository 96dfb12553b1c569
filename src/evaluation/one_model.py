"""Any one reward model on held-out pairs: its accuracy, and its PGR where its peers are at hand.

A student's run folder names its teacher by identity, and its ceiling is the same run on human
labels: both are looked up among the finished runs.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import CONFIG_ROOT, EvalConfig, ExperimentConfig, RuntimeConfig, load_config
from data.manifest import read_manifest
from data.records import left_is_chosen
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import TokenisedSplit, open_split
from src.common.errors import UserError
from src.common.join import in_order
from src.evaluation.sets import eval_set_of, trained_prompts
from src.measures import metrics
from src.measures.pgr import Cell, gaps_recovered
from src.reports.results import contamination_mark
from src.runs.folders import find_finished, read_run
from src.runs.freed import is_freed, require_weights
from src.runs.plan import without_stopping
from src.scoring.pairs import load_scorer, score


def evaluate_one(folder: Path, data: str | None, split: str, runs_dir: Path,
                 data_dir: Path) -> str:
    """Lines to print about the reward model in `folder`.

    Args:
        data: a file of pairs, or a data config's name, of which the test split is scored; None for
            `split` of the data that the run in `folder` was made with.
    Raises:
        UserError: no reward model; a run that is not finished, or whose weights were freed; no
            data to score it on.
    """
    require_weights(folder)
    run = read_run(folder)
    config, said = eval_config_of(run)
    models = {"model": folder, **(find_peers(run, runs_dir) if run else {})}
    with tempfile.TemporaryDirectory() as work:
        found = {role: _pairs_for(path, run, data, split, data_dir, Path(work) / role)
                 for role, path in models.items()}
    splits = {role: pairs for role, (pairs, _) in found.items()}
    left_out = found["model"][1]
    margins = {role: margins_of(path, splits[role]) for role, path in models.items()}
    where = data or f"{run.data}, {split}"
    lines = [f"{folder}: {len(splits['model']):,} pairs of {where}", *filter(None, [left_out])]
    if data is None and split != "test":
        lines.insert(0, f"! {contamination_mark(split)}")
    if data is not None and run is not None:
        mark = training_prompts_mark(run, splits["model"].prompt_ids, data_dir)
        lines = [f"! {mark}", *lines] if mark else lines
    lines += _accuracy_lines(margins["model"], splits["model"], config)
    if {"teacher", "ceiling"} <= set(margins):
        lines += _pgr_lines(margins, splits, config)
    elif run is not None and run.role == "student":
        teachers = run.labels.count("+") + 1
        lines.append("PGR needs the teacher's and the ceiling's run: not both are finished under "
                     f"{runs_dir} and have their weights still" if teachers == 1 else
                     f"PGR of a student of {teachers} teachers is in its experiment's table: "
                     f"python eval.py --model {run.experiment}")
    return "\n".join([*lines, *filter(None, [said])])


def training_prompts_mark(run: RunConfig, prompt_ids: np.ndarray, data_dir: Path) -> str:
    """How many of the prompts are in a split that the run, or its teacher, was trained with, in
    words; empty where none is.

    Args:
        prompt_ids: (n,), of the pairs that are scored.
    """
    try:
        trained = trained_prompts(data_dir / run.data)
        if read_manifest(data_dir / run.data)["data_hash"] != run.data_hash:
            raise UserError(f"{data_dir / run.data} was prepared anew since it was trained")
    except UserError as error:
        return f"whether these are training prompts of this run cannot be told: {error}"
    known = np.isin(prompt_ids, trained)
    if not known.any():
        return ""
    prompts = np.unique(prompt_ids)
    return (f"{int(np.isin(prompts, trained).sum()):,} of {len(prompts):,} prompts "
            f"({int(known.sum()):,} of {len(known):,} pairs) are training prompts of {run.data}, "
            "this run's data: the accuracy on them is no test")


def eval_config_of(run: RunConfig | None) -> tuple[EvalConfig, str]:
    """How the experiment of a run makes figures of scores, so that they are those of its tables.

    Returns:
        The defaults for a model from elsewhere, and for a run whose experiment is not in
        configs/experiments; and in words what holds, where it need not be what a reader expects.
    """
    if run is None:
        return EvalConfig(), ""
    path = CONFIG_ROOT / "experiments" / f"{run.experiment}.yaml"
    known = path.is_file()
    config = load_config(ExperimentConfig, str(path)).eval if known else EvalConfig()
    if known and config == EvalConfig():
        return config, ""
    name = f"configs/experiments/{path.name}"
    return config, (f"intervals: level {100 * config.level:.6g}%, {config.bootstrap_samples:,} "
                    "samples, " + (f"as {name} says" if known else
                                   f"the defaults: there is no {name}"))


def find_peers(run: RunConfig, runs_dir: Path) -> dict[str, Path]:
    """Folders of a student's teacher and ceiling, as far as they are finished and have their
    weights still."""
    if run.role != "student":
        return {}
    ceiling = dataclasses.replace(
        run, kind="ceiling", labels=GROUND_TRUTH, teacher="", earlier="", average=None,
        method=GROUND_TRUTH_METHOD,
        train=without_stopping(run.train))
    folders = {"teacher": find_finished(runs_dir, "teachers", run.labels),
               "ceiling": find_finished(runs_dir, "ceilings", ceiling.identity)}
    return {role: folder for role, folder in folders.items()
            if folder is not None and not is_freed(folder)}


def _pairs_for(folder: Path, run: RunConfig | None, data: str | None, split: str, data_dir: Path,
               work: Path) -> tuple[TokenisedSplit, str]:
    """The pairs under the tokenizer of the model in `folder`, and what was left out."""
    if data is not None:
        found = eval_set_of(folder, data, data_dir, work)
        return found.pairs(tokenizer_key(load_tokenizer(folder))), found.left_out
    return own_pairs(folder, run, split, data_dir), ""


def own_pairs(folder: Path, run: RunConfig | None, split: str, data_dir: Path) -> TokenisedSplit:
    """A split of the data that the run in `folder` was made with.

    Raises:
        UserError: no run of ours; its data are not there, or were prepared anew since.
    """
    if run is None:
        raise UserError(f"{folder}: made elsewhere, so its test pairs are not known: name a data "
                        "config or a file of pairs, --data FILE")
    pairs = open_split(data_dir / run.data, tokenizer_key(load_tokenizer(folder)), split)
    if pairs.data_hash != run.data_hash:
        raise UserError(f"{data_dir / run.data} was prepared anew since {folder.name} was trained: "
                        "its test pairs may be this model's training pairs; train it again")
    return pairs


def margins_of(folder: Path, pairs: TokenisedSplit) -> np.ndarray:
    """(n,) reward_chosen - reward_rejected."""
    model = load_scorer(folder, RuntimeConfig(), read_run(folder))
    rewards = score(model, pairs, RuntimeConfig(), folder.name)
    return metrics.margins_of(rewards)


def _accuracy_lines(margins: np.ndarray, pairs: TokenisedSplit, config: EvalConfig) -> list[str]:
    accuracy = metrics.accuracies(margins[None], pairs.prompt_ids, level=config.level,
                                  samples=config.bootstrap_samples)[0]
    left = np.array([left_is_chosen(pair) for pair in pairs.pair_ids])
    lengths = pairs.lengths()
    shorter = metrics.correctness(lengths[:, 2] - lengths[:, 1]).mean()
    return [
        f"accuracy {accuracy.estimate:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}] "
        f"({100 * config.level:.6g}%, prompts resampled), ties {metrics.ties(margins)}",
        f"AUROC {metrics.auroc(margins, left):.4f}, log-loss {metrics.log_loss(margins):.4f}, "
        f"Brier {metrics.brier(margins):.4f}",
        f"baseline, the answer with fewer tokens wins: {shorter:.4f}",
    ]


def _pgr_lines(margins: dict[str, np.ndarray], splits: dict[str, TokenisedSplit],
               config: EvalConfig) -> list[str]:
    """Gain, gap and PGR of one seed, joined on pair_id."""
    remedy = ("a length limit under one tokenizer dropped some: prepare the data for teacher and "
              "student at once")
    right = {role: metrics.correctness(in_order(
        values, splits[role].pair_ids, splits["model"].pair_ids, f"scores of the {role}",
        remedy))[None] for role, values in margins.items()}
    row = gaps_recovered(
        [[Cell(weak=right["teacher"], student=right["model"], ceiling=right["ceiling"])]],
        splits["model"].prompt_ids, floor=config.pgr_floor, level=config.level,
        samples=config.bootstrap_samples)[0]

    def points(name: str) -> str:
        part = getattr(row, name)
        return f"{part.estimate:+.4f} [{part.low:+.4f}, {part.high:+.4f}]"

    return [f"teacher {right['teacher'].mean():.4f}, ceiling {right['ceiling'].mean():.4f}",
            f"gain {points('gain')}, gap {points('gap')}, one seed",
            f"PGR {points('pgr')}" if row.pgr else
            f"PGR undefined: the gap is not clearly above 0, or below {config.pgr_floor:.6g}"]
