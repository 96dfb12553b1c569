"""Which file of configs/hardware holds a stage on this box's GPUs: what HARDWARE=auto takes.

    python -m src.training.choose_hardware --experiment llama_3_1_8b --stage ceilings    # zero3

NPROC is the number of processes, all GPUs if not set.
"""

import os

import torch

from configs.schema import ExperimentConfig, load_config
from src.common.errors import run_command
from src.runs.plan import Plan
from src.training.command_line import parse_args
from src.training.fit import choose, device_gb, unfinished


def main() -> None:
    args = parse_args()
    plan = Plan(load_config(ExperimentConfig, args.experiment), args.data_dir, tuple(args.seeds),
                tuple(args.only))
    asked = os.environ.get("NPROC", "")  # the script says what is wrong with another
    processes = int(asked) if asked.isdecimal() and int(asked) else torch.cuda.device_count()
    print(choose(plan, unfinished(plan, args.stage, args.runs_dir), processes, device_gb()))


if __name__ == "__main__":
    run_command(main)
