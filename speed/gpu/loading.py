"""Memory of this machine while several processes load a base model for their GPUs.

    python -m speed.gpu.loading                     # 2 and 4 processes; two minutes
    python -m speed.gpu.loading --processes 8 --layers 4

Each process builds the reward model as a training does, for a device. The device `meta` stands for
its GPU: like a GPU's, its memory is not the machine's. Counted is what all processes together take
more than before, pages that they share once (`Pss` of Linux), at the worst moment; in copies of the
checkpoint's file. The second row of each number is the same for the CPU, where each process has
to have weights of its own.
"""

import argparse
import gc
import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from src.common.arguments import Parser
from src.common.errors import UserError, run_command

HIDDEN, INTERMEDIATE, VOCAB = 512, 2048, 8192
SAMPLE_SECONDS = 0.005


def base_model(folder: Path, layers: int) -> int:
    """A random Llama in bf16 in `folder`; the bytes of its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, vocab_size=VOCAB,
        max_position_embeddings=2048, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def copies(base: Path, layers: int, processes: int, device: str) -> float:
    """What they take at most, over the bytes of the base's weights."""
    context = multiprocessing.get_context("fork")  # libraries are loaded once, and shared
    begin, end = context.Barrier(processes + 1), context.Barrier(processes + 1)
    workers = [context.Process(target=_load, args=(base, layers, device, begin, end))
               for _ in range(processes)]
    for worker in workers:
        worker.start()
    while begin.n_waiting < processes:
        time.sleep(SAMPLE_SECONDS)
    before = _together(workers)
    begin.wait()
    most = before
    while any(worker.is_alive() for worker in workers) and end.n_waiting < processes:
        most = max(most, _together(workers))
        time.sleep(SAMPLE_SECONDS)
    most = max(most, _together(workers))
    end.wait()
    for worker in workers:
        worker.join()
    return (most - before) / (base / "model.safetensors").stat().st_size


def _load(base: Path, layers: int, device: str, begin: Barrier, end: Barrier) -> None:
    import torch

    from model import reward_model

    def build(kept: int) -> None:
        reward_model.build_reward_model(base, tuple(range(kept)), 0, pad_token_id=0,
                                        device=torch.device(device))

    torch.set_num_threads(1)
    build(1)  # what a first model brings along is not weights
    gc.collect()
    begin.wait()
    # Wait for the others where both the model and what was read are there.
    reward_model.check_forward = lambda *given: end.wait()
    build(layers)


def _together(workers: list[multiprocessing.Process]) -> int:
    """Bytes of all processes, a page that several have counted once."""
    total = 0
    for worker in workers:
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
    return total


def main() -> None:
    parser = Parser(prog="python -m speed.gpu.loading", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], metavar="N")
    parser.add_argument("--layers", type=int, default=16, metavar="N",
                        help="of the base, 8 MB each (default: %(default)s)")
    args = parser.parse_args()
    if min(*args.processes, args.layers) < 1:
        raise UserError("--processes and --layers: each must be above 0")
    if not Path("/proc/self/smaps_rollup").is_file():
        raise UserError("memory that processes share is told by Linux alone: run this there")
    with tempfile.TemporaryDirectory() as name:
        size = base_model(Path(name), args.layers)
        print(f"a base of {size / 1e6:.0f} MB\n\n| processes | weights go to | copies at most |\n"
              "|--:|---|--:|")
        for processes in args.processes:
            for device, text in (("meta", "a device"), ("cpu", "the CPU, in fp32")):
                found = copies(Path(name), args.layers, processes, device)
                print(f"| {processes} | {text} | {found:.2f} |", flush=True)


if __name__ == "__main__":
    run_command(main)
