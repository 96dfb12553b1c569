"""A merge of two 1B-shaped checkpoints of random bf16 weights: ours against mergekit's linear one.

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5
    python -m speed.merge.average --mergekit /tmp/mergekit/bin/mergekit-yaml --json FILE

Each merges the same two into fp32 by the same recipe, in a process of its own: ours by
`python -m model.base.average`, mergekit by the mergekit.yaml that ours wrote. Seconds, processor
seconds and peak memory are the process's, its start and imports included. Every tensor of mergekit
is compared with the average of the two in memory; what we write is that to the last bit, which
tests/model/test_average.py says.

Asks for 10 GB of disk: two models of 2.5, and one average of 5 at a time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from configs.averaging import load_recipe
from model.base.average.mix import mixed
from model.base.average.stream import pieces, places
from src.common.arguments import Parser
from src.common.console import table_lines
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT, write_json

TOLERANCE = 1e-6
POLL_SECONDS = 0.02
SHAPE = {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
         "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
"""Of Llama-3.2-1B, with 16 layers."""
RECIPE = "part_wise"


def write_checkpoint(folder: Path, layers: int, seed: int) -> None:
    """A language model of random bf16 weights, a file a layer; large tensors repeat a million
    numbers, which no merge can tell."""
    config = LlamaConfig(num_hidden_layers=layers, dtype="bfloat16", **SHAPE)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).named_parameters()}
    numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed)) * 0.02
    shards: dict[str, dict[str, torch.Tensor]] = {}
    weight_map = {}
    for name, shape in shapes.items():
        shard = f"model-{name.split('.')[2] if '.layers.' in name else 'rest'}.safetensors"
        weight_map[name] = shard
        repeats = -(-shape.numel() // len(numbers))
        shards.setdefault(shard, {})[name] = numbers.to(torch.bfloat16).repeat(
            repeats)[:shape.numel()].view(shape)
    for shard, tensors in shards.items():
        save_file(tensors, folder / shard, metadata={"format": "pt"})
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def measured(words: list[str]) -> dict[str, float]:
    """Seconds, processor seconds and peak MiB of a command; UserError with its last line where it
    fails."""
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, cwd=REPO_ROOT, env=environment, stdout=said, stderr=said)
        peak, ended = 0, 0
        while not ended:  # what wait4 tells counts the memory of who started it
            peak = max(peak, _peak_kib(process.pid))
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            time.sleep(POLL_SECONDS)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise UserError(f"{words[0]} ended with {process.returncode}: {lines[-1] if lines else ''}")
    return {"seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mib": peak >> 10}


def _peak_kib(process: int) -> int:
    """Of the memory of a process so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def largest_difference(base: Path, tuned: Path, merged: Path, layers: int) -> float:
    """Between mergekit's tensors and the averages of the two models' by the recipe."""
    of_base, of_tuned, found = places(base), places(tuned), places(merged)
    weights = load_recipe(RECIPE).weights(of_tuned, layers)
    if found.keys() != of_tuned.keys():
        raise UserError(f"{merged}: other tensors than ours: {set(found) ^ set(of_tuned)}")
    return max((mixed(first, second, weights[name]) - other.float()).abs().max().item()
               for name in of_tuned for first, second, other in zip(
                   pieces(of_base[name]), pieces(of_tuned[name]), pieces(found[name]),
                   strict=True))


def compare(folder: Path, layers: int, mergekit: str) -> dict[str, object]:
    """Both merges, one after the other, in `folder`."""
    models = base, tuned = folder / "base", folder / "tuned"
    for seed, model in enumerate(models):
        write_checkpoint(model, layers, seed)
    ours = measured([sys.executable, "-m", "model.base.average", "--config", RECIPE, "--base",
                     str(base), "--tuned", str(tuned), "--out", str(folder / "ours")])
    shutil.move(folder / "ours" / "mergekit.yaml", folder / "mergekit.yaml")
    shutil.rmtree(folder / "ours")
    theirs = measured([mergekit, str(folder / "mergekit.yaml"), str(folder / "theirs"),
                       "--no-copy-tokenizer"])
    difference = largest_difference(base, tuned, folder / "theirs", layers)
    if difference > TOLERANCE:
        raise UserError(f"the merges differ by {difference:.1e}, more than {TOLERANCE}")
    parameters = sum(place.elements for place in places(base).values())
    return {"parameters": parameters, "recipe": RECIPE, "largest_difference": difference,
            "rows": [{"system": "ours", **ours}, {"system": "mergekit 0.1.5, linear", **theirs}]}


def main() -> None:
    parser = Parser(prog="python -m speed.merge.average", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", default="mergekit-yaml", help="the program")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where there is disk (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    if shutil.which(args.mergekit) is None:
        raise UserError(f"--mergekit {args.mergekit}: no such program: install mergekit==0.1.5 in "
                        "an environment of its own, see --help")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = compare(Path(folder), args.layers, args.mergekit)
    rows = [[str(value) for value in row.values()] for row in found["rows"]]
    print(*table_lines(list(found["rows"][0]), rows), sep="\n")
    print(f"{found['parameters']:,} parameters; tensors differ by {found['largest_difference']:.1e}"
          " at most")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
