#!/usr/bin/env bash
# accelerate's compile_regions compiles a model layer by layer. What save_pretrained writes of it has other
# names for all of its tensors, and from_pretrained then starts from new random weights: no error, a table
# of missing keys in the log. Taken out of accelerate's wrapper first, it is saved as it is.
#
#   findings/accelerate_compiled_regions_saved.sh     # a minute beside the downloads; fails if it changed
#
# Seen with accelerate 1.15.0, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU; a Llama of two layers
# and 21 tensors with a reward head:
#
#   save_pretrained:               21 missing, 21 unexpected, rewards equal: False
#   extract_model_from_parallel:    0 missing,  0 unexpected, rewards equal: True
#
# Nothing of this repository runs here.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "${folder}"
cat > look.py <<'PYTHON'
"""A reward model with compiled layers, saved in two ways and read again."""
import torch
from accelerate.utils import compile_regions, extract_model_from_parallel
from transformers import AutoModelForSequenceClassification, LlamaConfig
from transformers import LlamaForSequenceClassification

torch.manual_seed(0)
model = LlamaForSequenceClassification(LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_labels=1,
    num_attention_heads=2, num_key_value_heads=2, pad_token_id=0)).eval()
compiled = compile_regions(model, backend="eager")
ids = torch.tensor([[1, 2, 3]])
found = {}
for way, saved in (("save_pretrained", compiled), ("extract_model_from_parallel",
                   extract_model_from_parallel(compiled, keep_torch_compile=False))):
    saved.save_pretrained(way)
    read, info = AutoModelForSequenceClassification.from_pretrained(way, output_loading_info=True)
    with torch.no_grad():
        same = torch.equal(read.eval()(ids).logits, model(ids).logits)
    found[way] = len(info["missing_keys"]), len(info["unexpected_keys"]), same
    print(f"{way + ':':<30} {found[way][0]:>2} missing, {found[way][1]:>2} unexpected, "
          f"rewards equal: {same}")
assert found == {"save_pretrained": (21, 21, False),
                 "extract_model_from_parallel": (0, 0, True)}, found
PYTHON
"${folder}/venv/bin/python" look.py 2> log || { tail -n 5 log >&2; exit 1; }
