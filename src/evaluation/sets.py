"""An evaluation set by name or file: its pairs, prepared for the models that are scored on it.

    eval_set("reward_bench", tokenizers, 512, data_dir, work)      a config of configs/data
    eval_set("mine.jsonl", tokenizers, 512, data_dir, work)        a file of pairs

A pair that is too long under one of the tokenizers is left out under all: models are compared on
the same pairs. The data that a model was trained with is never touched: another tokenizer may make
it another data set.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from configs.schema import DataConfig
from data.files.raw_bytes import stem_of
from data.manifest import LEFT_OUT, left_out_ids, read_manifest, split_names
from data.pairs.pair_files import read_pairs
from data.prepare import TokenizerSpec, prepare
from data.read.sources import named_data
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.tokenised import TokenisedSplit, open_split
from model.base.truncate import positions
from model.base.weights import read_config
from src.common.hashing import content_hash
from src.common.lock import lock

EVAL_FOLDER = "evaluation"
"""In the folder of prepared data: evaluation sets by name, one for each group of tokenizers."""
SPLIT = "test"


@dataclass(frozen=True)
class EvalSet:
    """A prepared folder whose test split is scored."""

    config: DataConfig
    processed: Path

    @property
    def name(self) -> str:
        return self.config.name

    def pairs(self, key: str) -> TokenisedSplit:
        """The pairs under the tokenizer with this key; they stay readable once the folder is gone.
        """
        return open_split(self.processed, key, SPLIT)

    @cached_property
    def left_out(self) -> str:
        """What was not scored and why, or read as something else, in words; empty where there is
        none."""
        manifest = read_manifest(self.processed)
        counts = {reason: entry["count"] for reason, entry in manifest["dropped"].items()}
        words = {**LEFT_OUT, "over_length": "too long for the model",
                 "refused": "refused by the chat template"}
        counts |= {meaning: len(left_out_ids(manifest, reason))
                   for reason, meaning in words.items()}
        reasons = [f"{count} {reason}" for reason, count in counts.items() if count]
        said = [f"left out: {', '.join(reasons)}"] if reasons else []
        said += [f"{count} rows: {note}" for note, count in manifest.get("notes", {}).items()]
        return "; ".join(said)


def eval_config(name_or_file: str) -> DataConfig:
    """The data config of that name, or one of a file's pairs, all of them test pairs.

    Raises:
        UserError: neither a config nor a file.
    """
    return named_data(name_or_file) or _file_config(name_or_file)


def _file_config(file: str) -> DataConfig:
    path = Path(file)
    return DataConfig(name=stem_of(path), files={SPLIT: str(path.resolve())}, val_pairs=0)


def eval_set(name_or_file: str, tokenizers: Sequence[TokenizerSpec], longest: int, data_dir: Path,
             work: Path) -> EvalSet:
    """Prepare an evaluation set for all of `tokenizers`, or find it prepared.

    Args:
        longest: tokens that every model takes; a set's own limit holds where it is lower.
        data_dir: sets by name are kept here, under EVAL_FOLDER.
        work: a folder for the pairs of FILE or NAME=FILE, which are prepared anew each time.
    """
    config = named_data(name_or_file)
    named = config is not None
    config = config or _file_config(name_or_file)
    most = min(config.max_length, longest) if named else longest
    config = dataclasses.replace(config, max_length=most)
    if named and "=" not in name_or_file:
        keys = sorted(tokenizer_key(load_tokenizer(spec.path, spec.chat_template))
                      for spec in tokenizers)
        folder = data_dir / EVAL_FOLDER / f"{config.name}-{content_hash([keys, most], 8)}"
    else:
        folder = work / config.name
    with lock(folder):
        prepare(config, folder, list(tokenizers))
    return EvalSet(config, folder)


def eval_set_of(folder: Path, name_or_file: str, data_dir: Path, work: Path) -> EvalSet:
    """The same for one reward model, up to the longest that it takes."""
    longest = min(positions(read_config(folder), str(folder)),
                  load_tokenizer(folder).model_max_length)
    return eval_set(name_or_file, [TokenizerSpec(folder.name, str(folder))], longest, data_dir,
                    work)


def trained_prompts(processed: Path) -> np.ndarray:
    """Ids of the prompts of every split of prepared data but test: val's weak labels may stop a
    student. UserError where there is no such folder."""
    splits = [name for name in split_names(read_manifest(processed)) if name != SPLIT]
    return np.unique(np.concatenate([
        read_pairs(processed, split, ["prompt_id"])["prompt_id"].to_numpy(
            zero_copy_only=False).astype(str) for split in splits]))


def scores_name(name: str, pairs: TokenisedSplit) -> str:
    """What the scores of a run on an evaluation set are kept as: apart from those on its splits."""
    return f"{name}-{pairs.data_hash[:8]}"
