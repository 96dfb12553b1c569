"""Choose how to train, on train_1 -> train_2: neither val nor test is looked at.

    python -m src.search --experiment smollm2_sciq --layers 6 16 --try learning_rate 1e-4 3e-4 1e-3

trains a reward model on the human labels of train_1 for every rung and combination of values, asks
how often it agrees with those of train_2, and writes results/<experiment>/search.csv. Chosen is the
combination with the highest mean over rungs and seeds. Runs are ordinary teachers: what was trained
once is not trained again, here or in the experiment.
"""

import argparse
import dataclasses
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml

from configs.run import RunConfig
from configs.schema import ExperimentConfig, MethodConfig, TrainConfig, load_config
from configs.strict_yaml import from_dict, shown
from src.common.arguments import Parser
from src.common.console import table_lines
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, atomic_path
from src.common.lock import lock

if TYPE_CHECKING:
    import pandas as pd

    from src.runs.plan import Plan

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.

SPLIT = "train_2"
OF_LADDERS = ("learning_rate", "trainable_layers")
"""Keys of `train:` that a ladder may have a word of its own on, which would stand above a tried
one."""


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m src.search", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", required=True,
                        help="name of a file in configs/experiments, or the path of a YAML file")
    parser.add_argument("--layers", type=int, nargs="+", metavar="N", required=True,
                        help="rungs of the experiment's first teacher's model to train")
    parser.add_argument("--try", dest="tries", nargs="+", action="append", required=True,
                        metavar=("KEY", "VALUE"), help="a key of `train:` and its values")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0],
                        help="of each combination (default: 0 alone)")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs",
                        help="where the runs are (default: runs/)")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="where prepared data are (default: data/processed/)")
    parser.add_argument("--results_dir", type=Path, default=REPO_ROOT / "results",
                        help="where the table goes (default: results/)")
    return parser.parse_args()


def combinations(train: TrainConfig, tries: list[list[str]]) -> list[TrainConfig]:
    """`train` with every combination of the values that are tried.

    Raises:
        UserError: no value, an unknown key, one that is given twice, or a value that it cannot
            have.
    """
    for key, *values in tries:
        if not values:
            raise UserError(f"--try {key}: give at least one value after it")
    keys = [key for key, *_ in tries]
    if len(set(keys)) < len(keys):
        raise UserError(f"--try {' '.join(keys)}: a key is given twice: give all its values after "
                        "one --try")
    given = dataclasses.asdict(train)
    known = [[_value(key, value) for value in values] for key, *values in tries]
    return [from_dict(TrainConfig, {**given, **dict(zip(keys, values, strict=True))}, "--try")
            for values in itertools.product(*known)]


def _value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--try {key} {shown(text)}: not readable as YAML ({error}): give a value "
                        "as a config has it") from error


def plans(args: argparse.Namespace) -> list["Plan"]:
    """One for each combination: its teachers are the rungs that are asked for."""
    from src.runs.plan import Plan

    experiment = load_config(ExperimentConfig, args.experiment)
    ladder = experiment.teachers[0]
    usual = dataclasses.replace(experiment.train, **{
        key: getattr(ladder, key) or getattr(experiment.train, key) for key in OF_LADDERS})
    rungs = dataclasses.replace(ladder, layers=tuple(args.layers), **dict.fromkeys(OF_LADDERS))
    alone = dataclasses.replace(experiment, teachers=(rungs,), students=(),
                                methods=(MethodConfig("soft"),), policies=None)
    return [Plan(dataclasses.replace(alone, train=train), args.data_dir, tuple(args.seeds))
            for train in combinations(usual, args.tries)]


def row_of(run: RunConfig, plan: "Plan", keys: list[str], runs_dir: Path) -> dict[str, object]:
    """Train `run` unless that was done; how often it agrees with the human labels of train_2.

    Under `keys` stands what was tried: a rung may train under other words for the same.
    """
    from src.measures.metrics import accuracies
    from src.runs.folders import find_finished
    from src.scoring.pairs import margins, scores_of
    from src.scoring.trunk_cache import trunk_of
    from src.training.finish import finish

    finish(run, plan, runs_dir)
    folder, split = find_finished(runs_dir, run.stage, run.identity), plan.split(run, SPLIT)
    table = scores_of(folder, run, split, SPLIT, plan.experiment.runtime,
                      lambda: trunk_of(run, plan, SPLIT, runs_dir))
    found = accuracies(margins(table)[None], split.prompt_ids)[0]
    return {"experiment": plan.experiment.name, "name": run.name, "layers": len(run.kept),
            **{key: getattr(plan.experiment.train, key) for key in keys}, "seed": run.seed,
            "trained_on": run.split, "split": SPLIT, "n": len(split), "accuracy": found.estimate,
            "low": found.low, "high": found.high}


def main() -> None:
    args = parse_args()
    combinations(load_config(ExperimentConfig, args.experiment).train, args.tries)

    import pandas as pd
    import transformers

    from src.common import distributed

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    keys = [key for key, *_ in args.tries]
    with distributed.group():
        rows = []
        for plan in plans(args):
            for run in plan.stage("teachers"):
                rows.append(row_of(run, plan, keys, args.runs_dir))
                if distributed.is_main():
                    print(_said(rows[-1], keys), flush=True)
        distributed.on_main(lambda: _write(pd.DataFrame(rows), keys, args.results_dir))


def _said(row: dict[str, object], keys: list[str]) -> str:
    tried = ", ".join(f"{key} {row[key]}" for key in keys)
    return (f"{row['name']}, {tried}, seed {row['seed']}: {row['accuracy']:.4f} "
            f"[{row['low']:.4f}, {row['high']:.4f}] of {row['n']:,} pairs of {SPLIT}")


def _write(rows: "pd.DataFrame", keys: list[str], results_dir: Path) -> None:
    """search.csv, and the means on the terminal, the best first."""
    from src.evaluation.experiment import SEARCH, claim_results

    path = results_dir / str(rows.experiment[0]) / SEARCH
    with lock(path.parent):  # an evaluation removes what it takes for half-written
        claim_results(path.parent)
        with atomic_path(path) as partial:
            rows.to_csv(partial, index=False)
    tried = [rows[key].map(str) for key in keys]  # values themselves need have no order
    means = rows.accuracy.groupby(tried, sort=False).mean().sort_values(ascending=False)
    shown = [[*(index if isinstance(index, tuple) else (index,)), f"{mean:.4f}"]
             for index, mean in means.items()]
    print("\n".join(table_lines([*keys, "mean accuracy"], shown, words=len(keys))))
    print(f"chosen: the first line; every run is in {path}")


if __name__ == "__main__":
    run_command(main)
