"""What a base model makes of a split's pairs before anything is trained: one forward for all runs.

    runs/hidden_states/<split>-<layers>-<hash8>.npy      (n, d) float32, in the order of the split

Of each pair: the hidden state at the last token of the chosen response minus that of the rejected
one, after the final norm, where a reward is read. It is a function of base model, kept layers and
data: every method, seed and teacher reads one file. Where lower layers do not train, it begins with
what they make of the split, which is on disk for training anyway. Where that is in bf16, the name
tells of how many layers; where the disk has no room for it, the states are exact.
"""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from configs.run import RunConfig
from data.tokens.tokenised import TokenisedSplit
from model.base.residual import compute_in
from model.base.weights import whole_weights
from model.reward_model import build_reward_model
from src.common import distributed
from src.common.files import atomic_path
from src.common.hashing import content_hash
from src.common.lock import lock, quiet
from src.common.precision import weights_to_score
from src.runs.plan import Plan
from src.scoring.pairs import precision_of, read_pairs
from src.scoring.trunk_cache import TrunkCache, planned_trunk, trunk_of

FORMAT = 2
STATES = "hidden_states"


def differences(run: RunConfig, plan: Plan, split: str, runs_dir: Path) -> np.ndarray:
    """(n, d) float32: state of chosen minus state of rejected, of each pair of a split, by the base
    model of `run` cut to the layers that it keeps; computed where they are not there yet.

    Every rank calls this; they share the forwards and get the same numbers.
    """
    path, pairs = states_path(run, plan, split, runs_dir), plan.split(run, split)
    with lock(path, quiet) if distributed.is_main() else nullcontext():
        found = distributed.on_main(lambda: _stored(path, len(pairs)))
        if found is None:
            found = _computed(run, plan, pairs, path.stem, trunk_of(run, plan, split, runs_dir))
            distributed.on_main(lambda: _write(path, found))
    return found


def states_path(run: RunConfig, plan: Plan, split: str, runs_dir: Path) -> Path:
    """Where the states of a split are kept: its name has all that they are a function of."""
    trunk = planned_trunk(run, plan, split) if run.train.trunk_cache_dtype == "bf16" else None
    digest = content_hash([FORMAT, run.base, run.kept, run.tokenizer, run.data_hash, split,
                           plan.split(run, split).order, precision_of(run),
                           len(trunk.layers) if trunk else 0], 8)
    return runs_dir / STATES / f"{split}-{len(run.kept)}-{digest}.npy"


def last_states(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """(B, R, d) float32 on the CPU: what the head of a reward model reads of each response."""
    return model(**inputs, with_states=True)[1].float().cpu()


def _computed(run: RunConfig, plan: Plan, pairs: TokenisedSplit, title: str,
              trunk: TrunkCache | None) -> np.ndarray:
    base, runtime, precision = plan.bases[run.model], plan.experiment.runtime, precision_of(run)
    with whole_weights():
        model = build_reward_model(
            base.path, run.kept, 0, pad_token_id=base.tokenizer.pad_token_id,
            dtype=weights_to_score(precision), attention=runtime.attention,
            last_layer_shortcut=runtime.last_layer_shortcut)
    compute_in(model, precision)
    states = read_pairs(model, pairs, runtime, title, lambda inputs: last_states(model, inputs),
                        trunk)
    return states[:, 0] - states[:, 1]


def _stored(path: Path, pairs: int) -> np.ndarray | None:
    """The states of so many pairs; None where there are none, or not whole ones."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and len(found) == pairs else None


def _write(path: Path, states: np.ndarray) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, states)
