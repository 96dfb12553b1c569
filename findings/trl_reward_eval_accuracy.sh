#!/usr/bin/env bash
# TRL's RewardTrainer reports eval_accuracy as the mean of its batches' accuracies, not of the pairs:
# a short last batch counts as much as a full one. eval_loss in the same line is that of the pairs.
#
#   findings/trl_reward_eval_accuracy.sh     # a minute beside the downloads; fails if it changed
#
# Seen with trl 1.16.0, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU:
#
#   batches of 5: eval_accuracy 0.8, eval_loss 0.691175
#   batches of 4: eval_accuracy 0.5, eval_loss 0.691175
#
# Who compares reward models evaluated with different batch sizes, or on few pairs, compares that.
# Nothing of this repository runs here; its accuracies count pairs, whatever the batches.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 trl==1.16.0
cd "${folder}"
cat > evaluate.py <<'PYTHON'
"""The same five pairs, four of them right, evaluated in one batch and in two."""
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

letters = {token: place for place, token in enumerate(["<pad>", "<eos>", *"abcdefghij "])}
words = Tokenizer(models.WordLevel(letters, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
torch.manual_seed(0)
model = LlamaForSequenceClassification(LlamaConfig(
    vocab_size=len(letters), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, num_labels=1))


def better(first, second):
    """The two texts, the one of the higher reward first."""
    rewards = [model(**tokenizer(text + "<eos>", return_tensors="pt")).logits.item()
               for text in (first, second)]
    return (first, second) if rewards[0] > rewards[1] else (second, first)


pairs = [better("abc " + "def"[:1 + row % 3], "abc " + "ghij"[row % 4:]) for row in range(5)]
pairs[4] = pairs[4][::-1]
rows = Dataset.from_list([dict(zip(("chosen", "rejected"), pair)) for pair in pairs])
seen = {}
for batch in (5, 4):
    trainer = RewardTrainer(model, args=RewardConfig(
        output_dir="out", per_device_eval_batch_size=batch, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to="none", disable_tqdm=True),
        train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    metrics = trainer.evaluate()
    seen[batch] = metrics["eval_accuracy"], metrics["eval_loss"]
    print(f"batches of {batch}: eval_accuracy {seen[batch][0]:.1f}, eval_loss {seen[batch][1]:.6f}")
assert abs(seen[5][0] - 0.8) < 1e-6 and abs(seen[4][0] - 0.5) < 1e-6, "eval_accuracy has changed"
assert abs(seen[5][1] - seen[4][1]) < 1e-5
PYTHON
"${folder}/venv/bin/python" evaluate.py 2> errors | grep ^batches || { tail -n 5 errors >&2; exit 1; }
