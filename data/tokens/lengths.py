"""Which pairs go once their tokens are known: judged over all tokenizers of a data set at once.

A pair goes for every tokenizer: models with different tokenizers are trained and scored on the same
pairs. It goes where one of them finds it too long (pairs, never one side), where a chat template
refuses it or makes its two sides one, and where its prompt has the same tokens as one of a split
that comes first: as the model sees them, the splits would not be disjoint. Completes the manifest.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import DataConfig
from data.manifest import LEFT_OUT, data_hash, left_out_ids, write_manifest
from data.pairs.pair_files import digest_pairs
from data.records import SPLITS
from data.tokens.tokenised import TokenisedSplit
from src.common.errors import UserError

_FIRST = ("test", "val", "train_2", "train_1")
"""Which split keeps a prompt that several have."""


def judge(config: DataConfig, output_dir: Path, manifest: dict[str, Any]) -> None:
    """Find the pairs that go, complete the manifest and write it.

    Raises:
        UserError: a long pair although truncation is `error`; a chat template that refuses too
            many; a split with nothing left.
    """
    found = {reason: left_out_ids(manifest, reason) for reason in LEFT_OUT}
    total = 0
    for tokens in _by_tokenizer(output_dir, manifest):
        total = sum(map(len, tokens.values()))
        for split in tokens.values():
            lengths = split.lengths()
            row_length = lengths[:, 0] + lengths[:, 1:].max(axis=1)
            found["over_length"].update(split.pair_ids[row_length > config.max_length].tolist())
            found["refused"].update(split.pair_ids[lengths.sum(axis=1) == 0].tolist())
            found["identical"].update(split.pair_ids[_same_sides(split, lengths)].tolist())
    _check(config, found, total, manifest)
    unwanted = set().union(*found.values())
    for tokens in _by_tokenizer(output_dir, manifest):
        leaked = _leaked(tokens, unwanted)
        found["leaked"] |= leaked
        unwanted |= leaked
    counted = set()
    for reason, ids in found.items():  # each pair once: by the first of its reasons
        manifest[reason] = {"count": len(ids - counted), "pair_ids": sorted(ids - counted)}
        counted |= ids
    splits = {}
    for split in SPLITS:
        path = output_dir / "pairs" / f"{split}.parquet"
        if path.exists():
            splits[split] = digest_pairs(path, unwanted).as_dict()
    emptied = [name for name, entry in splits.items() if not entry["pairs"]]
    if emptied:
        raise UserError(f"data/{config.name}: no pair of {', '.join(emptied)} is left: "
                        f"{_reasons(manifest)}; max_length is {config.max_length}: what is "
                        "too long fits a larger max_length, or truncation left, in the data's "
                        "config; what a chat template refuses or makes one needs another template")
    manifest["splits"] = splits
    manifest["data_hash"] = data_hash(splits, config.max_length, config.truncation)
    write_manifest(output_dir, manifest)


def _by_tokenizer(output_dir: Path, manifest: dict[str, Any]) -> Iterator[
        dict[str, TokenisedSplit]]:
    """Split -> its tokens, under one tokenizer after the other."""
    for key, entry in manifest["tokenizers"].items():
        yield {split: TokenisedSplit([output_dir / "tokens" / key / split / name
                                      for name, _ in parts])
               for split, parts in entry["parts"].items()}


def _same_sides(split: TokenisedSplit, lengths: np.ndarray) -> np.ndarray:
    """Rows whose two answers have the same tokens. Of a pointwise record one side has none."""
    rows = np.flatnonzero((lengths[:, 1] == lengths[:, 2]) & (lengths[:, 1] > 0))
    chosen, rejected = (split.ids(rows, np.full(len(rows), column)) for column in (1, 2))
    return rows[[np.array_equal(*sides) for sides in zip(chosen, rejected, strict=True)]]


def _leaked(tokens: dict[str, TokenisedSplit], unwanted: set[str]) -> set[str]:
    """Pairs whose prompt has the tokens of a prompt in a split that comes first."""
    leaked, seen = set(), np.empty(0, np.uint64)
    for name in _FIRST:
        if name not in tokens:
            continue
        split = tokens[name]
        rows = np.flatnonzero(~np.isin(split.pair_ids, list(unwanted)))
        prompts = np.fromiter(map(_digest, split.ids(rows, np.zeros(len(rows), int))), np.uint64,
                              len(rows))
        again = np.isin(prompts, seen)
        leaked.update(split.pair_ids[rows[again]].tolist())
        seen = np.union1d(seen, prompts[~again])
    return leaked


def _digest(ids: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "big")


def _reasons(manifest: dict[str, Any]) -> str:
    return ", ".join(f"{manifest[reason]['count']:,} {meaning}" for reason, meaning
                     in LEFT_OUT.items() if manifest[reason]["count"])


def _check(config: DataConfig, found: dict[str, set[str]], total: int,
           manifest: dict[str, Any]) -> None:
    names = ", ".join(entry["name"] for entry in manifest["tokenizers"].values())
    too_long, refused = found["over_length"] - found["refused"], found["refused"]
    if too_long and config.truncation == "error":
        raise UserError(f"data/{config.name}: {len(too_long)} of {total} pairs are longer than "
                        f"max_length {config.max_length} tokens (first: pair {min(too_long)}) and "
                        "truncation is error: raise max_length, or set truncation to drop or "
                        "left, in the data's config (data/preprocess.py: --max_length, "
                        "--truncation)")
    if total and len(refused) / total > config.max_bad_frac:
        raise UserError(f"data/{config.name}: the chat template of {names} refuses {len(refused)} "
                        f"of {total} pairs (first: pair {min(refused)}), for example for a system "
                        "message or two turns of one role in a row; above max_bad_frac "
                        f"{config.max_bad_frac}: name another chat_template in the model's config")


def length_quantiles(lengths: np.ndarray) -> list[int]:
    """Tokens of prompt plus the longer answer at quantiles 0.05, 0.5, 0.95 and 1.

    Args:
        lengths: (n, 3) tokens of prompt, chosen, rejected.
    """
    rows = lengths[:, 0] + lengths[:, 1:].max(axis=1)
    return np.quantile(rows, [0.05, 0.5, 0.95, 1.0], method="nearest").astype(int).tolist()
