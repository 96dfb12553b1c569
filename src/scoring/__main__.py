"""Command: rewards of any prompts and responses. Run as `python -m src.scoring`; see --help."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.identity import written
from configs.schema import DataConfig
from data.files.raw_bytes import stem_of
from data.read.answers import Answers
from data.read.response_rows import read_responses
from data.read.sources import Source, find_form, named_data, open_source, read_answers
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.hashing import content_hash
from src.common.lock import lock

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used
    from src.scoring.file import Summary
    from src.scoring.texts import TextScorer

HELP = """\
Score responses with a reward model: a file of them, or what you type. A higher reward is a better
response; only rewards of one prompt can be compared.

examples:
  # every response of a file; the table has file, row, response, id, reward and rank (1 is best)
  python -m src.scoring --model runs/demo/ceilings/NAME --data answers.jsonl --out scores.parquet

  # best of n: the best response to each prompt, as jsonl
  python -m src.scoring --model FOLDER --data answers.jsonl --out scores.parquet --best best.jsonl

  # a data set of configs/data
  python -m src.scoring --model FOLDER --data ultrafeedback --out scores.parquet

  # type a prompt and responses
  python -m src.scoring --model FOLDER --interactive

DATA is jsonl, json, csv (.gz and .zst too) or parquet, one prompt a row:
  {"prompt": "Why is the sky blue?", "responses": ["Rayleigh scattering.", "It is not."]}
  {"prompt": [{"role": "user", "content": "Why?"}], "response": "Because."}
  {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
  {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
An `id` is carried over; a column `system` is the system message. A response that is longer than
the model takes gets no reward and is counted; nothing is cut. Memory does not grow with the file. A
call that is stopped goes on where it was when it is repeated; a finished one does nothing. Bad
input: one line, exit code 2.
"""


def parse_arguments() -> argparse.Namespace:
    """The command line; UserError for a mistake in it."""
    parser = Parser(prog="python -m src.scoring", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER",
                        help="a finished reward model, from here or elsewhere")
    parser.add_argument("--data", metavar="FILE|NAME",
                        help="a file of responses, a config of configs/data, or NAME=FILE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table to write, parquet")
    parser.add_argument("--best", type=Path, metavar="FILE",
                        help="also write the best response to each prompt, jsonl")
    parser.add_argument("--interactive", action="store_true", help="score what you type")
    parser.add_argument("--chat_template", default="", metavar="FILE",
                        help="file in configs/templates, for a tokenizer that has none")
    parser.add_argument("--debug", action="store_true", help="traceback instead of one line")
    options = parser.parse_args()
    if options.interactive == bool(options.data):
        parser.error("give --data, or --interactive")
    if options.data and not options.out:
        parser.error("--data needs --out FILE.parquet")
    return options


def score_data(scorer: "TextScorer", data: str, out: Path, best: Path | None) -> None:
    """The table of a file or data set, and the best responses where they are asked for."""
    from src.scoring.file import check_outputs, score_rows, write_best

    config = named_data(data)
    sources = _sources(config, data)
    check_outputs(out, best, [source.path for source in sources if source.path])
    data_hash = content_hash(["None" if config is None else written(config),
                              [[source.name, source.sha256()] for source in sources]])
    with lock(out):
        summary = score_rows(scorer, _rows(sources, config), data_hash, out)
    print(_summary_lines(summary, scorer, out))
    if best is not None:
        with lock(best):
            empty = write_best(_rows(sources, config), out, best)
        print(f"{best}: the best response to each of {summary.prompts - empty:,} prompts"
              + (f"; {empty:,} have none" if empty else ""))


def converse(scorer: "TextScorer") -> None:
    """Ask for a prompt and its responses and show their rewards, until the input ends."""
    from src.scoring.file import ranks
    from src.scoring.texts import NO_REWARD

    print("Type a prompt, then responses, then an empty line for their rewards. \\n is a new line; "
          "an empty prompt ends.")
    while prompt := _ask("prompt: "):
        texts: list[str] = []
        while text := _ask(f"response {len(texts) + 1}: "):
            texts.append(text)
        if not texts:
            continue
        rewards = scorer.rewards([([{"role": "user", "content": prompt}], texts)])[0]
        places = ranks(rewards)
        for i in np.argsort(-rewards, kind="stable"):
            if np.isnan(rewards[i]):
                print(f"  no reward        {_short(texts[i])}: "
                      f"{NO_REWARD.format(most=scorer.most_tokens)}")
            else:
                print(f"  {places[i]:2.0f}.  {rewards[i]:+9.4f}   {_short(texts[i])}")
    print()


def _sources(config: DataConfig | None, data: str) -> list[Source]:
    if config is None:
        return [open_source(data, DataConfig(name=stem_of(Path(data)), path=data))]
    if config.sources:
        raise UserError(f"--data {data}: a mixture: score its sources one by one: "
                        f"{', '.join(config.sources)}")
    return [open_source(path, config) for path in (config.files.values() or [config.path])]


def _rows(sources: list[Source],
          config: DataConfig | None) -> Iterator[tuple[int, Answers | str]]:
    for source in sources:
        if config is None:
            yield from read_responses(source.raw_rows(), source.name)
        else:
            yield from read_answers(source, find_form(source, config), config)


def _summary_lines(summary: "Summary", scorer: "TextScorer", out: Path) -> str:
    from src.scoring.file import unusable_text
    from src.scoring.texts import NO_REWARD

    lines = [f"{out}: {summary.responses:,} responses to {summary.prompts:,} prompts"]
    if summary.without_reward:
        lines.append(f"without a reward: {summary.without_reward:,} ("
                     f"{NO_REWARD.format(most=scorer.most_tokens)})")
    if summary.unusable:
        lines.append(f"left out: {unusable_text(summary)}")
    lines += [f"note: {count:,} rows: {note}" for note, count in summary.notes.most_common(10)]
    return "\n".join(lines)


def _ask(question: str) -> str:
    """A line that a person types, or that is piped in, which needs no question; empty at the end of
    the input."""
    try:
        return input(question if sys.stdin.isatty() else "").replace("\\n", "\n").strip()
    except EOFError:
        return ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def main() -> None:
    options = parse_arguments()
    import transformers

    from src.scoring.texts import TextScorer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    scorer = TextScorer(options.model, options.chat_template)
    if options.interactive:
        converse(scorer)
    else:
        score_data(scorer, options.data, options.out, options.best)


if __name__ == "__main__":
    sys.argv[0] = "python -m src.scoring"
    run_command(main)
