"""What frozen layers make of a split's tokens, computed once and kept on disk.

    runs/trunks/<split>-<layers>-<hash8>/hidden.bin      (tokens, d), in the order of `Trees`
                                         manifest.json   written last

A trunk is a function of base model, frozen layers and data: every run, seed, teacher and epoch that
has these three reads one file, and a deeper trunk begins where a shallower one ends. Sets of other
data that runs are scored on have theirs, under the name of their scores.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from model.base.residual import compute_in
from model.base.trunk import begin_above, frozen_of, hidden_states
from model.base.weights import whole_weights
from model.reward_model import build_reward_model
from src.batches.collate import TreeCollator
from src.batches.packing import scoring_batches, scoring_budget
from src.batches.trees import Trees, trees_of
from src.common import distributed
from src.common.files import read_json, write_json
from src.common.hashing import content_hash
from src.common.lock import is_held, lock, quiet
from src.common.owned import clear
from src.common.precision import RESIDUAL, computing, used
from src.runs.plan import Plan
from src.scoring.trunk_choice import is_read

FORMAT = 2
HIDDEN = "hidden.bin"
MANIFEST = "manifest.json"
WRITTEN = (HIDDEN, MANIFEST, ".*.partial")
STORED = {"fp32": np.float32, "bf16": np.int16}
"""The type on disk, which numpy has to know."""
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What the same bits are in torch."""
TRUNKS = "trunks"


@dataclass(frozen=True)
class Trunk:
    """What hidden states are a function of."""

    base: str
    """Fingerprint of the base model's files."""
    layers: tuple[int, ...]
    """The base model's layers below the first that trains."""
    tokenizer: str
    data_hash: str
    split: str
    dtype: str
    precision: str

    def folder(self, trunks_dir: Path) -> Path:
        digest = content_hash([FORMAT, asdict(self)], 8)
        return trunks_dir / f"{self.split}-{len(self.layers)}-{digest}"

    def shallower(self) -> Iterator["Trunk"]:
        """The trunks that this one begins with, the deepest first."""
        for count in range(len(self.layers) - 1, 0, -1):
            yield Trunk(**{**asdict(self), "layers": self.layers[:count]})


class TrunkCache:
    """A trunk's hidden states on disk, (tokens, width); rows are read when asked for."""

    def __init__(self, folder: Path, below: int, tokens: int, width: int, dtype: str,
                 mode: str = "r"):
        self.below = below
        """Layers that need not run."""
        self.dtype = DTYPE[dtype]
        self.rows = np.memmap(folder / HIDDEN, STORED[dtype], mode, shape=(tokens, width))

    def read(self, token: Tensor) -> Tensor:
        """(B, T) number of each token, -1 for padding -> (B, T, width)."""
        index = token.clamp(min=0).flatten().numpy()
        rows = torch.from_numpy(self.rows[index]).view(self.dtype)
        return rows.view(*token.shape, -1)

    def write(self, token: Tensor, hidden: Tensor) -> None:
        """Store (B, T, width) at the numbers (B, T) of their tokens."""
        real = token >= 0
        rows = hidden[real.to(hidden.device)].to("cpu", self.dtype)
        self.rows[token[real].numpy()] = rows.view(torch.uint8).numpy().view(self.rows.dtype)


def planned_trunk(run: RunConfig, plan: Plan, split: str, data_hash: str = "") -> Trunk | None:
    """The trunk that `run` reads of a split; None where all layers train, the cache is switched
    off, or this process's device computes it sooner.

    Args:
        data_hash: of the pairs; empty for the data that the run was trained with.
    """
    below = frozen_of(run)
    if not below or not plan.experiment.runtime.trunk_cache_gb:
        return None
    base, precision = plan.bases[run.model], used(run.train.precision)
    kept_in = "bf16" if precision == RESIDUAL else run.train.trunk_cache_dtype  # nothing is lost
    token_bytes = trunk_bytes(kept_in, 1, base.hf_config.hidden_size)
    if not is_read(distributed.device().type, base.parameters(run.kept[:below]), token_bytes):
        return None
    return Trunk(run.base, run.kept[:below], run.tokenizer, data_hash or run.data_hash, split,
                 kept_in, precision)


def trunk_bytes(dtype: str, tokens: int, width: int) -> int:
    """What a trunk takes on disk."""
    return tokens * width * np.dtype(STORED[dtype]).itemsize


def trunk_of(run: RunConfig, plan: Plan, split: str, runs_dir: Path,
             pairs: TokenisedSplit | None = None) -> TrunkCache | None:
    """What the layers of `run` below those that train make of a split, computed if they are not
    there yet.

    Every rank calls this. None where all layers train, the cache is switched off, or the disk
    budget does not hold it.

    Args:
        pairs: of the split; None for those of the data that the run was trained with.
    """
    trunks_dir, runtime, base = runs_dir / TRUNKS, plan.experiment.runtime, plan.bases[run.model]
    pairs = plan.split(run, split) if pairs is None else pairs
    trunk = planned_trunk(run, plan, split, pairs.data_hash)
    if trunk is None:
        return None
    below = len(trunk.layers)
    folder, trees = trunk.folder(trunks_dir), trees_of(pairs, share_prompt=True)
    with lock(folder, quiet) if distributed.is_main() else nullcontext():
        facts = distributed.on_main(lambda: _facts(folder))
        if facts is None:
            with whole_weights():
                model = build_reward_model(base.path, run.kept[:below + 1], 0,
                                           pad_token_id=base.tokenizer.pad_token_id,
                                           attention=runtime.attention)
            facts = {"below": below, "tokens": trees.total_tokens,
                     "width": model.config.hidden_size, "dtype": trunk.dtype}
            if not distributed.on_main(lambda: _make_room(folder, facts, runtime)):
                return None
            start = distributed.on_main(lambda: _deepest_found(trunk, trunks_dir))
            compute_in(model, trunk.precision)
            _fill(model, trees, folder, facts, runtime, start)
            distributed.on_main(lambda: write_json(folder / MANIFEST, facts))
        distributed.on_main(lambda: (folder / MANIFEST).touch())  # used now
        cache = TrunkCache(folder, **facts)
        distributed.gather(None)  # all have it open before another launch may remove it
    return cache


def _facts(folder: Path) -> dict | None:
    """What a whole cache holds; None where there is none."""
    return read_json(folder / MANIFEST) if (folder / HIDDEN).is_file() else None


def _deepest_found(trunk: Trunk, trunks_dir: Path) -> tuple[Path, dict] | None:
    for other in trunk.shallower():
        facts = _facts(other.folder(trunks_dir))
        if facts is not None:
            return other.folder(trunks_dir), facts
    return None


def _make_room(folder: Path, facts: dict, runtime: RuntimeConfig) -> bool:
    """An empty file of the right size; whether the budget allows it. What was used longest ago goes
    first."""
    size = trunk_bytes(facts["dtype"], facts["tokens"], facts["width"])
    budget = runtime.trunk_cache_gb * 1e9
    with lock(folder.parent, quiet):  # two launches would remove what the other looks at
        clear(folder, WRITTEN)  # what a killed launch left
        whole, filling = _others(folder.parent)
        if size + filling > budget:
            beside = f" beside what others are filling, {filling / 1e9:.1f} GB" if filling else ""
            print(f"{folder.name}: its hidden states need {size / 1e9:.1f} GB{beside}, above "
                  f"trunk_cache_gb {runtime.trunk_cache_gb:g}: the frozen layers run every time",
                  flush=True)
            return False
        _keep_below(budget - size - filling, whole)
        folder.mkdir(parents=True, exist_ok=True)
        _allocate(folder / HIDDEN, size)
    return True


def _others(trunks_dir: Path) -> tuple[list[Path], int]:
    """Whole trunks, and the bytes of those that are being filled; what killed launches left is
    removed. For the holder of `trunks_dir`: nobody else begins to fill one meanwhile."""
    whole, filling = [], 0
    for path in sorted(trunks_dir.glob(f"*/{HIDDEN}")):
        is_filling = is_held(path.parent)  # before the next look, by which it may be whole
        if _facts(path.parent):
            whole.append(path.parent)
        elif is_filling:
            filling += path.stat().st_size
        else:  # without its lock, whose next holder may be waiting for ours
            clear(path.parent, WRITTEN)
    return whole, filling


def _keep_below(size: float, others: list[Path]) -> None:
    """Remove what was used longest ago until whole trunks take up no more than `size` bytes."""
    used = sum((other / HIDDEN).stat().st_size for other in others)
    for other in sorted(others, key=lambda other: (other / MANIFEST).stat().st_mtime):
        if used > size:
            used -= (other / HIDDEN).stat().st_size
            with lock(other, quiet):  # a launch that is about to open it has it open then
                clear(other, WRITTEN)


def _allocate(path: Path, size: int) -> None:
    """A file that has its place on the disk already: a disk that fills up under a mapped file ends
    the process without a word. OSError that names the file where there is no room."""
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS
                file.truncate(size)
        except OSError as error:
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error


def _fill(model: PreTrainedModel, trees: Trees, folder: Path, facts: dict, runtime: RuntimeConfig,
          start: tuple[Path, dict] | None) -> None:
    """Compute every hidden state once, from those of a shallower trunk where there is one."""
    model = model.to(distributed.device()).eval()
    out = TrunkCache(folder, **facts, mode="r+")
    known = None
    with suppress(FileNotFoundError):  # another launch has made room since it was found
        known = TrunkCache(start[0], **start[1]) if start else None
    if known is not None:
        begin_above(model, known.below)
    collator = TreeCollator(model.config.pad_token_id)
    budget = scoring_budget(runtime, distributed.device().type, packed=True)
    batches = scoring_batches(trees, budget)
    mine = batches[distributed.rank() :: distributed.world_size()]
    quiet_bar = len(mine) < 50 or not distributed.is_main()
    for responses, unit in tqdm(mine, desc=folder.name, unit="batch", disable=quiet_bar):
        batch, _ = collator.lay_out(trees.read(responses, unit), hidden_of=lambda token: token)
        token = batch.pop("hidden")
        hidden = known.read(token).to(distributed.device()) if known else None
        inputs = {name: value.to(distributed.device()) for name, value in batch.items()}
        with computing(model.precision):
            out.write(token, hidden_states(model, facts["below"], inputs, hidden))
    out.rows.flush()
    distributed.barrier()
