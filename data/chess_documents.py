"""Command: the solutions of prepared training puzzles as text, to pre-train a small model on.

    python -m data.chess_documents --processed data/processed/chess \\
        --output data/raw/chess/solutions.txt

One document a line, one for every move of a solution (the solver's and the replies): what the
prompt says about the position, a space, and the move, as configs/templates/words.jinja writes them.
Only puzzles of train_1 and train_2 are read, and no position that val or test asks about is among
them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from configs.schema import DataConfig, from_dict
from data.manifest import read_manifest, split_names
from data.pairs.pair_files import read_pairs
from data.read.chess_puzzles import answer_of, prompt_of, solution_line
from data.read.rows import prompt_text
from data.read.sources import open_source
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import atomic_path

TRAINING = ("train_1", "train_2")


def documents(processed_dir: Path) -> Iterator[str]:
    """The text of every position and move in the solutions of the training puzzles.

    Raises:
        UserError: no prepared data there, other data than chess puzzles, or their source has gone.
    """
    manifest = read_manifest(processed_dir)
    if manifest["form"] != "chess":
        raise UserError(f"{processed_dir}: holds form {manifest['form']}: expected chess puzzles, "
                        "as data/preprocess.py --data chess prepares them")
    config = from_dict(DataConfig, manifest["config"], str(processed_dir / "manifest.json"))
    wanted, held_out = set(), set()
    for split in split_names(manifest):
        pairs = read_pairs(processed_dir, split, ["source", "prompt"])
        if split in TRAINING:
            wanted.update(pairs["source"].to_pylist())
        else:
            held_out.update(pairs["prompt"].to_pylist())
    for path in config.files.values() or [config.path]:
        source = open_source(path, config)
        for number, row in source.raw_rows():
            if f"{source.name}:{number}" not in wanted:
                continue
            for board, move in solution_line(row, config):
                prompt = prompt_of(board, config)
                if prompt_text(({"role": "user", "content": prompt},)) not in held_out:
                    yield f"{prompt} {answer_of(board, move, config)}"


def main() -> None:
    parser = Parser(prog="python -m data.chess_documents", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processed", type=Path, required=True, metavar="DIR",
                        help="folder that data/preprocess.py made of chess puzzles")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    count = 0
    with atomic_path(options.output) as partial, partial.open("w", encoding="utf-8") as file:
        for document in documents(options.processed):
            file.write(" ".join(document.split()) + "\n")
            count += 1
    print(f"{options.output}: {count:,} positions with their moves")


if __name__ == "__main__":
    run_command(main)
