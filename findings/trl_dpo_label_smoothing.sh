#!/usr/bin/env bash
# TRL's DPOTrainer takes label_smoothing with its default loss and trains as if it were 0.
#
#   findings/trl_dpo_label_smoothing.sh     # a minute beside the downloads; fails if it changed
#
# Seen with trl 1.16.0, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU:
#
#   loss sigmoid, label_smoothing 0.0: 0.693147 0.576914
#   loss sigmoid, label_smoothing 0.3: 0.693147 0.576914   the same, and no warning
#   loss robust, label_smoothing 0.0: 0.693147 0.576914
#   loss robust, label_smoothing 0.3: 0.693147 0.390718   acts here
#
# (Losses of the first two steps; the first is log 2 for all, as policy and reference are still one.)
# Who smooths weak labels that way, as the DPO paper's conservative variant does, smooths nothing.
# Nothing of this repository runs here; it refuses label_smoothing beside any loss but robust.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 trl==1.16.0
cd "${folder}"
cat > train.py <<'PYTHON'
"""Two steps of DPO on a tiny Llama with a tokenizer of letters, for each loss and smoothing."""
import warnings

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

letters = {token: place for place, token in enumerate(["<pad>", "<eos>", *"abcdefghij "])}
words = Tokenizer(models.WordLevel(letters, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
rows = Dataset.from_list([{"prompt": "abc ", "chosen": "def" * (1 + row % 2), "rejected": "hij"}
                          for row in range(8)])
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=len(letters), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
)).save_pretrained("model")
seen = {}
for loss in ("sigmoid", "robust"):
    for smoothing in (0.0, 0.3):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            trainer = DPOTrainer("model", args=DPOConfig(
                output_dir="out", max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
                loss_type=loss, label_smoothing=smoothing, use_cpu=True, bf16=False, seed=0,
                gradient_checkpointing=False, logging_steps=1, report_to="none",
                save_strategy="no", disable_tqdm=True), train_dataset=rows,
                processing_class=tokenizer)
            trainer.train()
        losses = [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]
        seen[loss, smoothing] = losses
        told = any("smoothing" in f"{each.message}" for each in warned)
        print(f"loss {loss}, label_smoothing {smoothing}:", *(f"{each:.6f}" for each in losses),
              "warned" if told else "")
        assert not told
assert seen["sigmoid", 0.0] == seen["sigmoid", 0.3], "label_smoothing acts on sigmoid now"
assert seen["robust", 0.0][1] != seen["robust", 0.3][1]
PYTHON
"${folder}/venv/bin/python" train.py 2> errors | grep ^loss || { tail -n 5 errors >&2; exit 1; }
