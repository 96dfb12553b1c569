"""Scoring and labelling: pairs a second of AutoModelForSequenceClassification, and of ours.

    python -m speed.score_throughput                                # one mix, 4 layers
    python -m speed.score_throughput --mix all --layers 4 8 --json FILE

The baseline pads batches of two rows a pair, in the data's order, and once more sorted by length.
Ours is src.scoring.pairs.score, as eval.py and the weak labels use it. Loading is not timed. The
ratio is to the baseline in the data's order, round by round.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from model.reward_model import load_reward_model
from speed import options  # noqa: I001 - first: it sets the environment
from speed.measure import Clock, Round, System, alternate, counted
from speed.mixes import Row as Pair
from speed.mixes import grouped_rounds, longer_side, rounds_of, write_split
from speed.ours import ALL, in_precisions, padded_rewards, reward_difference, steps_of_tricks
from speed.peers.padded import sides_of
from speed.rows import describe, show, table_rows
from speed.shapes import Shape, load_classifier, write_model
from speed.table import TableRow
from src.common.distributed import device
from src.common.errors import run_command
from src.scoring.pairs import score

FORWARD = 1


def parse_args() -> argparse.Namespace:
    parser = options.benchmark_parser(__doc__, pairs=96, layers=(4,))
    options.add_ours(parser, "score_batch_tokens")
    return parser.parse_args()


def padded_systems(model: Path, args: argparse.Namespace, pairs: list[Pair]) -> list[System]:
    """The library's classifier over padded batches."""
    given = [sides_of(rows) for rows in rounds_of(pairs, args.rounds)]
    by_length = [sides_of(rows) for rows in grouped_rounds(pairs, args.rounds, args.batch_pairs,
                                                           longer_side)]

    def run(examples: list[dict]) -> Round:
        classifier = load_classifier(model).to(device()).eval()
        with counted(classifier) as sizes:
            return timed(lambda: padded_rewards(classifier, examples, args.batch_pairs), sizes)

    return [System("AutoModelForSequenceClassification, padded", lambda k: run(given[k])),
            System("the same, sorted by length", lambda k: run(by_length[k]), same_pairs=False)]


def our_systems(model: Path, args: argparse.Namespace, pairs: list[Pair],
                configs: dict[str, RuntimeConfig], folder: Path) -> list[System]:
    """src.scoring.pairs.score under each of the configs."""
    paths = [folder / f"part-{number}.arrow" for number in range(args.rounds)]
    for path, rows in zip(paths, rounds_of(pairs, args.rounds), strict=True):
        write_split(rows, path)

    def run(runtime: RuntimeConfig, precision: str, number: int) -> Round:
        split = TokenisedSplit([paths[number]])  # anew: what was found out about one is kept
        loaded = load_reward_model(model, attention=runtime.attention,
                                   last_layer_shortcut=runtime.last_layer_shortcut).to(device())
        loaded.precision = precision
        with counted(loaded) as sizes:
            return timed(lambda: score(loaded, split, runtime, "score"), sizes)

    return [System(name, lambda number, how=how: run(*how, number))
            for name, how in in_precisions(configs, args.bf16).items()]


def timed(work: Callable[[], object], sizes: list[int]) -> Round:
    clock = Clock()
    work()
    return clock.read(sum(sizes))


def measure(args: argparse.Namespace, shape: Shape, mix: str, pairs: list[Pair]) -> list[TableRow]:
    """The rows of one mix and one depth."""
    configs = steps_of_tricks(last_only=args.no_steps, attention=args.attention,
                              score_batch_tokens=args.score_batch_tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(shape, folder / "model", args.seed)
        difference = reward_difference(model, pairs[: args.pairs], args.batch_pairs, configs[ALL],
                                       folder)
        systems = [*padded_systems(model, args, pairs),
                   *our_systems(model, args, pairs, configs, folder)]
        measured = alternate(systems, args.rounds, f"{mix}, {shape.layers} layers")
    facts = {"benchmark": "score_throughput", "layers": shape.layers, "hidden": shape.hidden,
             **describe(pairs, args.batch_pairs, args.seed), "batch_pairs": args.batch_pairs,
             "rounds": args.rounds, "score_batch_tokens": args.score_batch_tokens,
             "attention": args.attention, "reward_difference": difference,
             **options.machine_facts(args)}
    return table_rows(measured, shape, mix, pairs, FORWARD, facts)


def main() -> None:
    args = parse_args()
    options.prepare(args)
    show((measure(args, *each) for each in options.work_of(args)), args.json)


if __name__ == "__main__":
    run_command(main)
