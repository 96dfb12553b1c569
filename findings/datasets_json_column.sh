#!/usr/bin/env bash
# datasets 5 gives a column the type Json() where one row holds a bare number among texts, and such a
# column is stored as JSON: read raw by pyarrow or pandas, every text of it comes in quotes. In
# preference data whose `chosen` has one such row, the quotes alone tell chosen from rejected.
#
#   findings/datasets_json_column.sh     # a minute beside the downloads; fails if it changed
#
# Seen with datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1 on Python 3.11:
#
#   features               {'prompt': Value('string'), 'chosen': Json(decode=True), 'rejected': Value('string')}
#   datasets, decoded      chosen 0 of 300 in quotes, rejected 0
#   parquet by pyarrow     chosen 299 of 300 in quotes, rejected 0
#   parquet by pandas      chosen 299 of 300 in quotes, rejected 0
#   save_to_disk, raw      chosen 299 of 300 in quotes, rejected 0
#   csv by to_csv          chosen 299 of 300 in quotes, rejected 0
#   texts 42 and a         [42, 'a', 7]      given as the texts 42 and "a" (with its quotes), and the number 7
#
# Nothing of this repository runs here; it reads such columns as what they hold (data/files/raw_arrow.py), and
# counts answers that are JSON texts in files that lost the type (data/read/row_notes.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
cd "${folder}"
cat > columns.py <<'PYTHON'
"""300 made rows, one with a number for an answer, through every way out of datasets."""
import csv
import json

import datasets
import pandas
import pyarrow.parquet

datasets.disable_progress_bars()
with open("rows.jsonl", "w") as file:
    for i in range(300):
        chosen = 7 if i == 299 else f"good {i}"
        file.write(json.dumps({"prompt": f"Q {i}?", "chosen": chosen, "rejected": f"bad {i}"}) + "\n")
data = datasets.load_dataset("json", data_files="rows.jsonl", split="train", cache_dir="cache")
print(f"{'features':<22} {data.features}")
data.to_parquet("rows.parquet")
data.save_to_disk("saved")
data.to_csv("rows.csv")


def in_quotes(values):
    return sum(isinstance(value, str) and value[:1] == value[-1:] == '"' for value in values)


with open("rows.csv", newline="") as file:
    table = list(csv.DictReader(file))
ways = {
    "datasets, decoded": {name: data[:][name] for name in ("chosen", "rejected")},
    "parquet by pyarrow": pyarrow.parquet.read_table("rows.parquet").to_pydict(),
    "parquet by pandas": pandas.read_parquet("rows.parquet").to_dict("list"),
    "save_to_disk, raw": datasets.load_from_disk("saved").data.table.to_pydict(),
    "csv by to_csv": {name: [row[name] for row in table] for name in ("chosen", "rejected")},
}
for way, columns in ways.items():
    print(f"{way:<22} chosen {in_quotes(columns['chosen'])} of 300 in quotes, "
          f"rejected {in_quotes(columns['rejected'])}")
odd = datasets.Dataset.from_list([{"a": "42"}, {"a": '"a"'}, {"a": 7}], on_mixed_types="use_json")
print(f"{'texts 42 and a':<22} {odd[:]['a']}")
PYTHON
venv/bin/python columns.py 2> errors > seen || { cat errors; exit 1; }
cat seen
cat > expected <<'TEXT'
features               {'prompt': Value('string'), 'chosen': Json(decode=True), 'rejected': Value('string')}
datasets, decoded      chosen 0 of 300 in quotes, rejected 0
parquet by pyarrow     chosen 299 of 300 in quotes, rejected 0
parquet by pandas      chosen 299 of 300 in quotes, rejected 0
save_to_disk, raw      chosen 299 of 300 in quotes, rejected 0
csv by to_csv          chosen 299 of 300 in quotes, rejected 0
texts 42 and a         [42, 'a', 7]
TEXT
diff expected seen || { echo "changed: see the lines above (< seen before, > now)"; exit 1; }
echo "as seen before"
