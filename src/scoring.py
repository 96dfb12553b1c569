"""Checkpoint + pairs -> reward_chosen and reward_rejected per pair_id, kept beside the checkpoint.

    <run folder>/scores/<split>.parquet      pair_id, reward_chosen, reward_rejected
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.schema import RuntimeConfig
from data.tokenised import TokenisedSplit
from model.reward_model import load_reward_model
from src import distributed
from src.batching import PairCollator, scoring_batches
from src.runs import read_table, write_table


def device() -> torch.device:
    """This process's accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def score(model: PreTrainedModel, split: TokenisedSplit, runtime: RuntimeConfig,
          title: str) -> np.ndarray:
    """Rewards of every pair, (n, 2) float32: chosen, rejected. On every rank, shared between ranks.

    bf16 compute on CUDA (the head stays fp32), fp32 on CPU.
    """
    model = model.to(device()).eval()
    collator = PairCollator(model.config.pad_token_id, runtime.share_prompt)
    longest_first = np.argsort(-split.lengths().sum(axis=1), kind="stable")
    mine = longest_first[distributed.rank() :: distributed.world_size()]
    batches = scoring_batches(split, mine, runtime.score_batch_pairs, collator)
    rewards = np.empty((len(mine), 2), np.float32)
    total = -(-len(mine) // runtime.score_batch_pairs)
    quiet = total < 200 or not distributed.is_main()
    start, rows = 0, []
    with torch.inference_mode(), torch.autocast(
            device().type, torch.bfloat16, enabled=device().type == "cuda"):
        for indices, batch in tqdm(batches, total=total, desc=title, unit="batch", disable=quiet):
            inputs = {name: value.to(device()) for name, value in batch.items()
                      if name not in ("labels", "row")}
            rewards[start : start + len(indices)] = model(**inputs).view(-1, 2).cpu().numpy()
            rows.append(indices)
            start += len(indices)
    return _merge(np.concatenate(rows) if rows else mine, rewards, len(split))


def _merge(rows: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
    """Every rank's rewards in the order of the split."""
    merged = np.full((n, 2), np.nan, np.float32)
    for other_rows, other_rewards in distributed.gather((rows, rewards)):
        merged[other_rows] = other_rewards
    if np.isnan(merged).any():
        bad = int(np.isnan(merged).any(axis=1).sum())
        raise FloatingPointError(f"{bad} of {n} pairs have no finite reward: the model's weights "
                                 "are broken, train it again with a lower learning rate")
    return merged


def scores_of(folder: Path, identity: str, split: TokenisedSplit, split_name: str,
              runtime: RuntimeConfig) -> pd.DataFrame:
    """`pair_id, reward_chosen, reward_rejected` of a finished run, scored at most once.

    A file made from other weights, other data, or cut short, is made again.
    """
    path = folder / "scores" / f"{split_name}.parquet"
    inputs = {"run": identity, "data": split.data_hash, "split": split_name}
    table = distributed.on_main(lambda: read_table(path, inputs))
    if table is None:
        rewards = score(load_reward_model(folder), split, runtime,
                        f"{folder.name} on {split_name}")
        table = pd.DataFrame({"pair_id": split.pair_ids, "reward_chosen": rewards[:, 0],
                              "reward_rejected": rewards[:, 1]})
        distributed.on_main(lambda: write_table(path, table, inputs))
    return table
