"""The losses of a small training under one kind of hardware, started by accelerate.

    accelerate launch --config_file configs/hardware/zero3.yaml --num_processes 2 \\
        -m speed.gpu.losses --shape small --out zero3.json

speed/gpu.sh starts it; the same pairs, steps and first weights whatever the hardware.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from data.tokens.tokenised import TokenisedSplit
from speed import options
from speed.mixes import MIXES, draw, write_split
from speed.ours import run_config
from speed.peers.peer import Task
from speed.shapes import SHAPES, write_model
from src.batches.collate import PairDataset
from src.common import distributed
from src.common.arguments import Parser
from src.common.errors import run_command
from src.common.files import write_json

LAYERS, PAIRS, BATCH_PAIRS, TOKENS = 2, 32, 8, 1024


def losses(shape_name: str, folder: Path) -> list[float]:
    """Of every step; all processes call it.

    Args:
        folder: one that all processes see, empty.
    """
    from configs.schema import RuntimeConfig
    from model.reward_model import build_reward_model
    from src.training.arguments import training_arguments, weights_type
    from src.training.trainer import build_trainer

    shape = SHAPES[shape_name].with_layers(LAYERS)
    rows = draw(MIXES["multi_turn"], PAIRS, 0, shape.vocab)

    def prepare() -> None:
        write_model(shape, folder / "base", 0)
        write_split(rows, folder / "pairs.arrow")

    distributed.on_main(prepare)
    run = run_config(Task(folder / "base", rows, 1, BATCH_PAIRS, shape.pad, 0))
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, epochs=2))
    runtime = RuntimeConfig(micro_batch_tokens=TOKENS, save_steps=10**9, logging_steps=1,
                            report_to="none")
    args = training_arguments(run, runtime, folder / "run", PAIRS)
    args.save_strategy = "no"
    split = TokenisedSplit([folder / "pairs.arrow"], data_hash="")
    trainer = build_trainer(
        run, runtime, lambda: build_reward_model(
            folder / "base", tuple(range(LAYERS)), 0, pad_token_id=shape.pad,
            dtype=weights_type(args), device=distributed.device()),
        args, PairDataset(split, np.ones(PAIRS)), None, shape.pad)
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trainer.release()
    return found


def main() -> None:
    parser = Parser(prog="speed.gpu.losses", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE",
                        help="JSON: the losses, and how many processes there were")
    args = parser.parse_args()
    options.prepare(argparse.Namespace(layers=[], threads=1, seed=0))
    with distributed.group():
        folder = Path(distributed.broadcast(tempfile.mkdtemp()))
        found = losses(args.shape, folder)
        facts = {"losses": found, "processes": distributed.world_size()}
        distributed.on_main(lambda: write_json(args.out, facts))


if __name__ == "__main__":
    run_command(main)
