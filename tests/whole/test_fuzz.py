"""Some 1,500 bad inputs to the commands: each ends with one line and exit code 2, or turns out to
be fine; none with a traceback, none hangs, and none that is refused leaves a file behind.

Tables of kinds x commands x values, run in this process.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from src.common.errors import UserError, run_command
from src.reports.results import read_results
from tests.measures.test_benchmark_scores import V1, table
from tests.tiny_data import text_rows, write_jsonl
from tests.tiny_experiment import TinyExperiment, main_of
from tests.tiny_reward_model import make_reward_model

MOST_SECONDS = 10
LONG = "9" * 5000
DEEP = 20_000


@dataclass(frozen=True)
class Place:
    """A folder of a test's own, and what it may copy."""

    root: Path
    model: Path
    tiny: TinyExperiment

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else
                         content.encode("utf-8", "surrogatepass"))
        return path

    def copy_of_model(self) -> Path:
        return shutil.copytree(self.model, self.root / "model", dirs_exist_ok=True)

    @property
    def pairs(self) -> Path:
        return write_jsonl(self.root / "pairs.jsonl", text_rows(40))

    @property
    def out(self) -> Path:
        return self.root / "out"


Case = tuple[str, list]
"""A command's module and its arguments."""


def preprocess(place: Place, *arguments: object) -> Case:
    return "data.preprocess", ["--output_dir", place.out / "data", "--tokenizer_name", place.model,
                               "--num_proc", "1", *arguments]


def small(place: Place, data: Path, *arguments: object) -> Case:
    """A file of pairs, prepared."""
    return preprocess(place, "--train_path", data, "--test_pairs", "2", "--val_pairs", "2",
                      *arguments)


def scoring(place: Place, *arguments: object, model: Path | None = None) -> Case:
    return "src.scoring.__main__", ["--model", model or place.model, "--out",
                                    place.out / "scores.parquet", *arguments]


def evaluate(place: Place, *arguments: object) -> Case:
    return "eval", ["--results_dir", place.out / "results", "--runs_dir", place.tiny.runs_dir,
                    "--data_dir", place.tiny.processed.parent, *arguments]


def train(place: Place, experiment: object, *arguments: object) -> Case:
    return "src.train", ["--experiment", experiment, "--stage", "ceilings", "--dry-run",
                         "--runs_dir", place.out / "runs", "--data_dir",
                         place.tiny.processed.parent, *arguments]


def pretrain(place: Place, config: Path) -> Case:
    return "model.pretrain", ["--config", config]


# --- YAML -----------------------------------------------------------------------------------------

YAML_VALUES = {
    "a long integer": LONG, "a long hexadecimal": f"0x{'f' * 5000}", "a negative one": f"-{LONG}",
    "an integer that no float holds": "9" * 400, "infinity": ".inf", "nan": ".nan",
    "1e999": "1e999", "1e300": "1e300", "a tiny number": "1e-320", "no date": "2024-13-45",
    "a date": "2024-01-02", "a late date": "99999-01-01", "no time": "2024-01-01 99:99:99",
    "base sixty": ":".join(["59"] * 900), "no integer": "!!int x", "no float": "!!float x",
    "no timestamp": "!!timestamp x", "no boolean": "!!bool x", "no binary": "!!binary '*'",
    "an object": "!!python/object:os.system x", "a set": "!!set {a, b}", "pairs": "!!omap [a: b]",
    "nested lists": "[" * DEEP, "nested and closed": "[" * 5000 + "]" * 5000,
    "nested mappings": "{a: " * 5000 + "1" + "}" * 5000, "itself": "&a [*a]",
    "itself as a value": "&a {b: *a}", "a list as a key": "{[a]: 1}", "a null key": "{null: 1}",
    "a number as a key": "{1: 2}", "a merge of nothing": "{<<: 1}", "no alias": "*nothing",
    "a null": "null", "a boolean": "true", "a negative number": "-1", "a text": "word",
    "an empty text": "''", "a list": "[]", "a list of lists": "[[]]", "a list of null": "[null]",
    "a lone surrogate": '"\\ud800"', "a NUL": '"\\0"', "a control character": "\x01",
}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
YAML_FILES = {
    "aliases without end": BOMB, "no mapping": "- 1", "nothing": "", "a NUL": "\0",
    "not UTF-8": b"\xff\xfe\x00", "UTF-16": "a: 1".encode("utf-16"), "two documents": "a: 1\n---\n",
    "a tab": "a:\n\t- 1", "unclosed": "a: [1", "a directive": "%YAML 9.9\n---\na: 1",
    "merged aliases": "a: &a {b: 1}\n" + "".join(
        f"c{i}: &c{i} {{<<: [{', '.join([f'*c{i - 1}' if i else '*a'] * 9)}]}}\n"
        for i in range(25)),
}
KEYS = {
    "data": ("train_pairs", "keys"),
    "experiment": ("seeds", "teachers"),
    "epochs": ("epochs",),
    "pretrain": ("epochs", "documents"),
}


def write_config(place: Place, kind: str, text: str | bytes) -> Case:
    """The command that reads a YAML file of a kind; `text` instead of it."""
    path = place.file("config.yaml", text)
    return {"data": lambda: preprocess(place, "--data", path),
            "experiment": lambda: train(place, path),
            "epochs": lambda: train(place, path),
            "pretrain": lambda: pretrain(place, path)}[kind]()


def usual(place: Place, kind: str) -> dict:
    """What such a file holds when it is sound."""
    if kind == "data":
        return {"path": str(place.pairs), "test_pairs": 2, "val_pairs": 2}
    if kind == "pretrain":
        text = place.file("text.txt", "one two three\n" * 50)
        return {"output_dir": str(place.out / "base"), "documents": [str(text)], "seed": 0,
                "tokenizer": "words", "vocab_size": 256, "hidden_size": 8, "layers": 1, "heads": 1,
                "intermediate_size": 8, "max_length": 8, "chat_template": "words.jinja",
                "packed": True, "batch_rows": 2, "learning_rate": 1e-3}
    return place.tiny.settings()


def with_value(kind: str, key: str, value: str) -> Callable[[Place], Case]:
    def case(place: Place) -> Case:
        values = {name: each for name, each in usual(place, kind).items() if name != key}
        if kind == "epochs":
            values.pop("train", None)
            line = f"train: {{epochs: {value}}}"
        else:
            line = f"{key}: {value}"
        return write_config(place, kind, f"{yaml.safe_dump(values)}{line}\n")
    return case


def yaml_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for kind, keys in KEYS.items():
        for key in keys:
            for name, value in YAML_VALUES.items():
                if key != keys[0] and name.startswith("nested"):
                    continue  # a second each
                yield f"{kind} {key}: {name}", with_value(kind, key, value)
    for kind in ("data", "experiment", "pretrain"):
        for name, text in YAML_FILES.items():
            yield f"{kind} file: {name}", lambda place, kind=kind, text=text: write_config(
                place, kind, text)


# --- cells of JSON and CSV, and typed columns -----------------------------------------------------

JSON_CELLS = {
    "a long integer": LONG, "a long number": f"{LONG}.5", "1e999": "1e999", "NaN": "NaN",
    "nested lists": "[" * DEEP + "]" * DEEP, "nested objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "unclosed": "[" * DEEP, "a lone surrogate": '"\\ud800"', "a NUL": '"\\u0000"', "null": "null",
    "a list": "[1]", "an object": '{"role": 1}', "messages of numbers": '[{"role":1,"content":2}]',
    "nested messages": '[{"role":"user","content":' + "[" * 900 + "]" * 900 + "}]",
}
CSV_CELLS = {"a long integer": LONG, "a list": "[" * DEEP, "messages": "[{'role': 1}]",
             "a nest": "[" * 900 + "]" * 900, "python": "[" + "-" * DEEP + "1]", "a quote": '"',
             "a NUL": "a\0b", "a surrogate": "\ud800", "a long text": "x" * 200_000}
JSON_FILES = {"deep": "[" * DEEP, "closed": "[" * DEEP + "]" * DEEP, "a long integer": f"[{LONG}]",
              "an object": "{}", "a number": LONG, "cut": '[{"prompt": "a"', "a key": '{"a"',
              "a list": "[]", "nulls": "[null, null]", "an open object": '{"a": {"b": '}
COMMANDS = {"preprocess": small,
            "scoring": lambda place, data: scoring(place, "--data", data),
            "eval": lambda place, data: evaluate(place, "--model", place.model, "--data", data)}


def row_file(place: Place, cell: str, key: str) -> Path:
    """40 sound rows and one with the cell."""
    rows = [json.dumps(row) for row in text_rows(40)]
    sides = {"prompt": '"p"', "chosen": '"c"', "rejected": '"r"'} | {key: cell}
    rows.append("{" + ", ".join(f'"{name}": {value}' for name, value in sides.items()) + "}")
    return place.file("rows.jsonl", "\n".join(rows) + "\n")


def csv_file(place: Place, cell: str) -> Path:
    rows = "".join(f'"{row["prompt"]}","{row["chosen"]}","{row["rejected"]}"\n'
                   for row in text_rows(40))
    return place.file("rows.csv", f"prompt,chosen,rejected\n{rows}{cell},b,c\n")


def cell_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for command, make in COMMANDS.items():
        for name, cell in JSON_CELLS.items():
            for key in ("prompt", "chosen", "subset", "id", "unused"):
                yield (f"{command} json {key}: {name}",
                       lambda place, make=make, cell=cell, key=key: make(
                           place, row_file(place, cell, key)))
        for name, cell in CSV_CELLS.items():
            yield f"{command} csv: {name}", lambda place, make=make, cell=cell: make(
                place, csv_file(place, cell))
        for name, text in JSON_FILES.items():
            yield f"{command} json file: {name}", lambda place, make=make, text=text: make(
                place, place.file("rows.json", text))
        for name, column in COLUMNS.items():
            for key in ("chosen", "unused"):
                yield (f"{command} parquet {key}: {name}",
                       lambda place, make=make, column=column, key=key: make(
                           place, parquet_file(place, column, key)))


ENCODINGS = ("", "nothing", "base64", "rot13", "idna", "punycode", "undefined", "utf-7", "a" * 999,
             "utf-16", "utf-32", "unicode_escape", "ascii", "../x", "mbcs")
PACKED = {"rows.zip": (b"", b"PK", b"PK\x03\x04" + b"\0" * 60, b"PK\x05\x06" + b"\0" * 18),
          "rows.jsonl.gz": (b"", b"\x1f\x8b", b"\x1f\x8b\x08" + b"\xff" * 40, b"{}"),
          "rows.jsonl.zst": (b"", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd" + b"\xff" * 40),
          "rows.parquet": (b"", b"PAR1", b"PAR1" + b"\0" * 60 + b"PAR1"),
          "rows.csv": (b"", b"\0", b"prompt\n", b"prompt,chosen,rejected", b"a,a,a\n1,2,3\n", b'"'),
          "rows.xlsx": (b"PK",), "rows": (b"{}",), "rows.json.zip.gz": (b"{}",)}


def file_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for encoding in ENCODINGS:
        yield f"encoding {encoding:.20}", lambda place, encoding=encoding: write_config(
            place, "data", yaml.safe_dump({**usual(place, "data"), "encoding": encoding}))
    for command, make in COMMANDS.items():
        for name, contents in PACKED.items():
            for content in (*contents, None):
                def case(place: Place, make=make, name=name, content=content) -> Case:
                    if content is None:
                        (place.root / name).mkdir()
                        return make(place, place.root / name)
                    return make(place, place.file(name, content))
                yield f"{command} {name} {content!r:.30}", case


COLUMNS = {
    "dates beyond Python's": pa.array([2 ** 30] * 40, pa.date32()),
    "times beyond Python's": pa.array([2 ** 62] * 40, pa.timestamp("ms")),
    "another time zone": pa.array([0] * 40, pa.timestamp("us", "Nowhere/Town")),
    "durations": pa.array([2 ** 62] * 40, pa.duration("s")),
    "nested dates": pa.array([[2 ** 30]] * 40, pa.list_(pa.date32())),
    "bytes": pa.array([b"\xff"] * 40, pa.binary()),
    "text that is none": pa.array([b"\xff"] * 40, pa.binary()).view(pa.string()),
    "nulls": pa.nulls(40), "halves": pa.array([float("nan")] * 40, pa.float32()),
}


def parquet_file(place: Place, column: pa.Array, key: str) -> Path:
    columns = pa.Table.from_pylist(text_rows(40))
    columns = columns.drop([key]) if key in columns.column_names else columns
    path = place.root / "rows.parquet"
    pq.write_table(columns.append_column(key, column), path)
    return path


# --- a model's folder -----------------------------------------------------------------------------

TEMPLATES = {
    "raises": "{{ raise_exception('no') }}", "divides": "{{ 1 / 0 }}", "an index": "{{ [][1] }}",
    "recurses": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "unclosed": "{% if",
    "nested": "{{ " + "(" * 3000 + ")" * 3000 + " }}", "adds": "{{ 1 + 'a' }}",
    "calls": "{{ messages() }}", "an import": "{% include 'x' %}", "a filter": "{{ 1|nothing }}",
    "not UTF-8": b"\xff\xfe", "a NUL": "\0", "empty": "", "escapes": "{{ ''.__class__.mro() }}",
    "a long power": "{{ 9 ** 9 ** 2 }}", "another type": "{{ messages[0]['content'] + 1 }}",
}
CONFIGS = {
    **{f"{key} {value!r}": {key: value} for key, values in {
        "hidden_size": ("x", 0, -8, None, 33, 1e300, [1]), "num_hidden_layers": ("x", -1, None, 0),
        "num_attention_heads": (0, 5, "4", -4, None), "num_key_value_heads": (3, 0, "x"),
        "hidden_act": ("nothing", 1, None), "vocab_size": ("x", 0, -1, 7, None),
        "model_type": ("nothing", 1, None, [], "bert"), "rms_norm_eps": ("x", None),
        "max_position_embeddings": ("x", -1, 0, None),
        "rope_parameters": ("x", {"rope_type": "no"}),
        "torch_dtype": ("float99", 7), "dtype": ("float99", 7), "pad_token_id": ("x", -5, 10 ** 9),
        "num_labels": (0, "x", 3), "id2label": ("x", {"a": "b"}), "layer_types": ("x", ["x"]),
        "quantization_config": ("x", {}, {"quant_method": "gptq", "bits": 4},
                                {"quant_method": "nothing"},
                                {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "architectures": ("x", 1), "head_dim": ("x", 0, 7), "intermediate_size": (0, "x", 65),
        "attention_dropout": ("x",), "tie_word_embeddings": ("x",),
    }.items() for value in values},
}
MODEL_FILES = {
    "config.json": ("", "[]", "1", "null", "{", "{}", "[" * DEEP, f'{{"model_type": {LONG}}}',
                    b"\xff\xfe"),
    "tokenizer.json": ("", "[]", "{}", "{", b"\xff"),
    "tokenizer_config.json": ("", "[]", "{", '{"chat_template": 1}', "[" * DEEP,
                              '{"tokenizer_class": "Nothing"}', b"\xff",
                              '{"model_max_length": "x"}', '{"model_max_length": null}'),
    "model.safetensors": (b"", b"\xff" * 100, b"\x08" + b"\0" * 7 + b"{}      ",
                          (1 << 60).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"[]"),
    "model.safetensors.index.json": (
        "", "[]", "1", "{", "{}", '{"weight_map": 1}', '{"weight_map": []}', '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../../x"}}', "[" * DEEP, b"\xff",
        '{"weight_map": {"a": null}}', '{"weight_map": {"a": "."}}'),
}


def damaged(place: Place, name: str, content: str | bytes | None) -> Path:
    """A copy of the model with a file that holds something else; a folder for None."""
    folder = place.copy_of_model()
    (folder / name).unlink(missing_ok=True)
    if content is None:
        (folder / name).mkdir()
    else:
        place.file(f"model/{name}", content)
    return folder


def from_base(place: Place, changes: dict) -> Case:
    """Training from a base model whose config holds something else."""
    folder = shutil.copytree(place.tiny.model, place.root / "base")
    held = json.loads((folder / "config.json").read_text())
    place.file("base/config.json", json.dumps({**held, **changes}))
    place.file("llama.yaml", yaml.safe_dump({"checkpoint": str(folder), "family": "llama"}))
    rungs = [{"model": str(place.root / "llama.yaml"), "layers": [1]}]
    settings = {**place.tiny.settings(), "teachers": rungs, "students": rungs}
    return train(place, place.file("config.yaml", yaml.safe_dump(settings)))


def with_config(place: Place, changes: dict) -> Path:
    held = json.loads((place.model / "config.json").read_text())
    return damaged(place, "config.json", json.dumps({**held, **changes}))


PRETRAIN_FILES = {
    "documents": ("", "\n\n", b"\xff\xfe", "one", None),
    "books": ("", b"\xff", "[", "1", '{"a": 1}', "[1]", "[" * DEEP, f"[{LONG}]", '["one"]', None),
    "pairs": ("", b"PAR1", b"PAR1" * 10, None),
}


def pretrain_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for key, contents in PRETRAIN_FILES.items():
        for content in contents:
            def case(place: Place, key=key, content=content) -> Case:
                file = place.root / {"documents": "a.txt", "books": "a.json", "pairs": "a.parquet"}[
                    key]
                file.mkdir() if content is None else place.file(file.name, content)
                values = {name: each for name, each in usual(place, "pretrain").items()
                          if name != "documents"}
                return write_config(place, "pretrain", yaml.safe_dump({**values, key: [str(file)]}))
            yield f"pretrain {key} {content!r:.20}", case


def model_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    def scored(name: str, make: Callable[[Place], Path]) -> tuple[str, Callable[[Place], Case]]:
        return f"model: {name}", lambda place: scoring(place, "--data", place.pairs,
                                                       model=make(place))
    for name, text in TEMPLATES.items():
        yield scored(f"template {name}", lambda place, text=text: damaged(
            place, "chat_template.jinja", text))
        yield f"preprocess: template {name}", lambda place, text=text: small(
            place, place.pairs, "--chat_template", place.file("own.jinja", text))
    for name, changes in CONFIGS.items():
        yield f"base model: {name}", lambda place, changes=changes: from_base(place, changes)
        yield scored(name, lambda place, changes=changes: with_config(place, changes))
    for file, contents in MODEL_FILES.items():
        for content in (*contents, None):
            yield scored(f"{file} {content!r:.40}", lambda place, file=file, content=content: (
                damaged(place, file, content)))


# --- runs, prepared data, score tables ------------------------------------------------------------

JSON_TEXTS = ("", "[]", "1", "null", '"x"', "{}", "{", "[" * DEEP, f'{{"a": {LONG}}}', b"\xff")
DONE_TEXTS = ('{"identity": 1}', '{"identity": "x", "files": 1}', '{"identity": "ID", "files": 1}',
              '{"identity": "ID", "files": ["model.safetensors"]}',
              '{"identity": "ID", "files": {"../x": 1, "model.safetensors": "x"}}')


def in_run(name: str, content: str | bytes | None) -> Callable[[Place], Case]:
    def case(place: Place) -> Case:
        run = place.tiny.finished("students")[0]
        folder = shutil.copytree(run, place.root / "runs" / "tiny" / "students" / run.name)
        if isinstance(content, str) and (folder / name).is_file() and "ID" in content:
            identity = json.loads((folder / "DONE").read_text())["identity"]
            return damage_run(place, folder, name, content.replace("ID", identity))
        return damage_run(place, folder, name, content)
    return case


def damage_run(place: Place, folder: Path, name: str, content: str | bytes | None) -> Case:
    (folder / name).unlink(missing_ok=True)
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return evaluate(place, "--model", folder)


def in_manifest(change: Callable[[dict], object] | str | bytes) -> Callable[[Place], Case]:
    def case(place: Place) -> Case:
        data = shutil.copytree(place.tiny.processed.parent, place.root / "processed")
        path = data / place.tiny.processed.name / "manifest.json"
        if callable(change):
            manifest = json.loads(path.read_text())
            change(manifest)
            path.write_text(json.dumps(manifest))
        else:
            path.write_bytes(change if isinstance(change, bytes) else change.encode())
        name, arguments = train(place, place.tiny.config)
        return name, [*arguments, "--data_dir", data]
    return case


def nothing_in(key: str, value: object) -> Callable[[dict], object]:
    return lambda manifest: manifest.update({key: value})


SCORES = {"row": 1, "id": "a", "subset": "s", "response": 0, "value": 1.0, "reward": 0.5}
SCORE_CELLS = {"row": ("x", LONG, "1.5", "", "-1"), "response": ("x", LONG, ""),
               "value": ("x", LONG, "", "nan"), "reward": ("x", LONG, "nan", "1e999", "[1]"),
               "subset": ("", "$x_{$", "\\frac{$"), "id": ("", "$")}


def score_table(place: Place, changes: dict, ending: str = "csv") -> Path:
    rows = [{**SCORES, "row": row, "response": i, "value": float(i == 0), "reward": i / 2}
            for row in range(1, 4) for i in range(4)]
    rows[0] = {**rows[0], **changes}
    table = pd.DataFrame(rows).astype(str)
    path = place.root / f"scores.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    return path


def held_scores(place: Place, inputs: bytes) -> Path:
    """A table that says of what it was made in this way."""
    path = place.root / "scores.parquet"
    pq.write_table(pa.table({"reward": [1.0]}).replace_schema_metadata({b"inputs": inputs}), path)
    return path


def with_lists(place: Place, key: str) -> Path:
    scores = table(*V1)
    path = place.root / "scores.parquet"
    scores.assign(**{key: [[1]] * len(scores)}).to_parquet(path)
    return path


def with_scores(place: Place, path: Path, name: str = "judge",
                benchmark: str = "reward_bench_2") -> Case:
    return evaluate(place, "--model", name, "--scores", path, "--data", benchmark)


def held_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for text in (*JSON_TEXTS, *DONE_TEXTS, None):
        yield f"DONE {text!r:.60}", in_run("DONE", text)
    for text in (*YAML_FILES.values(), None, *(f"role: {each}" for each in YAML_VALUES.values())):
        yield f"config.yaml of a run {text!r:.40}", in_run("config.yaml", text)
    for text in JSON_TEXTS:
        yield f"manifest {text!r:.40}", in_manifest(text)
    for key in ("splits", "tokenizers", "config", "data_hash", "over_length", "max_length"):
        for value in (None, "x", {}, {"train_2": 1}):
            yield f"manifest {key}: {value}", in_manifest(nothing_in(key, value))
    for key, values in SCORE_CELLS.items():
        for value in values:
            for ending in ("csv", "parquet"):
                yield f"{ending} of scores, {key} {value:.20}", (
                    lambda place, key=key, value=value, ending=ending: with_scores(
                        place, score_table(place, {key: value}, ending)))
    for key in ("subset", "id"):
        yield f"a list in the column {key} of scores", lambda place, key=key: with_scores(
            place, with_lists(place, key), benchmark="reward_bench")
    for content in ("", "a,b\n1,2\n", b"\xff\xfe\0", '"', "row,row\n1,1\n", "row\n" * 3):
        yield f"file of scores {content!r}", lambda place, content=content: with_scores(
            place, place.file("own.csv", content))
    for inputs in (b"{", b"[" * DEEP, LONG.encode(), b"1", b"\xff"):
        yield f"earlier scores of {inputs!r:.20}", lambda place, inputs=inputs: scoring(
            place, "--data", place.pairs, "--out", held_scores(place, inputs))
    for name in ("$x_{$", "\\frac{", "a_$b", "%s", "{}", "<b>", "ü" * 90, "x" * 300, "a\nb", "$"):
        yield f"a judge called {name[:20]!r}", lambda place, name=name: with_scores(
            place, score_table(place, {}), name)


# --- arguments ------------------------------------------------------------------------------------

WORDS = ("", ".", "/", "nothing", "x" * 5000, "\udcff", "-1", "NUMBER", LONG, "FILE", "FOLDER")
OPTIONS = {
    "data.preprocess": ("--data", "--train_path", "--test_path", "--output_dir", "--form",
                        "--tokenizer_name", "--chat_template", "--limit", "--fraction",
                        "--max_length", "--max_bad_frac", "--test_pairs", "--seed", "--num_proc"),
    "src.scoring.__main__": ("--model", "--data", "--out", "--best", "--chat_template"),
    "eval": ("--model", "--data", "--output_dir", "--results_dir", "--against", "--scores"),
    "src.train": ("--experiment", "--seeds", "--worker", "--runs_dir", "--data_dir", "--stage"),
    "model.download": ("--model",), "model.pretrain": ("--config",),
    "src.push": ("--model", "--repo"), "src.prune": ("--experiment", "--runs_dir"),
    "data.demo": ("--output_dir", "--seed"),
    "data.chess_documents": ("--processed", "--output"),
}


def sound_arguments(place: Place, module: str) -> list:
    return {
        "data.preprocess": lambda: small(place, place.pairs)[1],
        "src.scoring.__main__": lambda: scoring(place, "--data", place.pairs)[1],
        "eval": lambda: evaluate(place, "--model", place.model, "--data", place.pairs)[1],
        "src.train": lambda: train(place, place.tiny.config)[1],
        "model.download": lambda: ["--dry-run"], "model.pretrain": lambda: [],
        "src.push": lambda: ["--dry-run", "--model", place.tiny.finished("teachers")[0],
                             "--repo", "me/it"],
        "src.prune": lambda: ["--dry-run", "--experiment", place.tiny.config, "--runs_dir",
                              place.tiny.runs_dir],
        "data.demo": lambda: ["--output_dir", place.out / "demo"],
        "data.chess_documents": lambda: ["--processed", place.tiny.processed, "--output",
                                         place.out / "text.txt"]}[module]()


def with_option(module: str, option: str, word: str) -> Callable[[Place], Case]:
    def case(place: Place) -> Case:
        given = {"NUMBER": str(10 ** 30), "FILE": str(place.file("a file", "text")),
                 "FOLDER": str(place.file("a folder/of/mine", "text").parent)}.get(word, word)
        return module, [*sound_arguments(place, module), option, given]
    return case


def argument_cases() -> Iterator[tuple[str, Callable[[Place], Case]]]:
    for module, options in OPTIONS.items():
        for option in options:
            for word in WORDS:
                if module == "data.demo" and word == "/":
                    continue  # which it would write to, as it was told
                yield f"{module} {option} {word[:12]!r}", with_option(module, option, word)


# --------------------------------------------------------------------------------------------------

CASES = {name: case for cases in (yaml_cases, pretrain_cases, cell_cases, file_cases, model_cases,
                                  held_cases, argument_cases) for name, case in cases()}


@pytest.fixture(scope="session")
def fuzzed_model(tmp_path_factory) -> Path:
    return make_reward_model(tmp_path_factory.mktemp("fuzzed"))


@pytest.fixture
def place(tmp_path, fuzzed_model, finished, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    # below which it keeps its checkpoints
    monkeypatch.setattr("model.pretraining.REPO_ROOT", tmp_path)
    return Place(tmp_path, fuzzed_model, finished)


@pytest.mark.parametrize("text", JSON_TEXTS)
def test_results_whose_meta_is_none_are_refused(text, tmp_path):
    (tmp_path / "meta.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="write it again with eval.py"):
        read_results(tmp_path)


def files_in(*folders: Path) -> set[str]:
    return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file()}


def ended(module: str, arguments: list, monkeypatch, capsys) -> tuple[int, str, float]:
    """(exit code, standard error, seconds at work) of a command, run in this process."""
    main = main_of(module)
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    capsys.readouterr()
    began = time.process_time()  # not what other processes took
    with pytest.raises(SystemExit) as end:
        run_command(main)
    return end.value.code, capsys.readouterr().err, time.process_time() - began


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_one_line_and_leaves_nothing(name, place, monkeypatch, capsys):
    module, arguments = CASES[name](place)
    before = files_in(place.root, place.tiny.root, place.model)
    code, told, seconds = ended(module, arguments, monkeypatch, capsys)
    assert code in (0, 2) and "Traceback" not in told and seconds < MOST_SECONDS
    if code == 2:
        line, = told.splitlines()
        assert line.startswith("error: ") and len(line) < 2_000
        assert files_in(place.root, place.tiny.root, place.model) == before


def test_there_are_at_least_400_of_them():
    assert len(CASES) >= 400
