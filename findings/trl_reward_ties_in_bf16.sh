#!/usr/bin/env bash
# TRL's RewardTrainer computes in bf16 unless told otherwise, reads rewards that are rounded to eight
# bits, and counts a pair whose rewards are the same as wrong. With the sides swapped the model's two
# accuracies do not add up to 1.
#
#   findings/trl_reward_ties_in_bf16.sh     # two minutes beside the downloads; fails if it changed
#
# Seen with trl 1.16.0, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU:
#
#   bf16=False: eval_accuracy 0.984, sides swapped 0.016, sum 1.000
#   default: eval_accuracy 0.969, sides swapped 0.001, sum 0.970
#
# (One pair more or less with another number of threads.) 30 of 1,000 close pairs get the same reward
# twice, and lose whichever side is the better one: that takes a point or two from an accuracy which
# the weights have. They are fp32 in both rows; training reports its accuracies in the same way.
# Nothing of this repository runs here; its reward head computes in fp32, and a tie counts half.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 trl==1.16.0
cd "${folder}"
cat > evaluate.py <<'PYTHON'
"""A tiny reward model learns to prefer more letters a; then it judges close pairs, both ways round."""
import random

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

letters = {token: place for place, token in enumerate(["<pad>", "<eos>", *"abcdefghij "])}
words = Tokenizer(models.WordLevel(letters, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
draw = random.Random(0)


def pair():
    """Two texts of sixteen letters; the first has one more `a`."""
    letters = draw.choices("abcdefghij", k=16)
    place = draw.choice([at for at, letter in enumerate(letters) if letter != "a"])
    return {"chosen": "".join([*letters[:place], "a", *letters[place + 1:]]),
            "rejected": "".join(letters)}


train, test = (Dataset.from_list([pair() for _ in range(count)]) for count in (1600, 1000))
swapped = test.rename_columns({"chosen": "rejected", "rejected": "chosen"})
torch.manual_seed(0)
model = LlamaForSequenceClassification(LlamaConfig(
    vocab_size=len(letters), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, num_labels=1))


def trainer(model, **options):
    return RewardTrainer(model, args=RewardConfig(
        output_dir="out", per_device_train_batch_size=16, per_device_eval_batch_size=100,
        learning_rate=1e-3, use_cpu=True, gradient_checkpointing=False, report_to="none",
        save_strategy="no", disable_tqdm=True, seed=0, **options), train_dataset=train,
        processing_class=tokenizer)


trainer(model, bf16=False, num_train_epochs=1).train()
model.save_pretrained("model")
tokenizer.save_pretrained("model")
seen = {}
for name, options in (("bf16=False", {"bf16": False}), ("default", {})):
    judge = trainer("model", **options)
    seen[name] = [judge.evaluate(rows)["eval_accuracy"] for rows in (test, swapped)]
    print(f"{name}: eval_accuracy {seen[name][0]:.3f}, sides swapped {seen[name][1]:.3f}, "
          f"sum {sum(seen[name]):.3f}")
assert abs(sum(seen["bf16=False"]) - 1) < 0.002, "ties in fp32"
assert sum(seen["default"]) < 0.99, "pairs of equal rewards are not counted as wrong any more"
PYTHON
"${folder}/venv/bin/python" evaluate.py 2> errors | grep "sides swapped" || { tail -n 5 errors >&2; exit 1; }
