"""Raw data -> a prepared folder, doing only what is missing.

    pairs/ -> tokens/<key>/ for each tokenizer -> one judgement of length -> manifest.json

The judgement covers all tokenizers of the folder, those of earlier calls too, so that every model
is trained and scored on the same pairs.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import DataConfig
from data.manifest import (
    FORMAT,
    MANIFEST,
    config_differences,
    read_manifest,
    split_names,
    unwanted_ids,
)
from data.pairs.build import build_pairs
from data.pairs.mixture import parts_of
from data.pairs.pair_files import drop_pairs
from data.read.sources import open_source
from data.tokens.control_tokens import count_control_tokens
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.lengths import judge
from data.tokens.tokenise import tokenise_split
from src.common.errors import UserError
from src.common.owned import claim, clear, disclaim, require_ours

KIND = "prepared data"
WRITTEN = (MANIFEST, f".{MANIFEST}.*.partial", "pairs/*.parquet", "pairs/.*.partial",
           "tokens/*.arrow", "tokens/*.partial", ".work/*")
"""What a prepared folder holds, beside its mark."""


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer to prepare for."""

    name: str
    """What a person calls it."""
    path: str
    """Folder with its files."""
    chat_template: str = ""
    """File in configs/templates, or "" for the tokenizer's own."""


def prepare(config: DataConfig, output_dir: Path, tokenizers: list[TokenizerSpec],
            num_proc: int = 1, overwrite: bool = False) -> tuple[dict[str, Any], bool]:
    """Bring `output_dir` up to date for a config and some tokenizers.

    Returns:
        The manifest, and whether there was anything to do.
    Raises:
        UserError: bad source, config or tokenizer; or the folder holds something else than what is
            asked for and `overwrite` is not set.
    """
    require_place(output_dir)
    keys = {_checked_key(config, spec): spec for spec in tokenizers}
    clear(output_dir, ["*/.*.partial", f".{MANIFEST}.*.partial"])  # of a call that was killed
    manifest = None if overwrite else _load_whole(config, output_dir)
    built = manifest is None
    if manifest is None:
        (output_dir / MANIFEST).unlink(missing_ok=True)  # first: the rest is unfinished without it
        clear(output_dir, WRITTEN)
        claim(output_dir, KIND, "--output_dir")
        report = build_pairs(config, output_dir)
        manifest = {"format": FORMAT, "name": config.name, "config": dataclasses.asdict(config),
                    **dataclasses.asdict(report), "splits": {}, "max_length": config.max_length,
                    "truncation": config.truncation, "tokenizers": {}}
        judge(config, output_dir, manifest)
    wanted = {key: spec for key, spec in keys.items() if not _has_tokens(output_dir, manifest, key)}
    if wanted:
        data_before, former = manifest.get("data_hash"), list(manifest["tokenizers"])
        try:
            _add_tokens(config, output_dir, manifest, wanted, num_proc)
        except UserError:
            if built:  # a call that failed must not stand in the way of the corrected one
                clear(output_dir, WRITTEN)
                disclaim(output_dir)
            raise
        if former and data_before != manifest["data_hash"]:
            print(_other_data(output_dir, manifest, former, wanted), file=sys.stderr)
    drop_pairs(output_dir / "pairs", unwanted_ids(manifest))
    return manifest, built or bool(wanted)


def _other_data(output_dir: Path, manifest: dict[str, Any], former: list[str],
                added: Mapping[str, TokenizerSpec]) -> str:
    """The warning that a tokenizer left out pairs that other models may have been trained on."""
    new = ", ".join(spec.name for spec in added.values())
    old = ", ".join(manifest["tokenizers"][key]["name"] for key in former if key not in added)
    return (f"warning: {output_dir}: {new} left out pairs that {old} had, so that every model is "
            f"scored on the same ones: runs of {old} that are finished do not count for these data "
            f"and are trained again. To have theirs back: prepare for {old} alone with --overwrite "
            f"True, and for {new} under another --data_dir (here: --output_dir)")


def require_place(output_dir: Path) -> None:
    """UserError unless `output_dir` is new, empty or prepared data of ours."""
    require_ours(output_dir, KIND, "--output_dir", _is_prepared)


def _is_prepared(folder: Path) -> bool:
    """Whether a folder without a mark is one that was prepared before there were marks."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"splits", "tokenizers", "config"} <= set(manifest)


def _checked_key(config: DataConfig, spec: TokenizerSpec) -> str:
    """The tokenizer's key; UserError, before any work, where it cannot serve this config."""
    tokenizer = load_tokenizer(spec.path, spec.chat_template)
    if config.max_length > tokenizer.model_max_length:
        raise UserError(f"data/{config.name}: max_length {config.max_length} is more than the "
                        f"{tokenizer.model_max_length} tokens that {spec.name} takes: set "
                        f"max_length {tokenizer.model_max_length} in the data's config "
                        f"(data/preprocess.py: --max_length {tokenizer.model_max_length})")
    return tokenizer_key(tokenizer)


def _load_whole(config: DataConfig, output_dir: Path) -> dict[str, Any] | None:
    """The manifest where the folder holds exactly what `config` asks for; None where it holds
    nothing or unfinished work; UserError where it holds something else."""
    if not (output_dir / MANIFEST).exists():
        return None
    try:
        manifest = read_manifest(output_dir)
    except UserError:  # cut short: made again, never trusted
        return None
    changed = config_differences(manifest["config"], config)
    if not config.sources:
        changed += _source_differences(manifest, manifest["config"], config)
    elif not changed:
        for part in parts_of(config):
            # an older folder does not hold the config of a source that is the only one
            prepared = manifest["sources"][part.name].get("config")
            changed += [f"{part.name}: {each}" for each in (
                *(config_differences(prepared, part) if prepared else ()),
                *_source_differences(manifest, prepared or dataclasses.asdict(part), part))]
    if changed:
        raise UserError(f"{output_dir}: was prepared with {'; '.join(changed)}: delete that "
                        "folder, or prepare another one (data/preprocess.py: --output_dir, or "
                        "--overwrite True to replace it)")
    return manifest if _pairs_are_whole(output_dir, manifest) else None


def _source_differences(manifest: dict[str, Any], prepared: dict[str, Any],
                        config: DataConfig) -> list[str]:
    """Files whose bytes are not those that were prepared; a file that has gone is no difference.

    Args:
        prepared: the config, or that of a mixture's source, as the manifest holds it.
    """
    if sorted(prepared["files"]) != sorted(config.files):
        return [f"files for {sorted(prepared['files'])}, not {sorted(config.files)}"]
    before = prepared["files"] or {"": prepared["path"]}
    asked = config.files or {"": config.path}
    recorded = {entry["path"]: entry["sha256"] for entry in manifest["source"]}
    changed = []
    for name, path in asked.items():
        try:
            source = open_source(path, config)
        except UserError:
            if path != before[name]:
                raise
            continue
        same = path == before[name] if source.path is None else (
            source.sha256() == recorded.get(before[name]))
        if not same:
            changed.append(f"another content of {before[name]}, not that of {path}")
    return changed


def _pairs_are_whole(output_dir: Path, manifest: dict[str, Any]) -> bool:
    unwanted = unwanted_ids(manifest)
    for name, entry in manifest["splits"].items():
        try:
            ids = pq.read_table(output_dir / "pairs" / f"{name}.parquet", columns=["pair_id"])
        except (OSError, pa.ArrowException):
            return False
        if len(set(ids["pair_id"].to_pylist()) - unwanted) != entry["pairs"]:
            return False
    return True


def _has_tokens(output_dir: Path, manifest: dict[str, Any], key: str) -> bool:
    parts = manifest["tokenizers"].get(key, {}).get("parts")
    return parts is not None and all(
        (path := output_dir / "tokens" / key / split / name).is_file()
        and path.stat().st_size == size for split, files in parts.items() for name, size in files)


def _add_tokens(config: DataConfig, output_dir: Path, manifest: dict[str, Any],
                wanted: dict[str, TokenizerSpec], num_proc: int) -> None:
    left_length = config.max_length if config.truncation == "left" else None
    for key, spec in wanted.items():
        parts = {}
        for split in split_names(manifest):
            files = tokenise_split(output_dir / "pairs" / f"{split}.parquet",
                                   output_dir / "tokens" / key / split, spec.path,
                                   spec.chat_template, left_length, num_proc)
            parts[split] = [[path.name, path.stat().st_size] for path in files]
        controls = count_control_tokens(
            [output_dir / "pairs" / f"{split}.parquet" for split in parts],
            load_tokenizer(spec.path, spec.chat_template))
        manifest["tokenizers"][key] = {"name": spec.name, "chat_template": spec.chat_template,
                                       "parts": parts, "control_tokens": controls}
    try:
        judge(config, output_dir, manifest)
    except UserError:
        clear(output_dir, [f"tokens/{key}/*" for key in wanted])
        raise
