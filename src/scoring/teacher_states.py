"""What a finished run gives behind some of its layers, of both responses of every pair of a split.

    runs/hidden_states/<split>-<run>-<layer>-<hash8>.npy      (n, 2, d) float32: chosen, rejected

At the last token of each response, behind the final norm for the last layer. One forward finds all
layers that a student asks for; every student, method and epoch reads the same files, as they lie on
disk. They may be deleted.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.run import RunConfig
from model.inner_states import InnerStates
from src.common import distributed
from src.common.files import atomic_path
from src.common.hashing import content_hash
from src.common.lock import lock, quiet
from src.runs.freed import run_fingerprint
from src.runs.plan import Plan
from src.scoring.hidden_states import STATES
from src.scoring.pairs import load_scorer, read_pairs

FORMAT = 2


def teacher_states(folder: Path, run: RunConfig, plan: Plan, split: str, layers: Sequence[int],
                   runs_dir: Path) -> list[np.ndarray]:
    """(n, 2, d) of each of `layers`, from 0, of the run in `folder`. Every rank calls this.

    Raises:
        UserError: they are not there yet, and the run's weights were freed.
    """
    pairs = plan.split(run, split)
    fingerprint = distributed.on_main(lambda: run_fingerprint(folder))
    digest = content_hash([FORMAT, run.identity, fingerprint, split, pairs.order], 8)
    paths = {layer: runs_dir / STATES / f"{split}-{run.name}-{layer}-{digest}.npy"
             for layer in layers}
    # One lock, whichever layers are asked for: each launch may write any of them.
    whole = runs_dir / STATES / f"{split}-{run.name}-{digest}"
    with lock(whole, quiet) if distributed.is_main() else nullcontext():
        missing = distributed.on_main(lambda: [
            layer for layer, path in paths.items() if _stored(path, len(pairs)) is None])
        if missing:
            found = _computed(folder, run, plan, split, missing)
            distributed.on_main(lambda: [_write(paths[layer], states) for layer, states in zip(
                missing, found, strict=True)])
    return [_stored(paths[layer], len(pairs)) for layer in layers]


def _computed(folder: Path, run: RunConfig, plan: Plan, split: str,
              layers: Sequence[int]) -> list[np.ndarray]:
    runtime = plan.experiment.runtime
    model = load_scorer(folder, runtime, run)
    inner = InnerStates(model, layers)

    def read(inputs: dict[str, Tensor]) -> Tensor:
        _, final = model(**inputs, with_states=True)
        states = inner.read(inputs["last_index"], final)
        return torch.stack(states, dim=2).float()  # (B, R, L, d)

    states = read_pairs(model, plan.split(run, split), runtime,
                        f"{folder.name}: states of {split}", read)
    return [np.ascontiguousarray(states[:, :, place]) for place in range(len(layers))]


def _stored(path: Path, pairs: int) -> np.ndarray | None:
    """The states of so many pairs as they lie on disk; None where there are none, or not whole."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 3 and len(found) == pairs else None


def _write(path: Path, states: np.ndarray) -> None:
    # Its own lock, which is free, removes what a killed launch had half-written of it.
    with lock(path, quiet), atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, states)
