"""Stage 4: accuracy and PGR of an experiment, or the accuracy of any one reward model.

    python eval.py --model demo                    # every finished run of the experiment
    python eval.py --model runs/demo/students/...  # one model; PGR when its peers are found
    python eval.py --model FOLDER --data FILE      # any reward model on a file of pairs
    python eval.py --model FOLDER --data sciq      # or on the test pairs of a config
    python eval.py --model FOLDER --data reward_bench      # a published benchmark's own score
    python eval.py --model FOLDER --data reward_bench=FILE # its rows from a file of yours
    python eval.py --model A --data reward_bench --against B   # two models, subset by subset
    python eval.py --model FOLDER --inspect        # its rewards, length bias, worst pairs: a report
    python eval.py --model demo --seeds 3 4 --add    # two seeds more in the table that is there
    python eval.py --model demo --transfer sciq    # the experiment's models on other data too
    python eval.py --model demo --split train_2    # on the students' own pairs; marked as such
    python eval.py --model demo_dpo --policies     # its language models, judged; ./dpo.sh calls it

An experiment's tables, figures and report go to results/<experiment>/. Training and
labelling never read the test split.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from configs.schema import CONFIG_ROOT, ExperimentConfig, load_config, load_with_policies
from data.records import SPLITS
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT
from src.common.lock import lock

if TYPE_CHECKING:
    from src.runs.plan import Plan

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.


def evaluate_experiment(args: argparse.Namespace) -> None:
    """Score, tabulate, draw, report; nothing is done twice."""
    from src.evaluation.across.earlier_runs import seeds_of
    from src.runs.plan import Plan

    config = load_config(ExperimentConfig, args.model)
    plan = Plan(config, args.data_dir, tuple(args.seeds))
    folder = args.results_dir / config.name
    if args.split != "test":
        folder = folder / args.split
    with lock(folder):
        if args.add:
            seeds = sorted({*plan.experiment.seeds, *seeds_of(folder)})
            plan = Plan(config, args.data_dir, tuple(seeds))
        _evaluate_into(folder, plan, args)


def _evaluate_into(folder: Path, plan: "Plan", args: argparse.Namespace) -> None:
    from src.evaluation import experiment
    from src.evaluation.across.earlier_runs import earlier_runs
    from src.reports.experiment import console_table
    from src.reports.results import read_results
    from src.scoring.zero_shot import zero_shot_scores
    from src.training.speed import runs_at_a_time

    found, missing = experiment.finished_runs(plan, args.runs_dir)
    earlier = earlier_runs(experiment.planned_runs(plan), [run for run, _ in found],
                           folder) if args.add else []
    known = {run.display_name for run, _ in earlier}
    missing = [name for name in missing if name not in known]
    inputs = experiment.inputs_hash(found, missing, plan, args.split, earlier)
    if experiment.is_current(folder, inputs):
        print(f"nothing to do: {folder} holds the results of these very weights, pairs and "
              "settings")
    else:
        pairs, answers = experiment.eval_pairs(plan, args.split)
        scored = experiment.score_runs(found, plan, args.split, args.runs_dir,
                                       args.workers or runs_at_a_time(), earlier)
        scored += experiment.baselines(plan, pairs, answers)
        scored += zero_shot_scores(plan, args.split, args.runs_dir)
        experiment.write_experiment(folder, scored, pairs, plan, missing, inputs)
    results = read_results(folder)
    experiment.write_cards(found, results)
    print(console_table(results.pgr, results.accuracy, results.ceilings))
    if missing:
        print(f"\n{len(missing)} runs are not finished and in no table: {', '.join(missing)}")
    print("\nfigures: " + "\n         ".join(map(str, sorted((folder / "figures").glob("*.png")))))
    print(f"tables:  {folder}/*.csv\nreport:  {folder / 'report.html'}")


def transfer_experiment(args: argparse.Namespace) -> None:
    """The experiment's models on other evaluation sets, beside their own test."""
    from src.evaluation.transfer import transfer
    from src.runs.plan import Plan
    from src.training.speed import runs_at_a_time

    plan = Plan(load_config(ExperimentConfig, args.model), args.data_dir, tuple(args.seeds))
    folder = args.results_dir / plan.experiment.name
    with lock(folder):
        print(transfer(plan, args.transfer, args.runs_dir, args.data_dir, folder,
                       args.workers or runs_at_a_time()))


def judge_policies(args: argparse.Namespace) -> str:
    """The experiment's policies, judged by a reward model that labelled for none of them."""
    from src.evaluation.policies import evaluate_policies
    from src.runs.plan import Plan

    plan = Plan(load_with_policies(args.model), args.data_dir, tuple(args.seeds))
    return evaluate_policies(plan, args.runs_dir, args.results_dir)


def evaluate_model(args: argparse.Namespace) -> str:
    """One reward model: a report on its rewards, a benchmark's score, or its accuracy."""
    from src.evaluation.benchmark import benchmark_config, evaluate_benchmark
    from src.evaluation.inspect import inspect_model
    from src.evaluation.one_model import evaluate_one

    folder = Path(args.model)
    if args.inspect:
        return inspect_model(folder, args.data, args.split, args.data_dir,
                             args.results_dir, args.output_dir)
    benchmark = benchmark_config(args.data)
    if benchmark is not None:
        return evaluate_benchmark(folder, benchmark, args.results_dir, args.output_dir,
                                  args.data_dir, args.against)
    if args.against is not None:
        raise UserError(f"--against {args.against}: goes with --data and the name of a benchmark, "
                        "such as reward_bench")
    return evaluate_one(folder, args.data, args.split, args.runs_dir, args.data_dir)


def ask_experiment(args: argparse.Namespace) -> None:
    """One of the three questions about an experiment: PGR, transfer, policies."""
    if args.data is not None or args.inspect:
        raise UserError("--data and --inspect go with one reward model, not with an "
                        "experiment: name the folder of a model")
    asked = "--policies" if args.policies else "--transfer" if args.transfer else ""
    if asked and args.split != "test":
        raise UserError(f"--split {args.split}: {asked} compares test pairs alone")
    if args.policies and args.transfer:
        raise UserError("--policies and --transfer are two questions: ask one at a time")
    if asked and args.add:
        raise UserError(f"--add: a table of accuracy and PGR can grow, not {asked}")
    quieten_transformers()
    if args.policies:
        print(judge_policies(args))
    else:
        transfer_experiment(args) if args.transfer else evaluate_experiment(args)


def quieten_transformers() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def parse_args() -> argparse.Namespace:
    about, more = __doc__.split("\n\n", 1)
    parser = Parser(prog="python eval.py", description=about, epilog=more,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True,
                        help="an experiment (name or YAML file), or the folder of a reward model")
    parser.add_argument("--data", metavar="NAME|FILE", help="one model only: a config of "
                        "configs/data, a file of preference pairs, or NAME=FILE")
    parser.add_argument("--scores", type=Path, metavar="FILE",
                        help="with a benchmark: rewards made elsewhere, parquet or csv with the "
                             "columns of src/measures/benchmarks/rows.py; --model is then any name")
    parser.add_argument("--against", type=Path, metavar="MODEL",
                        help="with a benchmark of pairs: another reward model (with --scores: its "
                             "file), compared in each subset, corrected for their number")
    parser.add_argument("--split", default="test", choices=SPLITS,
                        help="of the model's own data, instead of test; marked in every output")
    parser.add_argument("--seeds", type=int, nargs="+", default=[],
                        help="instead of the experiment's seeds")
    parser.add_argument("--add", action="store_true", help="an experiment only: runs that are not "
                        "here keep the scores that its results have of them, so that a table can "
                        "grow by seeds or methods; its seeds are added to --seeds")
    parser.add_argument("--transfer", nargs="+", metavar="NAME_OR_FILE", default=[],
                        help="an experiment only: evaluation sets to score its models on as well")
    parser.add_argument("--policies", action="store_true", help="an experiment only: its policies "
                        "on prompts of test, judged, instead of its reward models")
    parser.add_argument("--workers", type=int, metavar="N", help="an experiment only: runs to "
                        "score at a time (default: WORKERS, or one a core on a CPU; on a box of "
                        "GPUs one, on the first)")
    parser.add_argument("--inspect", "--look", action="store_true",
                        help="one model only: a report on its rewards, in results/")
    parser.add_argument("--output_dir", type=Path,
                        help="with --inspect or a benchmark: where, instead of results/")
    parser.add_argument("--runs_dir", type=Path, default=REPO_ROOT / "runs",
                        help="where the runs are (default: runs/)")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="where prepared data are (default: data/processed/)")
    parser.add_argument("--results_dir", type=Path, default=REPO_ROOT / "results",
                        help="where tables and figures go (default: results/)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: expected 1 or more runs at a time")
    experiment = args.policies or Path(args.model).suffix in (".yaml", ".yml") or (
        CONFIG_ROOT / "experiments" / f"{args.model}.yaml").is_file()
    if args.add and (args.scores is not None or not experiment):
        raise UserError(f"--add goes with an experiment: {args.model} is none")
    if args.scores is not None:
        from src.evaluation.benchmark import evaluate_scores

        print(evaluate_scores(args.scores, args.data, args.model, args.results_dir,
                              args.output_dir, args.against))
    elif experiment:
        ask_experiment(args)
    elif args.transfer:
        raise UserError(f"--transfer goes with an experiment: {args.model} is none")
    elif Path(args.model).is_dir():
        quieten_transformers()
        print(evaluate_model(args))
    else:
        known = sorted(path.stem for path in (CONFIG_ROOT / "experiments").glob("*.yaml"))
        raise UserError(f"--model {args.model}: neither a folder nor an experiment; experiments "
                        f"are {', '.join(known)}")


if __name__ == "__main__":
    run_command(main)
