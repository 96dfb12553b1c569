"""Command: questions with several answers, one of them right -> the files of the tax's tasks.

    python -m data.multiple_choice                    # every task of configs/tax, from RAW_DIR
    python -m data.multiple_choice --tasks boolq cosmos_qa

What is written is data/processed/tax/<task>.jsonl, see data/questions.py. Where the same data were
prepared for training, only questions of their test split are taken: the others have taught reward
models which answer is right.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from configs.strict_yaml import read_yaml
from data.questions import FOLDER, TASKS, questions, task_names
from src.common.arguments import Parser
from src.common.errors import run_command
from src.common.files import REPO_ROOT, write_text


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m data.multiple_choice", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=task_names(), choices=task_names(),
                        metavar="NAME", help=f"default: all, {' '.join(task_names())}")
    parser.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed",
                        help="where prepared data are, and where tax/ goes (default: "
                             "data/processed/)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    for name in args.tasks:
        data = str(read_yaml(TASKS / f"{name}.yaml")["metadata"]["data"])
        data = data.replace("${RAW_DIR}", os.environ.get("RAW_DIR") or str(REPO_ROOT / "data/raw"))
        found, left_out = questions(data, args.data_dir)
        path = args.data_dir / FOLDER / f"{name}.jsonl"
        write_text(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found))
        print(f"{path}: {len(found):,} questions" + "".join(
            f"; left out {count:,}: {reason}" for reason, count in left_out.most_common()))


if __name__ == "__main__":
    sys.argv[0] = "python -m data.multiple_choice"
    run_command(main)
