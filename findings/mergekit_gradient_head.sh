#!/usr/bin/env bash
# mergekit spreads a list of values over the layers, from the first to the last. The final norm and the
# LM head, which come after the last layer, take the FIRST value, as the embeddings do.
#
#   findings/mergekit_gradient_head.sh     # a minute beside the downloads; fails if it changed
#
# Seen with mergekit 0.1.5, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU; a model of zeros merged
# with one of ones, weights [0.8, 0.5, 0.2] of the second over three layers:
#
#   embed_tokens 0.8   layer 0 0.8   layer 1 0.5   layer 2 0.2   norm 0.8   lm_head 0.8
#
# A recipe that leaves the last layers alone moves the head all the same. A filter by name mends it. Nothing
# of this repository runs here.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 mergekit==0.1.5
cd "${folder}"
cat > models.py <<'PYTHON'
"""Two Llamas of three layers, one of zeros and one of ones."""
import torch
from transformers import LlamaConfig, LlamaForCausalLM

for name, value in (("zeros", 0.0), ("ones", 1.0)):
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(value)
    model.save_pretrained(name)
PYTHON
cat > recipe.yaml <<'YAML'
merge_method: linear
dtype: float32
parameters: {normalize: false}
slices:
  - sources:
      - {model: ./zeros, layer_range: [0, 3], parameters: {weight: [0.2, 0.5, 0.8]}}
      - {model: ./ones, layer_range: [0, 3], parameters: {weight: [0.8, 0.5, 0.2]}}
YAML
cat > look.py <<'PYTHON'
"""What each tensor of the merge is: the weight of the model of ones."""
from pathlib import Path

from safetensors.torch import load_file

[path] = Path("merged").glob("*.safetensors")
merged = load_file(path)
found = {"embed_tokens": merged["model.embed_tokens.weight"],
         **{f"layer {each}": merged[f"model.layers.{each}.mlp.up_proj.weight"] for each in range(3)},
         "norm": merged["model.norm.weight"], "lm_head": merged["lm_head.weight"]}
values = {name: round(float(weight.mean()), 4) for name, weight in found.items()}
print("   ".join(f"{name} {value:g}" for name, value in values.items()))
assert list(values.values()) == [0.8, 0.8, 0.5, 0.2, 0.8, 0.8], values
PYTHON
"${folder}/venv/bin/python" models.py > log 2>&1 || { tail -n 5 log >&2; exit 1; }
"${folder}/venv/bin/mergekit-yaml" recipe.yaml merged --no-copy-tokenizer 2>&1 >> log | tail -n 3 >> log ||
  { tail -n 5 log >&2; exit 1; }
"${folder}/venv/bin/python" look.py
