"""Command: pre-train a small Llama of our own, or train a base model further. See --help."""

import argparse

from configs.pretrain_schema import PretrainConfig
from configs.schema import load_config
from src.common.arguments import Parser
from src.common.errors import run_command

HELP = """\
Pre-train a small Llama of our own, so that experiments run where no checkpoint can be fetched.
With `start` in its config, train a base model further, for example on the prompts and answers of
prepared pairs, without a word on which one was preferred: generative fine-tuning, before a reward
head is put on.

examples:
  python -m model.pretrain --config demo        # configs/pretrain/demo.yaml -> model/demo
  python -m model.pretrain --config hh_small    # English and unlabelled HH
  python -m model.pretrain --config demo_generative    # model/demo and the answers of train_2

A call that is stopped goes on where it was when it is repeated.
"""


def parse_args() -> PretrainConfig:
    """The config that the command line names; UserError for a mistake in either."""
    parser = Parser(prog="python -m model.pretrain", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True,
                        help="name of a file in configs/pretrain, or the path of a YAML file")
    return load_config(PretrainConfig, parser.parse_args().config)


def main() -> None:
    config = parse_args()
    from model.pretraining import pretrain  # takes seconds to load

    print(f"pre-trained model: {pretrain(config)}")


if __name__ == "__main__":
    run_command(main)
