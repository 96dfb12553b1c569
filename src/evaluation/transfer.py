"""An experiment's models on other data than its own: accuracy, and PGR in and out of distribution.

    results/<experiment>/transfer.csv, transfer_pgr.csv, transfer.html, transfer.md,
                         figures/transfer.png

Scores are kept in each run's folder. Evaluation pairs whose prompt is in a training split of the
experiment are dropped and counted.
"""

import dataclasses
import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from tqdm import tqdm

from configs.run import RunConfig
from data.pairs.pair_files import read_pairs
from data.prepare import TokenizerSpec
from data.tokens.tokenised import TokenisedSplit
from model.base.truncate import positions
from src.common.errors import UserError
from src.common.files import atomic_path, write_text
from src.common.hashing import commit
from src.common.lock import clear_partials
from src.evaluation import experiment
from src.evaluation.sets import SPLIT, EvalSet, eval_config, eval_set, scores_name, trained_prompts
from src.evaluation.side_by_side import score_side_by_side, scores_in
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.transfer import ScoredSet, transfer_tables
from src.reports.document import to_html, to_markdown
from src.reports.figures.style import STYLE, save
from src.reports.figures.transfer import transfer_heatmap
from src.reports.results import seed_list
from src.reports.transfer import blocks, console
from src.runs.plan import Plan
from src.scoring.pairs import require_scorable

Runs = Sequence[tuple[RunConfig, Path]]


def transfer(plan: Plan, names: Sequence[str], runs_dir: Path, data_dir: Path, folder: Path,
             workers: int = 1) -> str:
    """Score the experiment's finished runs on each set, write tables and heat map into `folder`.

    Args:
        names: data configs or files of pairs; the experiment's own test is always there.
        workers: runs to score at a time.
    Returns:
        The lines to print.
    Raises:
        UserError: no finished run; a set that is not there, named twice, or all of which prompts
            the experiment trains on.
    """
    _check_names(plan, names)
    found, missing = experiment.finished_runs(plan, runs_dir)
    sets = [_own_set(plan, found, runs_dir, workers)]
    trained = trained_prompts(plan.prepared.folder)
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            prepared = eval_set(name, _tokenizers(plan), _longest(plan), data_dir, Path(work))
            sets.append(_other_set(plan, found, prepared, trained, runs_dir, workers))
    experiment.claim_results(folder)
    clear_partials(folder)
    accuracy, pgr = transfer_tables(sets, plan.experiment.eval)
    for name, table in (("transfer", accuracy), ("transfer_pgr", pgr)):
        with atomic_path(folder / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    seeds = seed_list([run.seed for run, _ in found])
    note = _note(plan.experiment.eval.level, seeds.split())
    with matplotlib.rc_context(STYLE):
        figure, title, caption = transfer_heatmap(accuracy, note)
        drawn = save(figure, folder / "figures", "transfer", title, caption)
    facts = {"experiment": plan.experiment.name, "seeds": seeds,
             "runs not finished": ", ".join(missing), "commit": commit(),
             "date": datetime.date.today().isoformat()}
    document = blocks(sets, accuracy, pgr, drawn, note, facts)
    title = f"Transfer: {plan.experiment.name}"
    write_text(folder / "transfer.md", to_markdown(title, document))
    write_text(folder / "transfer.html", to_html(title, document))
    return "\n".join([*console(sets, accuracy, pgr), f"report: {folder / 'transfer.html'}"])


def _check_names(plan: Plan, names: Sequence[str]) -> None:
    known = [eval_config(name).name for name in names]
    for name in known:
        if known.count(name) > 1 or name == plan.data.name:
            raise UserError(f"--transfer: two evaluation sets are called {name}: the experiment's "
                            "own test is always there; name every other set once")


def _note(level: float, seeds: Sequence[str]) -> str:
    over = "prompts and seeds" if len(seeds) > 1 else "prompts, at one seed"
    return (f"[ ]: {100 * level:.6g}% interval over {over}. Means over seeds "
            f"{', '.join(seeds)}. A tie counts half. Dropped: pairs whose prompt "
            "the experiment trains on.")


def _own_set(plan: Plan, found: Runs, runs_dir: Path, workers: int) -> ScoredSet:
    pairs, _ = experiment.eval_pairs(plan, SPLIT)
    scored = experiment.score_runs(found, plan, SPLIT, runs_dir, workers)
    return ScoredSet(pairs, scored, own=True)


def _tokenizers(plan: Plan) -> list[TokenizerSpec]:
    return [TokenizerSpec(name, str(plan.bases[name].path), plan.bases[name].config.chat_template)
            for name in plan.experiment.model_names]


def _longest(plan: Plan) -> int:
    """Tokens that every model of the experiment takes."""
    bases = [plan.bases[name] for name in plan.experiment.model_names]
    return min(min(positions(base.hf_config, base.key), base.tokenizer.model_max_length)
               for base in bases)


def _other_set(plan: Plan, found: Runs, prepared: EvalSet, trained: np.ndarray, runs_dir: Path,
               workers: int) -> ScoredSet:
    """Every finished run on a set, without the pairs whose prompt the experiment trains on."""
    splits = {name: prepared.pairs(plan.bases[name].tokenizer_key)
              for name in plan.experiment.model_names}
    first = next(iter(splits.values()))
    kept = ~np.isin(first.prompt_ids, trained)
    if not kept.any():
        raise UserError(f"{prepared.name}: every prompt is in a training split of "
                        f"{plan.experiment.name}: choose another evaluation set")
    name = scores_name(prepared.name, first)  # the pairs of all tokenizers have one hash
    for run, folder in found:
        require_scorable(folder, run, splits[run.model], name)
    score_side_by_side(found, plan, name, runs_dir, workers, splits)
    with tqdm(found, desc=f"scores on {prepared.name}", unit="run") as bar:  # as in score_runs
        runs = [_without(experiment.run_scores(run, folder, scores_in(
            run, folder, plan, name, runs_dir, splits)), first.pair_ids[kept])
            for run, folder in bar]
    runs += experiment.combined_teachers([run for run, _ in found], runs)
    return ScoredSet(_eval_pairs(plan, prepared, first, kept), runs, own=False,
                     dropped=int((~kept).sum()), left_out=prepared.left_out)


def _without(run: RunScores, wanted: np.ndarray) -> RunScores:
    """The run's margins on the pairs `wanted` alone."""
    kept = np.isin(run.pair_ids, wanted)
    return dataclasses.replace(run, pair_ids=run.pair_ids[kept], margins=run.margins[kept])


def _eval_pairs(plan: Plan, prepared: EvalSet, split: TokenisedSplit,
                kept: np.ndarray) -> EvalPairs:
    table = read_pairs(prepared.processed, SPLIT, ["pair_id", "chosen", "rejected"]).to_pandas()
    table = table.set_index("pair_id").loc[split.pair_ids[kept]]
    return EvalPairs(
        experiment=plan.experiment.name, data=prepared.name, split=SPLIT,
        pair_ids=split.pair_ids[kept], prompt_ids=split.prompt_ids[kept],
        length_chosen=table.chosen.str.len().to_numpy(),
        length_rejected=table.rejected.str.len().to_numpy())
