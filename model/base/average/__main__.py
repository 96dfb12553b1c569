"""Command: average two checkpoints. See --help."""

import argparse
from pathlib import Path

from src.common.arguments import Parser
from src.common.errors import run_command

HELP = """\
Average a model with the base that it was tuned from, tensor by tensor, in fp32:

  averaged = a * base + (1 - a) * tuned        a = 0 is the tuned model, a = 1 its base

Tuning a model on rewards costs it some of what it knew; a share of the base gives that back. The
recipe says which share each block of decoder layers gets, the embeddings and the final norm; a
reward model keeps its head. What is written is a Hugging Face folder with recipe.yaml in it, and
mergekit.yaml, which is the same for mergekit. Neither model is ever in memory.

examples:
  python -m model.base.average --config uniform --base model/demo --tuned runs/demo/students/NAME \\
      --out averaged --dry-run                       tensor, block and a; nothing is written
  python -m model.base.average --config part_wise --base BASE --tuned TUNED --out averaged
  python -m model.base.average --config 'split|10#20|0.4|0.3|0.2' ...    layers 0-10, 11-20, 21 up

A model that was made of some layers of its base is averaged with these: a run's folder says which,
and --keep does for any other.
"""


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m model.base.average", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="name of a file in configs/averaging, the "
                        "path of a YAML file, or a published string")
    parser.add_argument("--base", required=True, type=Path, help="the model before tuning")
    parser.add_argument("--tuned", required=True, type=Path, help="the model after it")
    parser.add_argument("--out", required=True, type=Path, help="new folder")
    parser.add_argument("--keep", type=int, nargs="+", metavar="LAYER",
                        help="the base's layers that the tuned model was made of")
    parser.add_argument("--dry-run", action="store_true",
                        help="print the recipe, and each tensor's block and a")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from tqdm import tqdm

    from configs.averaging import load_recipe
    from model.base.average.folders import as_yaml, average_folders, require_new
    from model.base.average.match import match
    from src.common.console import table_lines

    recipe = load_recipe(args.config)
    kept = tuple(args.keep) if args.keep else None
    require_new(args.out)
    if args.dry_run:
        found = match(args.base, args.tuned, recipe, kept)
        rows = [(each.name, each.block, f"{each.a:g}") for each in found]
        print(as_yaml(recipe))
        print(*table_lines(("tensor", "block", "a"), rows, words=2), sep="\n")
        return
    warning = average_folders(args.base, args.tuned, recipe, args.out, kept=kept,
                              show=lambda found: tqdm(found, unit="tensor", disable=None))
    print(*filter(None, (warning, f"averaged model: {args.out}")), sep="\n")


if __name__ == "__main__":
    run_command(main)
