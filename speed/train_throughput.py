"""Training: pairs a second of TRL's RewardTrainer, a padded Trainer, and ours trick by trick.

    python -m speed.train_throughput                                # one mix, 4 layers
    python -m speed.train_throughput --mix all --layers 4 8 --json FILE
    python -m speed.train_throughput --shape llama_3_2_1b --layers 16 8 --length_scale 4

Every system does an epoch over the same pairs in each round, with the same model, optimiser and
pairs in a step. Timed is what lies between the first batch and the last optimiser step. The ratio
is to TRL, round by round.
"""

import argparse
import tempfile
from pathlib import Path

from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import alternate
from speed.mixes import Row as Pair
from speed.ours import ALL, reward_difference, steps_of_tricks, training_systems
from speed.peers import Task, require_trl, trainer_systems, trl_in_bf16, trl_systems
from speed.rows import describe, show, table_rows
from speed.shapes import Shape, write_model
from speed.table import TableRow
from src.common.errors import run_command

FORWARD_AND_BACKWARD = 3


def parse_args() -> argparse.Namespace:
    about, more = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=about, epilog=more,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_options(parser, pairs=48, layers=(4,))
    options.add_ours(parser, "micro_batch_tokens")
    parser.add_argument("--no_trl", action="store_true", help="leave TRL out; ratios are then to "
                        "the padded transformers.Trainer")
    return parser.parse_args()


def measure(args: argparse.Namespace, shape: Shape, mix: str, pairs: list[Pair]) -> list[TableRow]:
    """The rows of one mix and one depth."""
    configs = steps_of_tricks(last_only=args.no_steps,
                              micro_batch_tokens=args.micro_batch_tokens, attention=args.attention)
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(shape, Path(folder) / "model", args.seed)
        task = Task(model, pairs, args.rounds, args.batch_pairs, shape.pad, args.seed)
        trl = [] if args.no_trl else trl_systems(task)
        if trl and args.bf16:
            trl.append(trl_in_bf16(task))
        padded = [] if args.no_steps else trainer_systems(task)
        systems = [*trl, *padded,
                   *training_systems(task, configs, Path(folder), args.bf16)]
        difference = reward_difference(model, pairs[: args.pairs], args.batch_pairs, configs[ALL],
                                       Path(folder))
        measured = alternate(systems, args.rounds, f"{mix}, {shape.layers} layers")
    facts = {"benchmark": "train_throughput", "layers": shape.layers, "hidden": shape.hidden,
             **describe(pairs, args.batch_pairs, args.seed), "batch_pairs": args.batch_pairs,
             "rounds": args.rounds, "micro_batch_tokens": args.micro_batch_tokens,
             "attention": args.attention, "reward_difference": difference,
             **options.machine_facts(args)}
    return table_rows(measured, shape, mix, pairs, FORWARD_AND_BACKWARD, facts)


def main() -> None:
    args = parse_args()
    options.prepare(args)
    if not args.no_trl:
        require_trl()
    show((measure(args, *each) for each in options.work_of(args)), args.json)


if __name__ == "__main__":
    run_command(main)
