"""What a prepared data set looks like, printed for a person: counts, drops, lengths, samples."""

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.manifest import LEFT_OUT, left_out_ids, split_names
from data.pairs.splits import EARLIER
from data.prepare import TokenizerSpec
from data.tokens.formatting import load_tokenizer, tokenizer_key
from data.tokens.lengths import length_quantiles
from data.tokens.tokenised import open_split
from src.common.console import table_lines

SAMPLES = 2
SHOWN_CHARS = 300
ROWS_NAMED = 5


def print_summary(output_dir: Path, manifest: dict[str, Any]) -> None:
    """Splits, what was dropped and why, and the folder."""
    rows = sum(entry["rows"] for entry in manifest["source"])
    print(f"{manifest['name']}: {rows} rows of form {manifest['form']} -> {output_dir}")
    for name in split_names(manifest):
        entry = manifest["splits"][name]
        print(f"  {name:8} {entry['pairs']:>8} pairs  {entry['prompts']:>8} prompts")
    _print_sources(manifest)
    for reason, entry in sorted(manifest["dropped"].items()):
        named = ", ".join(entry["rows"][:ROWS_NAMED])
        more = ", ..." if entry["count"] > ROWS_NAMED else ""
        print(f"  dropped  {entry['count']:>8} {reason} ({named}{more})")
    for reason, count in manifest["unused"].items():
        if count:
            print(f"  unused   {count:>8} {reason}")
    for note, count in manifest.get("notes", {}).items():
        print(f"  note: {count} rows: {note}")
    _print_control_tokens(manifest)
    for reason, meaning in LEFT_OUT.items():
        if count := len(left_out_ids(manifest, reason)):
            print(f"  dropped  {count:>8} {meaning}")
    total = sum(entry["pairs"] for entry in manifest["splits"].values())
    if manifest["over_length"]["count"] > 0.05 * (total + manifest["over_length"]["count"]):
        print(f"  note: more than 5% of the pairs exceed max_length {manifest['max_length']}")


def _print_sources(manifest: dict[str, Any]) -> None:
    """Published counts that differ from those found; a mixture's sources and overlaps as tables."""
    mixed = manifest["config"]["sources"]
    for what, count in manifest["expected"].items():
        if count["published"] != count["found"]:
            unit = f"pairs of {what}" if mixed else what
            print(f"  note: expected {count['published']} {unit} (published), found "
                  f"{count['found']}")
    if mixed:
        _print_table("source", {name: {
            "rows": entry["rows"], "pairs": entry["pairs"],
            "published": manifest["expected"].get(name, {}).get("published", ""),
            "of an earlier source": entry["dropped"].get(EARLIER, 0), "kept": entry["kept"]}
            for name, entry in manifest["sources"].items()})
    if manifest["decontaminated"]:
        _print_table("overlaps with", {name: {"its prompts": entry["prompts"], **entry["pairs"]}
                                       for name, entry in manifest["decontaminated"].items()})


def _print_control_tokens(manifest: dict[str, Any]) -> None:
    for entry in manifest["tokenizers"].values():
        found = entry.get("control_tokens", {"pairs": 0})  # none in a folder of an older version
        if found["pairs"]:
            named = ", ".join(f"{token} ({count})" for token, count in
                              itertools.islice(found["tokens"].items(), ROWS_NAMED))
            print(f"  note: {found['pairs']} pairs have texts that {entry['name']} reads as "
                  f"control tokens: {named}")


def _print_table(first: str, rows: dict[str, dict[str, Any]]) -> None:
    """Named rows with the same columns, numbers to the right."""
    columns = list(next(iter(rows.values())))
    for line in table_lines([first, *columns], [[name, *(str(row[column]) for column in columns)]
                                                for name, row in rows.items()]):
        print(f"  {line}")


def print_samples(output_dir: Path, manifest: dict[str, Any],
                  tokenizers: list[TokenizerSpec]) -> None:
    """Length quantiles and decoded pairs under each tokenizer; texts where there is none."""
    for spec in tokenizers:
        tokenizer = load_tokenizer(spec.path, spec.chat_template)
        key = tokenizer_key(tokenizer)
        print(f"\n{spec.name} (key {key}, pad {tokenizer.pad_token!r})")
        print("  tokens of prompt + longer answer at quantile   .05    .50    .95   1.00")
        for name in split_names(manifest):
            split = open_split(output_dir, key, name)
            quantiles = "".join(f"{value:>7}" for value in length_quantiles(split.lengths()))
            print(f"  {name:45}{quantiles}")
        split = open_split(output_dir, key, split_names(manifest)[0])
        for row in split.rows(range(min(SAMPLES, len(split)))):
            print(f"  pair {row['pair_id']}")
            for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
                text = tokenizer.decode(row[column])
                print(f"    {column[:-4]:9}{_short(text)}")
    if not tokenizers:
        _print_texts(output_dir / "pairs" / f"{split_names(manifest)[0]}.parquet")


def _print_texts(path: Path) -> None:
    with pq.ParquetFile(path) as file:
        rows = next(file.iter_batches(batch_size=SAMPLES)).to_pylist()
    for row in rows:
        turns = " | ".join(f"{m['role']}: {m['content']}" for m in json.loads(row["prompt"]))
        print(f"  pair {row['pair_id']} ({row['source']})")
        for name, text in (("prompt", turns), ("chosen", row["chosen"]),
                           ("rejected", row["rejected"])):
            print(f"    {name:9}{_short(text)}")


def _short(text: str) -> str:
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} ... ({len(text)} chars)"
    return repr(shown)
