"""Looking at one reward model: scores, tables, figures and a report that stands alone.

    results/<experiment>/look/<run>/<data>/    report.html, report.md, *.csv, figures/*.png
"""

import datetime
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.pairs.pair_files import read_pairs
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import TokenisedSplit
from src.common.files import holds_meta, write_json, write_text
from src.common.hashing import commit
from src.common.lock import clear_partials, lock
from src.common.owned import claim, require_ours
from src.evaluation.one_model import eval_config_of, own_pairs, training_prompts_mark
from src.evaluation.sets import SPLIT, eval_set_of, scores_name
from src.measures.reward_profile import RewardProfile, ScoredPairs, most_wrong, reward_profile
from src.reports.document import to_html, to_markdown
from src.reports.figures.parts import KINDS, groups_figure, length_figure
from src.reports.figures.rewards import Subject, rewards_figure
from src.reports.figures.style import STYLE, Drawn, save
from src.reports.format import count
from src.reports.results import contamination_mark
from src.reports.reward_tables import console_lines, write_tables
from src.reports.rewards import WrongPair, blocks
from src.runs.folders import read_run
from src.scoring.pairs import load_scorer, score, scores_of

KIND = "a look at a reward model"
WRONG_PAIRS = 20
"""Pairs shown among the most confidently wrong."""


@dataclass(frozen=True)
class Material:
    """What is looked at, before it is scored."""

    name: str
    """The data's name."""
    split: str
    pairs: TokenisedSplit
    texts: pd.DataFrame
    """prompt, chosen, rejected, source, subset, difficulty; in the order of `pairs`."""
    left_out: str = ""


def inspect_model(folder: Path, data: str | None, split: str, data_dir: Path, results_dir: Path,
                  output_dir: Path | None) -> str:
    """Score the reward model in `folder`, write its report; return the lines to print.

    A run's scores are kept in its folder, and read where they are already there.

    Args:
        data: a data config's name or a file of pairs; None for `split` of the data that the run in
            `folder` was made with.
        output_dir: None for a folder under `results_dir` that names experiment, run and data.
    Raises:
        UserError: no reward model; a run that is not finished; no data to score it on.
    """
    run = read_run(folder)
    config, said = eval_config_of(run)
    material = material_of(folder, run, data, split, data_dir)
    output = output_dir or _default_output(folder, run, material, results_dir)
    require_ours(output, KIND, "--output_dir", holds_meta("data scored"))
    scored = _scored(material, _rewards(folder, run, material, data is None))
    view = reward_profile(scored, config)
    subject = _subject(folder, run, material, view, _mark(run, material, data is None, data_dir))
    facts = _facts(folder, run, material, view)
    if said:
        facts["intervals"] += f"; {said.removeprefix('intervals: ')}"
    with lock(output):
        claim(output, KIND, "--output_dir", holds_meta("data scored"))
        clear_partials(output)
        _write(output, view, scored, subject, material, facts)
    return "\n".join([*console_lines(view, subject, material.left_out), *filter(None, [said]),
                      f"report: {output / 'report.html'}"])


def _write(output: Path, view: RewardProfile, scored: ScoredPairs, subject: Subject,
           material: Material, facts: dict[str, str]) -> None:
    """Figures, tables and the report."""
    figures = draw(view, scored, subject, output)
    write_tables(output, view, scored)
    write_json(output / "meta.json", facts)
    title = f"Looking at {subject.model}"
    wrong = [_wrong_pair(scored, material.texts.iloc[place], place)
             for place in most_wrong(scored, WRONG_PAIRS)]
    document = blocks(view, subject, figures, wrong, facts)
    write_text(output / "report.md", to_markdown(title, document))
    write_text(output / "report.html", to_html(title, document))


def material_of(folder: Path, run: RunConfig | None, data: str | None, split: str,
                data_dir: Path) -> Material:
    """The pairs and texts that the model in `folder` is looked at on."""
    if data is None:
        pairs = own_pairs(folder, run, split, data_dir)
        return Material(run.data, split, pairs, _texts(data_dir / run.data, split, pairs))
    with tempfile.TemporaryDirectory() as work:
        found = eval_set_of(folder, data, data_dir, Path(work))
        pairs = found.pairs(tokenizer_key(load_tokenizer(folder)))
        return Material(found.name, SPLIT, pairs, _texts(found.processed, SPLIT, pairs),
                        found.left_out)


def _texts(processed: Path, split: str, pairs: TokenisedSplit) -> pd.DataFrame:
    columns = ["pair_id", "prompt", "chosen", "rejected", "source", "subset", "difficulty"]
    table = read_pairs(processed, split, columns).to_pandas().set_index("pair_id")
    return table.loc[pairs.pair_ids]


def _rewards(folder: Path, run: RunConfig | None, material: Material, own: bool) -> np.ndarray:
    """(n, 2) rewards of chosen and rejected."""
    if run is None:
        model = load_scorer(folder, RuntimeConfig(), None)
        return score(model, material.pairs, RuntimeConfig(), folder.name)
    name = material.split if own else scores_name(material.name, material.pairs)
    table = scores_of(folder, run, material.pairs, name, RuntimeConfig())
    return table[["reward_chosen", "reward_rejected"]].to_numpy()


def _scored(material: Material, rewards: np.ndarray) -> ScoredPairs:
    return ScoredPairs(
        pair_ids=material.pairs.pair_ids, prompt_ids=material.pairs.prompt_ids,
        rewards=rewards.astype(np.float64), lengths=material.pairs.lengths(),
        subset=material.texts.subset.fillna("").to_numpy(str),
        difficulty=material.texts.difficulty.to_numpy(np.float64))


def _subject(folder: Path, run: RunConfig | None, material: Material, view: RewardProfile,
             mark: str) -> Subject:
    seed = f", seed {run.seed}" if run else ""
    scored_on = (f"{material.name}, split {material.split}, n = {count(view.n)} pairs of "
                 f"{count(view.prompts)} prompts{seed}")
    name = f"{run.kind} {run.display_name}" if run else folder.name
    return Subject(name, scored_on, mark)


def _mark(run: RunConfig | None, material: Material, own: bool, data_dir: Path) -> str:
    """What every page must say of pairs that the run was trained on; else empty."""
    if own:
        return contamination_mark(material.split)
    return training_prompts_mark(run, material.pairs.prompt_ids, data_dir) if run else ""


def _default_output(folder: Path, run: RunConfig | None, material: Material,
                    results_dir: Path) -> Path:
    experiment = [run.experiment] if run else []
    data = material.name if material.split == SPLIT else f"{material.name}-{material.split}"
    return results_dir.joinpath(*experiment, "look", folder.resolve().name, data)


def draw(view: RewardProfile, scored: ScoredPairs, subject: Subject,
         output: Path) -> dict[str, Drawn]:
    """Every figure that there are numbers for, in `output`/figures; none of an earlier call."""
    for name in ("rewards", "length", *(f"by_{kind}" for kind in KINDS)):
        (output / "figures" / f"{name}.png").unlink(missing_ok=True)
    with matplotlib.rc_context({**STYLE, "savefig.dpi": 200}):
        made = {"rewards": rewards_figure(view, scored, subject)}
        made |= {f"by_{kind}": groups_figure(kind, view, subject) for kind in view.groups}
        if view.bias is not None:
            made["length"] = length_figure(view, scored, subject)
        return {name: save(figure, output / "figures", name, title, caption)
                for name, (figure, title, caption) in made.items()}


def _wrong_pair(scored: ScoredPairs, texts: pd.Series, place: int) -> WrongPair:
    prompt = "\n\n".join(f"{message['role']}: {message['content']}"
                         for message in json.loads(texts.prompt))
    return WrongPair(str(scored.pair_ids[place]), texts.source, *map(float, scored.rewards[place]),
                     prompt, texts.chosen, texts.rejected)


def _facts(folder: Path, run: RunConfig | None, material: Material,
           view: RewardProfile) -> dict[str, str]:
    facts = {"model": run.display_name if run else folder.resolve().name}
    if run:
        facts |= {"experiment": run.experiment, "role": run.kind, "identity": run.identity,
                  "trained on": f"{run.data}, {run.split}", "seed": f"{run.seed}"}
    return facts | {
        "data scored": material.name, "split scored": material.split,
        "data hash": material.pairs.data_hash, "pairs": count(view.n),
        "prompts": count(view.prompts), "left out": material.left_out.removeprefix("left out: "),
        "intervals": f"{100 * view.level:.6g}%, over prompts; the seed is one",
        "commit": commit(), "date": datetime.date.today().isoformat()}
