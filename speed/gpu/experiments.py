"""Every committed experiment on every kind of hardware, by the formula of `--dry-run`.

    python -m speed.gpu.experiments                 # a Markdown table
    python -m speed.gpu.experiments --write         # docs/memory.md, of which it is a part

Needs no data and no checkpoint: shapes are those of speed/gpu/published.py. A row is the rung of an
experiment that takes most.
"""

import argparse
import types
from dataclasses import replace
from pathlib import Path

from configs.schema import (
    CONFIG_ROOT,
    DataConfig,
    ExperimentConfig,
    LadderConfig,
    ModelConfig,
    load_config,
)
from src.batches.packing import fewest_tokens
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, write_text

PAGE = REPO_ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- python -m speed.gpu.experiments --write -->\n", "<!-- end -->\n"
GPUS = 4
COLUMNS = {"cpu": 1, "gpu": 1, "multi_gpu": GPUS, "zero2": GPUS, "zero3": GPUS}
"""A file of configs/hardware -> processes."""
SMALL_GB = 16.0
"""What such an experiment is meant for: a computer without a GPU."""


def rows() -> list[str]:
    """The table, a line each; without experiments on a model made here that published.py lacks."""
    from speed.gpu.published import PUBLISHED

    names = sorted(path.stem for path in (CONFIG_ROOT / "experiments").glob("*.yaml"))
    names = [name for name in names if all(
        model in PUBLISHED or not load_config(ModelConfig, model).is_local
        for model in load_config(ExperimentConfig, name).model_names)]
    lines = [f"| experiment | biggest rung | tokens | {' | '.join(COLUMNS)} | holds it |",
             "|---|---|--:|" + "--:|" * len(COLUMNS) + "---|"]
    return lines + [_row(name) for name in names]


def _row(name: str) -> str:
    from src.training import fit

    experiment = load_config(ExperimentConfig, name)
    plan, runs = stand_in(experiment)
    plan_of = {"cpu": stand_in(replace(experiment, train=replace(
        experiment.train, precision="fp32")))[0]}
    sizes = {run.name: fit.run_size(plan, run) for run in runs}
    biggest = max(sizes, key=lambda rung: fit.size_parts(plan, sizes[rung], "gpu", 1).total)
    figures = {kind: fit.size_parts(plan_of.get(kind, plan), sizes[biggest], kind, count).total
               for kind, count in COLUMNS.items()}
    tokens = max(fewest_tokens(experiment.runtime), plan.data.max_length)
    checkpointed = ", checkpointing" if experiment.runtime.gradient_checkpointing else ""
    cells = " | ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}"
                       for value in figures.values())
    return (f"| `{name}` | {biggest} | {tokens:,}{checkpointed} | {cells} | "
            f"{_holds(plan, runs, figures['cpu'])} |")


def _holds(plan, runs: list, cpu_gb: float) -> str:
    """The least hardware that holds all runs."""
    from src.training import fit

    if cpu_gb <= SMALL_GB:
        return f"a CPU with {SMALL_GB:.0f} GB"
    for count in fit.COUNTS:
        try:
            kind = fit.choose(plan, runs, count, fit.SOLD_AS_80_GB)
        except UserError:
            continue
        return f"{count} GPU{'s' * (count > 1)} of 80 GB, {kind}"
    return "none"


def stand_in(experiment: ExperimentConfig) -> tuple[types.SimpleNamespace, list]:
    """A plan of the experiment as far as its memory is asked, and a run of each of its rungs."""
    from transformers import AutoConfig

    from speed.gpu.published import PUBLISHED

    bases = {name: types.SimpleNamespace(hf_config=AutoConfig.for_model(**PUBLISHED[name]))
             for name in experiment.model_names}
    plan = types.SimpleNamespace(experiment=experiment, bases=bases,
                                 data=load_config(DataConfig, experiment.data))
    runs = {}
    for ladder in (*experiment.teachers, *experiment.students):
        for count in _counts(ladder, bases[ladder.model].hf_config.num_hidden_layers):
            name = f"{ladder.model}-{count}"
            runs[name] = types.SimpleNamespace(
                name=name, display_name=name, model=ladder.model, kept=tuple(range(count)),
                train=experiment.train)
    return plan, list(runs.values())


def _counts(ladder: LadderConfig, layers: int) -> tuple[int, ...]:
    listed = () if isinstance(ladder.keep, str) else (len(ladder.keep),)
    return tuple(ladder.layers) or listed or (layers,)


def page(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + "\n".join(rows()) + "\n\n" + END + rest.partition(END)[2]


def main() -> None:
    parser = Parser(prog="python -m speed.gpu.experiments", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, nargs="?", const=PAGE, metavar="FILE",
                        help="put the table into that page instead (default: docs/memory.md)")
    args = parser.parse_args()
    if args.write is None:
        print("\n".join(rows()))
    else:
        write_text(args.write, page(args.write.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run_command(main)
