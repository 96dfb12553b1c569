"""Training: pairs a second of TRL's RewardTrainer and other peers, and of ours trick by trick.

    python -m speed.train_throughput                                # one mix, 4 layers
    python -m speed.train_throughput --mix all --layers 4 8 --json FILE
    python -m speed.train_throughput --shape llama_3_2_1b --layers 16 8 --length_scale 4

Every system does an epoch over the same pairs in each round, with the same model, optimiser and
pairs in a step; that a step's loss and gradients are the same is asserted first. Timed is what lies
between the first batch and the last optimiser step. The ratio is to TRL, round by round.
prefix-grouper takes part where it is installed: `pip install -r speed/requirements.txt`.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import alternate
from speed.mixes import Row as Pair
from speed.ours import ALL, reward_difference, steps_of_tricks, training_systems
from speed.peers import prefix_grouped
from speed.peers.equality import step_difference
from speed.peers.padded import padded_peer, require_trl, trl_in_bf16, trl_peers
from speed.peers.padding_free import padding_free_peer
from speed.peers.peer import Peer, Task
from speed.rows import describe, show, table_rows
from speed.shapes import Shape, write_model
from speed.table import TableRow
from src.common.errors import run_command

FORWARD_AND_BACKWARD = 3


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=48, layers=(4,))
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
        difference = reward_difference(model, pairs[: args.pairs], args.batch_pairs, configs[ALL],
                                       Path(folder))
        step = replace(task, rows=pairs[: args.batch_pairs], rounds=1)
        steps_differ = step_difference(peers_of(args, step), step, configs[ALL])
        peers = peers_of(args, task)
        if args.bf16 and not args.no_trl:
            peers.insert(2, trl_in_bf16(task))
        systems = [*(peer.system() for peer in peers),
                   *training_systems(task, configs, Path(folder), args.bf16)]
        measured = alternate(systems, args.rounds, f"{mix}, {shape.layers} layers")
    facts = {"benchmark": "train_throughput", "layers": shape.layers, "hidden": shape.hidden,
             **describe(pairs, args.batch_pairs, args.seed), "batch_pairs": args.batch_pairs,
             "rounds": args.rounds, "micro_batch_tokens": args.micro_batch_tokens,
             "attention": args.attention, "reward_difference": difference,
             "step_difference": steps_differ, "prefix_grouper": prefix_grouped.version(),
             **options.machine_facts(args)}
    return table_rows(measured, shape, mix, pairs, FORWARD_AND_BACKWARD, facts, ALL)


def peers_of(args: argparse.Namespace, task: Task) -> list[Peer]:
    """All that were asked for and compute in ours' precision; none with --no_trl --no_steps."""
    peers = [] if args.no_trl else trl_peers(task)
    if not args.no_steps:
        peers.append(padded_peer(task))
    if peers:
        peers.append(padding_free_peer(task))
        peers += prefix_grouped.peers(task) if prefix_grouped.version() else []
    return peers


def main() -> None:
    args = parse_args()
    options.prepare(args)
    if not (args.no_trl and args.no_steps or prefix_grouped.version()):
        print("prefix-grouper is not installed, its rows are left out: `pip install -r "
              "speed/requirements.txt` adds them", file=sys.stderr)
    if not args.no_trl:
        require_trl()
    show((measure(args, *each) for each in options.work_of(args)), args.json)


if __name__ == "__main__":
    run_command(main)
