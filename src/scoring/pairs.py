"""Checkpoint + pairs -> reward_chosen and reward_rejected per pair_id, kept beside the checkpoint.

    <run folder>/scores/<split>.parquet      pair_id, reward_chosen, reward_rejected

    python -m src.scoring --help             rewards of any file of prompts and responses
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from model.base.residual import compute_in
from model.base.trunk import begin_above
from model.reward_model import load_reward_model
from src.batches.collate import TreeCollator
from src.batches.packing import scoring_batches, scoring_budget
from src.batches.trees import Trees, trees_of
from src.common import distributed
from src.common.errors import UserError
from src.common.lock import is_marked, lock, quiet
from src.common.memory import let_go_of_models
from src.common.precision import computing, used, weights_to_score
from src.common.table_files import read_table, write_table
from src.measures.metrics import margins_of
from src.runs.freed import is_freed, require_weights, run_fingerprint
from src.scoring.trunk_cache import TrunkCache


def margins(scores: pd.DataFrame) -> np.ndarray:
    """(n,) float64: reward_chosen - reward_rejected of a table of scores."""
    return margins_of(scores[["reward_chosen", "reward_rejected"]].to_numpy())


def load_scorer(folder: Path, runtime: RuntimeConfig, run: RunConfig | None) -> PreTrainedModel:
    """A saved reward model to score with, in the precision that it was trained in.

    Models that are used no more go first: a process that scores many holds one at a time.

    Args:
        run: that made it; None for a model from elsewhere, which computes as `auto` does.
    Raises:
        UserError: its weights were freed.
    """
    require_weights(folder)
    let_go_of_models()
    precision = precision_of(run)
    model = load_reward_model(folder, dtype=weights_to_score(precision),
                              attention=runtime.attention,
                              last_layer_shortcut=runtime.last_layer_shortcut)
    compute_in(model, precision)
    return model


def precision_of(run: RunConfig | None) -> str:
    """What a run's model is scored in; without a run, a model from elsewhere."""
    return used(run.train.precision if run else "auto")


def score(model: PreTrainedModel, split: TokenisedSplit, runtime: RuntimeConfig, title: str,
          cache: TrunkCache | None = None) -> np.ndarray:
    """Rewards of every pair, (n, 2) float32: chosen, rejected. On every rank, shared between ranks.

    Each distinct response to a prompt is scored once, in the model's `precision`.

    Args:
        cache: what the model's frozen layers make of this split; they are not run then.
    """
    return read_pairs(model, split, runtime, title, lambda inputs: model(**inputs), cache)


def read_pairs(model: PreTrainedModel, split: TokenisedSplit, runtime: RuntimeConfig, title: str,
               read: Callable[[dict[str, Tensor]], Tensor],
               cache: TrunkCache | None = None) -> np.ndarray:
    """What `read` finds of both responses of every pair, (n, 2, ...) float32; see `score`.

    Args:
        read: the inputs of a forward -> what it finds of each response in each row, (B, R, ...).
    """
    device = distributed.device()
    model = model.to(device).eval()
    if cache is not None:
        begin_above(model, cache.below)
    hidden_of = cache.read if cache is not None else None
    trees = trees_of(split, runtime.share_prompt)
    collator = TreeCollator(model.config.pad_token_id, runtime.pack)
    batches = scoring_batches(trees, scoring_budget(runtime, device.type, runtime.pack))
    mine = batches[distributed.rank() :: distributed.world_size()]
    quiet = len(mine) < 200 or not distributed.is_main()
    parts = [torch.zeros(0)]
    with torch.inference_mode(), computing(model.precision):
        for responses, unit in tqdm(mine, desc=title, unit="batch", disable=quiet):
            batch, place = collator.lay_out(trees.read(responses, unit), hidden_of)
            found = read({name: value.to(device) for name, value in batch.items()}).flatten(0, 1)
            parts.append(found[torch.from_numpy(place).to(found.device)])
    numbers = np.concatenate([np.zeros(0, np.int64), *(responses for responses, _ in mine)])
    return _merge(trees, numbers, torch.cat([part.cpu() for part in parts]).numpy())


def _merge(trees: Trees, numbers: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(n, 2, ...): every pair's values, from all ranks' values of the responses `numbers`."""
    parts = [part for part in distributed.gather((numbers, found)) if len(part[0])]
    shape = parts[0][1].shape[1:] if parts else ()
    merged = np.full((len(trees.response_tokens), *shape), np.nan, np.float32)
    for other_numbers, other_found in parts:
        merged[other_numbers] = other_found
    pairs = np.stack([merged[trees.chosen], merged[trees.rejected]], axis=1)
    bad = int((~np.isfinite(pairs)).reshape(len(pairs), -1).any(axis=1).sum())
    if bad:
        raise UserError(f"{bad} of {len(pairs)} pairs have no finite reward: the model's "
                                 "weights are broken, train it again with a lower learning rate")
    return pairs


def scores_of(folder: Path, run: RunConfig, split: TokenisedSplit, split_name: str,
              runtime: RuntimeConfig,
              trunk: Callable[[], TrunkCache | None] = lambda: None) -> pd.DataFrame:
    """`pair_id, reward_chosen, reward_rejected` of a finished run, scored at most once.

    A file made from other weights, other data, or cut short, is made again. `trunk` is asked then.
    So is one from before files held the weights' fingerprint: it may be of weights since replaced.
    """
    path = _path(folder, split_name)
    found = distributed.on_main(lambda: None if is_marked(path) else stored_scores(
        folder, run, split_name, split.data_hash))
    if found is not None:
        return found
    with lock(path, quiet) if distributed.is_main() else nullcontext():
        table = distributed.on_main(lambda: stored_scores(folder, run, split_name,
                                                          split.data_hash))
        if table is None:  # nor has another launch made it in the meantime
            model = load_scorer(folder, runtime, run)
            rewards = score(model, split, runtime, f"{folder.name} on {split_name}", trunk())
            table = pd.DataFrame({"pair_id": split.pair_ids, "reward_chosen": rewards[:, 0],
                                  "reward_rejected": rewards[:, 1]})
            distributed.on_main(lambda: write_table(
                path, table, made_from("run", folder, run, split_name, split.data_hash)))
    return table


def stored_scores(folder: Path, run: RunConfig, split_name: str,
                  data_hash: str = "") -> pd.DataFrame | None:
    """What a finished run was scored to on a split; None where it was not, or with other weights
    or on other data.

    Args:
        data_hash: of the pairs; empty for the data that the run was trained with.
    """
    return stored(_path(folder, split_name), "run", folder, run, split_name, data_hash)


def stored(path: Path, role: str, folder: Path, run: RunConfig, split_name: str,
           data_hash: str) -> pd.DataFrame | None:
    """The table at `path` if it was made by the weights of the run in `folder` from these pairs."""
    if not path.is_file():  # the weights may be gigabytes, and be read for nothing
        return None
    return read_table(path, made_from(role, folder, run, split_name, data_hash))


def made_from(role: str, folder: Path, run: RunConfig, split_name: str,
              data_hash: str) -> dict[str, str]:
    """What a table says that it was made from; `role`: what it calls the run."""
    return {role: run.identity, "data": data_hash or run.data_hash, "split": split_name,
            "weights": run_fingerprint(folder)}


def require_scorable(folder: Path, run: RunConfig, split: TokenisedSplit, split_name: str) -> None:
    """Raise UserError where a run was not scored on a split and its weights were freed."""
    if is_freed(folder) and stored_scores(folder, run, split_name, split.data_hash) is None:
        require_weights(folder)


def _path(folder: Path, split_name: str) -> Path:
    return folder / "scores" / f"{split_name}.parquet"
