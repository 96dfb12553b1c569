"""Questions asked of evaluated experiments, each answered by one file of src/evaluation.

    python -m src.analysis --what methods --experiment demo    # which method is better?
    python -m src.analysis --what shared_errors --experiment demo chess sciq
    python -m src.analysis --what pooled --experiment smollm2_sciq
    python -m src.analysis --what which_layers --experiment which_layers_smollm2_sciq \\
           which_layers_smollm2_hh which_layers_gemma_3_sciq which_layers_gemma_3_hh
    python -m src.analysis --what saliency --experiment demo_verdicts_0 demo_verdicts_1 \\
           demo_verdicts_5 demo_verdicts_20 demo_verdicts_50
    python -m src.analysis --what layer_change --experiment demo    # needs the runs' weights
    python -m src.analysis --what front --experiment smollm2_sciq_averaging \\
           --text data/raw/text/wikitext2_test.txt --tasks sciq boolq cosmos_qa --limit 100

Tables and figures go to results/, where those of other experiments are replaced: --output_dir
keeps yours apart.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from configs.strict_yaml import require_name
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.common.owned import claim, disclaim

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.


def methods(args: argparse.Namespace) -> str:
    """Methods against soft Bradley-Terry, ranked over all experiments together."""
    from src.evaluation.across.methods import rank_methods

    return rank_methods(args.experiment, args.results_dir, _folder(args))


def which_layers(args: argparse.Namespace) -> str:
    """Which layers a teacher should keep, rule against rule at the same depth."""
    from src.evaluation.which_layers import compare_layers

    return compare_layers(args.experiment, args.results_dir, _folder(args))


def pooled(args: argparse.Namespace) -> str:
    """PGR with the noise of seeds pooled over all cells of an experiment, beside pgr.csv."""
    from src.evaluation.across.pooled import write_pooled

    return write_pooled(args.experiment, args.results_dir)


def shared_errors(args: argparse.Namespace) -> str:
    """Whether gain goes with the errors that teacher and ceiling share, over all experiments."""
    from src.evaluation.across.shared_errors import write_shared_errors

    return write_shared_errors(args.experiment, args.results_dir, _folder(args))


def saliency(args: argparse.Namespace) -> str:
    """Whether gains are only what pre-training leaked, over shares of verdict documents."""
    from src.evaluation.across.saliency import write_saliency

    return write_saliency(args.experiment, args.results_dir, _folder(args))


def layer_change(args: argparse.Namespace) -> str:
    """Which layers reward fine-tuning changes, from the weights of finished runs."""
    from src.evaluation.change.layer_change import write_layer_change

    return _of_each(args, write_layer_change)


def degradation(args: argparse.Namespace) -> str:
    """Why larger students are not always better: errors taken over, or skill lost."""
    from src.evaluation.change.degradation import write_degradation

    return _of_each(args, write_degradation)


def front(args: argparse.Namespace) -> str:
    """What rewards cost a student of its language, and what averaging with its base buys back."""
    from src.evaluation.tax.front import Asked, write_front
    from src.evaluation.tax.harness import load_tasks

    asked = Asked(args.text, load_tasks(args.tasks, args.data_dir) if args.tasks else (),
                  args.limit)
    return _of_each(args, lambda *where: write_front(*where, asked))


def _of_each(args: argparse.Namespace, write: Callable[..., str]) -> str:
    """What `write` says of each experiment, given its plan."""
    import transformers

    from configs.schema import ExperimentConfig, load_config
    from src.runs.plan import Plan

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    plans = [Plan(load_config(ExperimentConfig, name), args.data_dir) for name in args.config]
    return "\n\n".join(write(plan, args.runs_dir, args.results_dir) for plan in plans)


def _folder(args: argparse.Namespace) -> Path:
    """Where the answer goes that several experiments give together."""
    if args.output_dir is None:
        return args.results_dir / args.what
    claim(args.output_dir, f"the answer to {args.what}", "--output_dir")
    return args.output_dir


ANALYSES: dict[str, Callable[[argparse.Namespace], str]] = {
    "methods": methods, "pooled": pooled, "which_layers": which_layers,
    "shared_errors": shared_errors, "saliency": saliency, "layer_change": layer_change,
    "degradation": degradation, "front": front}
"""What may be asked."""
TOGETHER = ("methods", "which_layers", "shared_errors", "saliency")
"""What is asked of several experiments together; the rest of each alone."""


def parse_args() -> argparse.Namespace:
    asked = "\n".join(f"{name}: {ask.__doc__.splitlines()[0]}" for name, ask in ANALYSES.items())
    parser = Parser(prog="python -m src.analysis", description=__doc__, epilog=asked,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", required=True, choices=ANALYSES,
                        help="the question: see below")
    parser.add_argument("--experiment", required=True, nargs="+", metavar="NAME",
                        help="experiments that eval.py has evaluated, or their YAML files")
    parser.add_argument("--results_dir", type=Path, default=REPO_ROOT / "results",
                        help="where they are, and where the answers go (default: results/)")
    parser.add_argument("--output_dir", type=Path, metavar="DIR", help="where the answer goes, "
                        "instead of the question's own folder in RESULTS_DIR; for "
                        f"{', '.join(TOGETHER)}")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs",
                        help="finished runs, for questions that need weights (default: runs/)")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="prepared data, for the same (default: data/processed/)")
    own = parser.add_argument_group("of --what front alone")
    own.add_argument("--text", type=Path, metavar="FILE", help="held-out text that the tax is "
                     "measured on (default: answers to the test pairs' prompts)")
    own.add_argument("--tasks", nargs="+", default=[], metavar="NAME", help="questions that base, "
                     "tuned model and an average answer through lm-eval: see src.tax")
    own.add_argument("--limit", type=int, metavar="N", help="the first N questions of each task")
    args = parser.parse_args()
    if args.what != "front" and (args.text or args.tasks or args.limit):
        raise UserError(f"--what {args.what}: --text, --tasks and --limit are for --what front "
                        "alone: leave them out")
    if args.output_dir is not None and args.what not in TOGETHER:
        raise UserError(f"--what {args.what}: --output_dir is for {', '.join(TOGETHER)}: leave it "
                        "out, or name other results with --results_dir")
    args.config = args.experiment
    args.experiment = [Path(name).stem if name.endswith((".yaml", ".yml"))
                       else require_name(name, "--experiment ") for name in args.experiment]
    if len(set(args.experiment)) < len(args.experiment):
        raise UserError(f"--experiment {' '.join(args.experiment)}: name each experiment once")
    return args


def main() -> None:
    args = parse_args()
    try:
        print(ANALYSES[args.what](args))
    except UserError:
        if args.output_dir is not None:
            disclaim(args.output_dir)  # nothing was written
        raise


if __name__ == "__main__":
    run_command(main)
