"""Sources -> one work file of all their usable pairs, and the arrays that splitting needs.

Memory holds ids and hashes of all pairs, but the texts of one batch only. Every row that gives no
pair is counted, and too many of them stop the command. Knows no splits beyond the files' names.
"""

import dataclasses
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from configs.schema import DataConfig
from data.pairs.build_report import BuildReport
from data.pairs.compare import compared_pairs
from data.pairs.pair_files import SCHEMA, batched
from data.pairs.splits import TRAIN, PairIndex, id_to_int
from data.read.rows import prompt_text
from data.read.rules import HARMLESS
from data.read.sources import Source, find_form, open_source
from data.read.system_column import READ
from data.records import SPLITS, Pair
from src.common.errors import UserError


def spill(config: DataConfig, parts: list[DataConfig], path: Path,
          report: BuildReport) -> PairIndex:
    """Write every usable pair of the parts to one Arrow stream; return the ids of all.

    Raises:
        UserError: unreadable source, unknown form, too many bad rows, no pair at all.
    """
    ids: dict[str, array] = {"pair": array("Q"), "prompt": array("Q"), "chosen_first": array("b"),
                             "longer": array("b")}
    group_names, group, part_numbers = [], array("H"), array("H")
    forms = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for number, part in enumerate(parts):
            for split, file in (part.files or {"": part.path}).items():
                group_names.append("" if config.sources else _known_split(split, config))
                source = open_source(file, part)
                forms.append(find_form(source, part))
                prefix = f"{part.name}/" if config.sources else ""
                pairs = _usable_pairs(source, forms[-1], part, file, prefix, report)
                if config.sources:
                    pairs = _of_mixture(pairs, part.name)
                before = len(ids["pair"])
                for batch in batched(pairs):
                    writer.write_batch(_record_batch(batch, ids))
                found = len(ids["pair"]) - before
                group.extend([len(group_names) - 1] * found)
                part_numbers.extend([number] * found)
    report.form = ", ".join(dict.fromkeys(forms))
    if not ids["pair"]:
        names = [*config.sources, *config.files.values(), config.path]
        raise UserError(f"data/{config.name}: no usable pair in "
                        f"{', '.join(filter(None, names))}: {report.reasons()}")
    return PairIndex(np.array(ids["pair"], np.uint64), np.array(ids["prompt"], np.uint64),
                     np.array(ids["chosen_first"], bool), np.array(group_names)[np.array(group)],
                     np.array(part_numbers, np.uint16), np.array(ids["longer"], np.int8))


def _known_split(split: str, config: DataConfig) -> str:
    if split not in ("", TRAIN, *SPLITS):
        raise UserError(f"data/{config.name}: files: unknown split {split!r}: expected some of "
                        f"{', '.join(SPLITS)}, or train for both halves")
    return split


def _usable_pairs(source: Source, form: str, part: DataConfig, path: str, prefix: str,
                  report: BuildReport) -> Iterator[Pair]:
    """The source's pairs; the rest is counted, and too many bad rows stop the command."""
    bad, last_bad, example = 0, None, ""
    for number, item in tqdm(compared_pairs(source, form, part), desc=f"read {source.name}",
                             unit=" pairs", mininterval=1, delay=1):
        if isinstance(item, Pair):
            yield item
            continue
        report.drop(part.name, item, [f"{prefix}{source.name}:{number}"], 1)
        if item not in HARMLESS:
            bad += number != last_bad  # a row may give several reasons
            last_bad = number
            example = example or f"row {number}: {item}"
    rows = source.rows_read  # a row may give several pairs, or several rows one
    if rows and bad / rows > part.max_bad_frac and not part.fixture:
        raise UserError(
            f"{source.name}: {bad} of {rows} rows are unusable as form {form} "
            f"({report.reasons(part.name, harmless=False)}; first is {example}), above "
            f"max_bad_frac {part.max_bad_frac}: mend the file, or write a data "
            "config for it, with its column names as keys or a higher max_bad_frac "
            "(data/preprocess.py: --chosen_key ..., --max_bad_frac)")
    report.source.append({"path": path, "sha256": source.sha256(), "rows": rows})
    report.add_source(part.name, rows)
    named = part.keys.get("system")
    if named and READ.format(named) not in source.notes:
        source.notes[f"no system message in column {named}, which keys name"] = rows
    report.add_notes(source.notes)


def _of_mixture(pairs: Iterator[Pair], name: str) -> Iterator[Pair]:
    """The pairs, marked as those of a mixture's source."""
    for pair in pairs:
        yield dataclasses.replace(pair, subset=name, source=f"{name}/{pair.source}")


def _record_batch(pairs: list[Pair], ids: dict[str, array]) -> pa.RecordBatch:
    """The pairs as rows of pairs/; what splitting needs of them is added to `ids`."""
    columns = {name: [getattr(pair, name) for pair in pairs] for name in SCHEMA.names}
    ids["pair"].extend(map(id_to_int, columns["pair_id"]))
    ids["prompt"].extend(map(id_to_int, columns["prompt_id"]))
    ids["chosen_first"].extend(pair.chosen < pair.rejected for pair in pairs)
    ids["longer"].extend((len(pair.chosen) > len(pair.rejected))
                         - (len(pair.chosen) < len(pair.rejected)) for pair in pairs)
    columns["prompt"] = list(map(prompt_text, columns["prompt"]))
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)
