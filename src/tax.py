"""What a reward model costs: how much of the language model it was made from it still is.

    python -m src.tax --model runs/EXPERIMENT/students/NAME --base model/checkpoints/smollm2_135m \\
           --text data/raw/text/wikitext2_test.txt --tasks sciq boolq cosmos_qa --limit 200

The trunk of the reward model is put under its base's own head, beside the base cut to the same
layers: nats a token and bits a byte of held-out text (windows of so many tokens, the first of each
given), and questions through lm-eval. Every number has its interval over windows or questions, and
so has the difference, for which both models read the same ones.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, write_json

if TYPE_CHECKING:
    from src.evaluation.tax.language import Pair
    from src.measures.tax.paired import Compared

# What takes seconds to load is imported where it is used: a mistake in arguments is told at once.


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m src.tax", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER",
                        help="a finished reward model, from here or elsewhere")
    parser.add_argument("--base", type=Path, required=True, metavar="FOLDER",
                        help="the language model that it was made from")
    parser.add_argument("--text", type=Path, metavar="FILE", help="held-out text, UTF-8")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="NAME",
                        help="tasks of configs/tax, whose questions `python -m "
                             "data.multiple_choice` prepares; or lm-eval's own, such as arc_easy, "
                             "where a hub is reached")
    parser.add_argument("--limit", type=int, metavar="N",
                        help="the first N windows, and the first N questions of each task")
    parser.add_argument("--window", type=int, default=512, metavar="TOKENS",
                        help="tokens of a window of text (default: 512)")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="where the prepared questions are, in tax/ (default: data/processed/)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    args = parser.parse_args()
    if args.text is None and not args.tasks:
        parser.error("give --text FILE, --tasks NAME ..., or both")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: expected 1 or more")
    if args.window < 2:
        raise UserError(f"--window {args.window}: expected 2 or more: the first token is given")
    return args


def text_tax(args: argparse.Namespace, pair: "Pair") -> list["Compared"]:
    """Nats and bits of --text."""
    from model.base.truncate import positions
    from src.evaluation.tax.language import nats_of_both
    from src.measures.tax.paired import language_tax
    from src.scoring.windows import read_windows

    most = positions(pair.tuned.config, str(args.model))
    if args.window > most:
        raise UserError(f"--window {args.window}: {args.model} takes {most} tokens: expected at "
                        "most so many")
    windows = read_windows(args.text, pair.tokenizer, args.window, args.limit)
    return language_tax(args.text.name, *nats_of_both(pair, windows), windows.tokens, windows.bytes)


def main() -> None:
    args = parse_args()
    import transformers

    from src.evaluation.tax.harness import load_tasks
    from src.evaluation.tax.language import questions_of_both, read_pair
    from src.reports.tax.console import lines, rows

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tasks = load_tasks(args.tasks, args.data_dir) if args.tasks else []
    pair = read_pair(args.model, args.base)
    found = text_tax(args, pair) if args.text else []
    if tasks:
        found += questions_of_both(pair, tasks, args.limit)
    print("\n".join(lines(found)))
    if args.json:
        write_json(args.json, {"model": str(args.model), "base": str(args.base),
                               "rows": rows(found)})


if __name__ == "__main__":
    run_command(main)
