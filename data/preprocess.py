"""Command: raw preference data -> tokenised splits. See --help."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.model_schema import ModelConfig
from configs.schema import (
    CONFIG_ROOT,
    DataConfig,
    ExperimentConfig,
    from_dict,
    load_config,
)
from data.files.raw_bytes import stem_of
from data.read.fields import COLUMNS
from data.read.sources import as_fixture
from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT

HELP = """\
Prepare a data set of preference pairs: read, check, drop duplicates, split by prompt into train_1,
train_2, val and test, and tokenise for every model that will be trained on it.

examples:
  # a data set on the hub, for one model
  python data/preprocess.py --train_path hendrydong/preference_700K \\
      --output_dir data/processed/preference_700K \\
      --tokenizer_name meta-llama/Llama-3.2-1B-Instruct --show True

  # everything that an experiment of configs/experiments needs
  python data/preprocess.py --experiment llama_3_2_1b

  # a described data set (configs/data) without tokens: pairs/ only; call again to add tokens/
  python data/preprocess.py --data hh_single_turn

  # your own file, with its own column names, and a test file of its own
  python data/preprocess.py --train_path my.csv --test_path my_test.csv --prompt_key question \\
      --chosen_key good --rejected_key bad --tokenizer_name model/checkpoints/my_model

  # what a described data set turns into, tried on made rows that lie in data/fixtures; and on the
  # first 1,000 of its own
  python data/preprocess.py --data nectar --fixture --show True
  python data/preprocess.py --data nectar --limit 1000 --output_dir data/processed/nectar_1000

  # an eighth of the prompts
  python data/preprocess.py --data preference_700K --fraction 0.125 \\
      --output_dir data/processed/preference_700K_eighth --tokenizer_name llama_3_2_1b

A call that is stopped goes on where it was when it is repeated; a finished one does nothing. Row
numbers of everything dropped are in OUTPUT_DIR/manifest.json. Bad input: one line, exit code 2.
"""
OVERRIDES = ("form", "fraction", "seed", "test_pairs", "val_pairs", "train_pairs", "max_length",
             "truncation", "max_bad_frac", "hub_config", "hub_dir", "hub_split", "limit")
TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; UserError for a mistake in it."""
    parser = Parser(prog="python data/preprocess.py", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what to prepare (one of --data, --experiment, --train_path)")
    what.add_argument("--data", metavar="NAME", help="a config of configs/data, or a YAML file")
    what.add_argument("--experiment", metavar="NAME",
                      help="a config of configs/experiments: its data and all its tokenizers")
    what.add_argument("--train_path", metavar="PATH",
                      help="hub id, json, jsonl, csv (or .gz, .zst), parquet, save_to_disk folder")
    what.add_argument("--test_path", metavar="PATH",
                      help="test pairs that come separately; of --data all but its own test stays")
    what.add_argument("--output_dir", metavar="DIR", type=Path,
                      help="default: data/processed/<name of the data>")
    what.add_argument("--tokenizer_name", metavar="NAME", nargs="+", default=[],
                      help="hub id, model folder, or config of configs/models; several are judged "
                           "together: a pair too long for one is dropped for all")
    what.add_argument("--chat_template", default="", metavar="FILE",
                      help="file in configs/templates, for tokenizers that have none")
    what.add_argument("--fixture", action="store_true",
                      help="read a dozen made rows in the data set's own columns instead of it "
                           "(default output: data/processed/<name>_fixture)")
    columns = parser.add_argument_group("columns, where the data set has other names than ours")
    for name in COLUMNS:
        columns.add_argument(f"--{name}_key", metavar="COLUMN")
    choices = parser.add_argument_group("choices (default: the data config's)")
    choices.add_argument("--form", help="auto, messages, prompt_answers, scored_answers, "
                                        "transcript, answers, one_answer, lists, kto, tree or "
                                        "chess")
    choices.add_argument("--limit", type=int, help="read only so many rows of each file")
    choices.add_argument("--fraction", type=float, help="share of the prompts to keep, by hash")
    choices.add_argument("--max_length", type=int, help="tokens of prompt plus one answer")
    choices.add_argument("--truncation", help="drop, left or error, for pairs above max_length")
    choices.add_argument("--max_bad_frac", type=float, help="stop above this share of bad rows")
    for name in ("test_pairs", "val_pairs", "train_pairs", "seed"):
        choices.add_argument(f"--{name}", type=int)
    choices.add_argument("--hub_config")
    choices.add_argument("--hub_dir")
    choices.add_argument("--hub_split")
    parser.add_argument("--num_proc", type=int, default=os.cpu_count() or 1,
                        help="processes to tokenise with")
    parser.add_argument("--show", type=_true_or_false, default=False, metavar="True|False",
                        help="print decoded samples and lengths")
    parser.add_argument("--overwrite", type=_true_or_false, default=False, metavar="True|False",
                        help="replace what OUTPUT_DIR holds")
    parser.add_argument("--debug", action="store_true", help="traceback instead of one line")
    return parser.parse_args(arguments)


def build_config(options: argparse.Namespace) -> DataConfig:
    """The data config that the command line describes."""
    if options.experiment and (options.data or options.train_path):
        raise UserError("--experiment names its own data: leave out --data and --train_path, or "
                        "--experiment")
    if options.experiment:
        options.data = load_config(ExperimentConfig, options.experiment).data
    if not (options.data or options.train_path or options.test_path):
        raise UserError("nothing to prepare: give --data, --experiment or --train_path; see "
                        "python data/preprocess.py --help")
    values = _base_values(options)
    if options.test_path:
        path = options.train_path or values.get("path")
        files = {"train": path} if path else values.get("files", {})
        values |= {"path": "", "files": {**files, "test": options.test_path}}
    elif options.train_path:
        values |= {"path": options.train_path, "files": {}}
    values |= {name: value for name in OVERRIDES if (value := getattr(options, name)) is not None}
    keys = {name: value for name in COLUMNS
            if (value := getattr(options, f"{name}_key")) is not None}
    values["keys"] = {**values.get("keys", {}), **keys}
    config = from_dict(DataConfig, values, "command line")
    return as_fixture(config) if options.fixture else config


def find_tokenizers(options: argparse.Namespace) -> list[Any]:
    """A TokenizerSpec for each tokenizer of the command line or of the experiment."""
    from data.prepare import TokenizerSpec

    specs = [_find_tokenizer(name, options.chat_template) for name in options.tokenizer_name]
    if options.experiment:
        for name in load_config(ExperimentConfig, options.experiment).model_names:
            model = load_config(ModelConfig, name)
            if not model.path.is_dir():
                raise UserError(f"the base model {name} is not here ({model.path}): fetch it with "
                                f"python model/download.py --model {name}")
            specs.append(TokenizerSpec(name, str(model.path), model.chat_template))
    return specs


def _base_values(options: argparse.Namespace) -> dict[str, Any]:
    """The named config, the one that describes --train_path, or no more than a name."""
    if options.data:
        return dataclasses.asdict(load_config(DataConfig, options.data))
    for path in sorted((CONFIG_ROOT / "data").glob("*.yaml")):
        config = load_config(DataConfig, str(path))
        if options.train_path and config.path == options.train_path:
            print(f"described by {path.relative_to(REPO_ROOT)}")
            return dataclasses.asdict(config)
    path = Path(options.train_path or options.test_path)
    return {"name": options.output_dir.name if options.output_dir else stem_of(path)}


def _find_tokenizer(name: str, chat_template: str) -> Any:
    """Where a tokenizer named on the command line lies: a known model, a folder, or the hub."""
    from data.prepare import TokenizerSpec

    models = [load_config(ModelConfig, path.stem)
              for path in sorted((CONFIG_ROOT / "models").glob("*.yaml"))]
    model = next((m for m in models if name in (m.name, m.checkpoint)
                  or (Path(name).is_dir() and Path(name).resolve() == m.path.resolve())), None)
    if model:
        chat_template = chat_template or model.chat_template
        if model.path.is_dir():
            return TokenizerSpec(name, str(model.path), chat_template)
    if Path(name).is_dir():
        return TokenizerSpec(name, str(Path(name).resolve()), chat_template)
    hub_id, revision = (model.checkpoint, model.revision) if model else (name, "main")
    return TokenizerSpec(name, _fetch_tokenizer(hub_id, revision), chat_template)


def _fetch_tokenizer(hub_id: str, revision: str) -> str:
    """The folder of a hub model's tokenizer files, from the local cache or the hub."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(hub_id, revision=revision, allow_patterns=TOKENIZER_FILES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer {hub_id!r}: it is no folder here, no config of configs/models, and "
            f"could not be fetched from the hub ({type(error).__name__}): give a model folder, or "
            "fetch the model with python model/download.py --model NAME (gated models need "
            "hf auth login)") from error


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}")
    return text.lower() == "true"


def main() -> None:
    options = parse_arguments()
    config = build_config(options)
    folder = f"{config.name}_fixture" if config.fixture else config.name
    output_dir = options.output_dir or REPO_ROOT / "data" / "processed" / folder
    if options.num_proc < 1:
        raise UserError(f"--num_proc {options.num_proc}: expected at least 1")

    from data.prepare import prepare, require_place
    from data.samples import print_samples, print_summary
    from src.common.lock import lock

    require_place(output_dir)
    tokenizers = find_tokenizers(options)
    with lock(output_dir):
        manifest, worked = prepare(config, output_dir, tokenizers, options.num_proc,
                                   options.overwrite)
        print_summary(output_dir, manifest)
        if options.show:
            print_samples(output_dir, manifest, tokenizers)
    if not worked:
        print("nothing to do: all of this was prepared before")


if __name__ == "__main__":
    run_command(main)
