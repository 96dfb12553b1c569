"""The manifest of a prepared data set: what it was made from, what it holds, what was dropped.

    data/processed/<name>/manifest.json      written after the files that it describes

A folder without a manifest that fits it is unfinished work. Knows no tokenizer and no text.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from configs.schema import DataConfig
from data.records import SPLITS
from src.common.errors import UserError
from src.common.files import atomic_path
from src.common.hashing import content_hash

FORMAT = 2
CONTENT_FORMAT = 1
"""Raise it when the same raw rows come to mean other pairs: runs on older ones are not reused."""
MANIFEST = "manifest.json"
NO_RESULT_KEYS = ("name", "source", "path", "files", "expected", "scorer", "part_files",
                  "max_bad_frac")
"""The config's keys that cannot change what the splits contain: every other one can, a new one too.
Files are compared by their bytes."""
LEFT_OUT = {"over_length": "longer than max_length under some tokenizer",
            "refused": "refused by a chat template",
            "identical": "identical after the chat template",
            "leaked": "prompt also in another split, as a tokenizer reads it"}
"""What the manifest calls the pairs that go once their tokens are known, and what that means."""


class SplitDigest:
    """Counts of a split, and a hash of its pairs and their preferences that ignores their order."""

    def __init__(self) -> None:
        self.pairs = 0
        self._prompts: set[str] = set()
        self._sum = 0

    def add(self, pair_id: str, prompt_id: str, chosen_first: bool) -> None:
        self.pairs += 1
        self._prompts.add(prompt_id)
        digest = hashlib.sha256(f"{pair_id}{'+' if chosen_first else '-'}".encode()).digest()
        self._sum = (self._sum + int.from_bytes(digest, "big")) % (1 << 256)

    def as_dict(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "prompts": len(self._prompts), "sha256": f"{self._sum:064x}"}


def data_hash(splits: dict[str, dict], max_length: int, truncation: str) -> str:
    """The hash of what the splits contain: pairs, preferences, and how long ones were cut.

    The same on any machine and for any order of the rows. max_length enters only where prompts are
    cut to it: otherwise its effect is which pairs there are.
    """
    cut = f"left:{max_length}" if truncation == "left" else "whole"
    hashes = {name: splits[name]["sha256"] for name in sorted(splits)}
    return content_hash([CONTENT_FORMAT, cut, hashes])


def read_manifest(processed_dir: Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        UserError: no such folder, unfinished, cut short, or of another format.
    """
    path = processed_dir / MANIFEST
    remedy = (f"prepare it with: python data/preprocess.py --data {processed_dir.name} "
              f"--output_dir {processed_dir} --tokenizer_name MODEL_FOLDER")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{processed_dir}: no prepared data (no {MANIFEST}): {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a whole manifest: {remedy}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or (
            not _is_sound(manifest)):
        raise UserError(f"{path}: not a manifest of format {FORMAT}: {remedy}")
    return manifest


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether the parts that others look into are what they look for."""
    def holds(value: Any, key: str, kind: type) -> bool:
        return isinstance(value, dict) and isinstance(value.get(key), kind)

    return (all(holds(manifest, key, dict) for key in ("splits", "tokenizers", "config"))
            and all(holds(manifest, key, str) for key in ("name", "data_hash"))
            and all(holds(split, "sha256", str) for split in manifest["splits"].values())
            and all(holds(entry, "parts", dict) for entry in manifest["tokenizers"].values())
            and all(holds(manifest[reason], "pair_ids", list) for reason in LEFT_OUT
                    if reason in manifest))


def write_manifest(processed_dir: Path, manifest: dict[str, Any]) -> None:
    with atomic_path(processed_dir / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
                           encoding="utf-8")


def config_differences(prepared: dict[str, Any], config: DataConfig) -> list[str]:
    """Keys that would change the result, as `key: prepared value, not asked value`.

    Args:
        prepared: a config as a manifest holds it; a key that it does not know yet, or a block of
            keys, had its default.
    """
    asked, usual = (json.loads(json.dumps(dataclasses.asdict(each)))
                    for each in (config, type(config)("usual", path="path")))
    held = {**usual, **prepared, "compare": {**usual["compare"], **prepared.get("compare", {})}}
    if held["compare"]["rule"] != "by_id":  # read by that rule alone, and once had another default
        held["compare"]["names"] = asked["compare"]["names"]
    return [f"{key}: {held[key]!r}, not {asked[key]!r}" for key in asked
            if key not in NO_RESULT_KEYS and held[key] != asked[key]]


def left_out_ids(manifest: dict[str, Any], reason: str) -> set[str]:
    """Ids of the pairs that go for one of the reasons of LEFT_OUT; none where the folder was
    prepared before there was such a reason."""
    return set(manifest.get(reason, {"pair_ids": []})["pair_ids"])


def unwanted_ids(manifest: dict[str, Any]) -> set[str]:
    """Ids of the pairs that go for any of the reasons of LEFT_OUT."""
    return set().union(*(left_out_ids(manifest, reason) for reason in LEFT_OUT))


def split_names(manifest: dict[str, Any]) -> list[str]:
    """The splits that a prepared data set has, in the usual order."""
    return [name for name in SPLITS if name in manifest["splits"]]
