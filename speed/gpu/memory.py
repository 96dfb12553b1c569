"""Memory of a training: what the formula says against the tensors that live at once.

    python -m speed.gpu.memory                          # small models of five families, on a CPU
    python -m speed.gpu.memory --cases llama gpt2
    python -m speed.gpu.memory --cases llama_3_2_1b     # on a GPU: what torch allocated at most

Two optimiser steps of several micro batches each, by the trainer itself. On a CPU every storage is
counted from the operation that makes it until nothing refers to it; on a GPU the allocator's peak
is read. The formula is that of `--dry-run`, without what it adds for a device's context.
"""

import argparse
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from configs.schema import LoraConfig, RuntimeConfig
from model.base.adapters import add_adapters
from model.base.memory import Forward, size_of, training_parts
from model.base.trunk import begin_above
from model.reward_model import build_reward_model
from speed import options
from speed.gpu.live import LiveBytes
from speed.gpu.published import PUBLISHED, rotary
from speed.mixes import MIXES, draw, write_split
from speed.ours import run_config
from speed.peers.peer import Task
from src.batches.collate import PairDataset
from src.common.arguments import Parser
from src.common.distributed import device
from src.common.errors import run_command
from src.training.arguments import training_arguments
from src.training.trainer import build_trainer

NEVER = 10**9
BATCH_PAIRS = 16


class Case(NamedTuple):
    """A training whose memory is measured."""

    config: dict
    """Of the model, as AutoConfig.for_model takes it."""
    precision: str = "fp32"
    checkpointing: bool = False
    lora: LoraConfig | None = None
    tokens: int = 1024
    pairs: int = 2 * BATCH_PAIRS


small = functools.partial(rotary, positions=2048)
LLAMA = small("llama", 64, 256, 6, 4, 2, 512)
CASES = {
    "llama": Case(LLAMA),
    "wide": Case(small("llama", 128, 256, 4, 4, 4, 2048), "bf16"),
    "qwen3": Case(small("qwen3", 96, 288, 5, 6, 3, 1024, 32)),
    "gemma3": Case(small("gemma3_text", 64, 256, 4, 4, 1, 4096, 32, sliding_window=128), "bf16"),
    "gpt2": Case({"model_type": "gpt2", "vocab_size": 1024, "n_embd": 64, "n_layer": 5,
                  "n_head": 4, "n_positions": 2048}),
    "residual": Case(LLAMA, "bf16_residual"),
    "checkpointing": Case(LLAMA, checkpointing=True),
    "adapters": Case(LLAMA, lora=LoraConfig(rank=4)),
    "llama_3_2_1b": Case(PUBLISHED["llama_3_2_1b"], "bf16", tokens=8192, pairs=512),
}
FAMILIES = ("llama", "wide", "qwen3", "gemma3", "gpt2")


class Found(NamedTuple):
    """Of one case, in bytes."""

    tokens: int
    """Of the biggest micro batch."""
    peak: int
    formula: float


def measure(case: Case) -> Found:
    """Train it, and reckon it."""
    config = AutoConfig.for_model(**case.config)
    kept, hardware = tuple(range(config.num_hidden_layers)), device().type
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
        rows = draw(MIXES["multi_turn"], case.pairs, 0, config.vocab_size)
        pad = config.vocab_size - 1
        run = run_config(Task(folder / "base", rows, 1, BATCH_PAIRS, pad, 0))
        train = dataclasses.replace(run.train, precision=case.precision, lora=case.lora)
        run = dataclasses.replace(run, train=train, kept=kept)
        runtime = RuntimeConfig(micro_batch_tokens=case.tokens, save_steps=NEVER,
                                gradient_checkpointing=case.checkpointing, logging_steps=NEVER,
                                report_to="none")
        split = write_split(rows, folder / "pairs.arrow")
        trainer = build_trainer(
            run, runtime, lambda: _model(case, folder / "base", kept, pad),
            training_arguments(run, runtime, folder / "run", len(split)),
            PairDataset(split, np.ones(len(split))), None, pad)
        trainer.args.save_strategy = "no"
        tokens, peak = _peak(trainer)
        trainer.release()
    parts = training_parts(size_of(config, kept, train), "gpu" if hardware == "cuda" else "cpu", 1,
                           case.precision, Forward(tokens, case.checkpointing))
    return Found(tokens, peak, (parts.total - parts.other) * 1e9)


def _model(case: Case, base: Path, kept: tuple[int, ...], pad: int) -> PreTrainedModel:
    model = build_reward_model(base, kept, 0, pad_token_id=pad)
    if case.lora is None:
        return model
    begin_above(model, 0)
    return add_adapters(model, case.lora, 0, 0)


def _peak(trainer) -> tuple[int, int]:
    """Train to the end: (tokens of the biggest micro batch, most bytes of tensors at once)."""
    sizes: list[int] = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        trainer.train()
        return max(sizes), torch.cuda.max_memory_allocated()
    with LiveBytes([*trainer.model.parameters(), *trainer.model.buffers()]) as live:
        trainer.train()
    return max(sizes), live.peak


def table(found: dict[str, Found]) -> list[str]:
    """Markdown: a line a case."""
    lines = ["| model | tokens | measured MB | formula MB | formula / measured |",
             "|---|--:|--:|--:|--:|"]
    for name, each in found.items():
        lines.append(f"| {name} | {each.tokens:,} | {each.peak / 1e6:,.1f} | "
                     f"{each.formula / 1e6:,.1f} | {each.formula / each.peak:.3f} |")
    return lines


def main() -> None:
    parser = Parser(prog="python -m speed.gpu.memory", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[:-1],
                        help="default: all but the last, which needs a GPU")
    args = parser.parse_args()
    options.prepare(argparse.Namespace(layers=[], threads=1, seed=0))
    print("\n".join(table({name: measure(CASES[name]) for name in args.cases})))


if __name__ == "__main__":
    run_command(main)
