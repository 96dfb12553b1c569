#!/usr/bin/env bash
# transformers' Trainer, resumed from the checkpoint of a run that early stopping had ended, trains on:
# until the next evaluation, every time that it is called again.
#
#   findings/trainer_resume_after_early_stop.sh     # a minute beside the downloads; fails if it changed
#
# Seen with torch 2.13.0, transformers 5.24.0, accelerate 1.15.0 on Python 3.11, CPU, of 16 steps with
# an evaluation and a checkpoint every 2:
#
#   the run, patience 2:             stops after step 6,  forwards 6, weight 0.6
#   the same call once more:         stops after step 8,  forwards 2, weight 0.8
#   and once more:                   stops after step 10, forwards 2, weight 1.0
#
# With restore_callback_states_from_checkpoint the callback's count comes back, so the next evaluation
# ends the run at once; but the flag that says "stop" is cleared when training begins. A job that is
# resubmitted after it was done therefore gives other weights. Nothing of this repository runs here; its
# own resume takes no step there (src/training/resumable.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "${folder}"
cat > train.py <<'PYTHON'
"""A model of one weight that every step moves by 0.1, and that every evaluation finds worse."""
import json
import sys

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

forwards = 0


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels=None):
        global forwards
        forwards += self.training
        value = self.weight * x
        return {"loss": value.mean() * (-1 if self.training else 1), "logits": value}


rows = [{"x": torch.ones(1), "labels": torch.zeros(1)} for _ in range(16)]
trainer = Trainer(Model(), TrainingArguments(
    output_dir="out", max_steps=16, per_device_train_batch_size=1, learning_rate=0.1,
    lr_scheduler_type="constant", optim="sgd", max_grad_norm=0, eval_strategy="steps", eval_steps=2,
    save_strategy="steps", save_steps=2, metric_for_best_model="eval_loss", greater_is_better=False,
    restore_callback_states_from_checkpoint=True, use_cpu=True, report_to="none",
    disable_tqdm=True), train_dataset=rows, eval_dataset=rows, callbacks=[EarlyStoppingCallback(2)])
trainer.train(resume_from_checkpoint=sys.argv[1] == "resume" or None)
print(json.dumps({"step": trainer.state.global_step, "forwards": forwards,
                  "weight": round(trainer.model.weight.item(), 3)}), flush=True)
PYTHON
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
expect() {
  local seen
  seen="$(venv/bin/python train.py "$1" | tail -n 1)"
  echo "$1: ${seen}"
  [[ "${seen}" == "$2" ]] || { echo "changed: $2 was expected" >&2; exit 1; }
}
expect anew '{"step": 6, "forwards": 6, "weight": 0.6}'
expect resume '{"step": 8, "forwards": 2, "weight": 0.8}'
expect resume '{"step": 10, "forwards": 2, "weight": 1.0}'
