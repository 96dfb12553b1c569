#!/usr/bin/env bash
# transformers' Trainer, stopped at half an epoch on one process and resumed on two, ends at once, with
# no error and no batch read: its weights are the checkpoint's.
#
#   findings/trainer_resume_other_world.sh     # a minute beside the downloads; fails if it changed
#
# Seen with torch 2.13.0, transformers 5.24.0, accelerate 1.15.0 on Python 3.11, CPU, gloo:
#
#   one process, the whole epoch:    steps 16 of 16, forwards 16, weight 0.8
#   one process, stopped:            steps  8 of 16, forwards  8, weight 0.4
#   two processes, resumed:          steps  8 of  8, forwards  0, weight 0.4   train() returns, nothing said
#
# Steps of an epoch are counted anew for the number of processes, and the checkpoint's step is compared
# with that: half an epoch of one process is all the steps that two have. Nothing of this repository
# runs here; it compares the launch with the checkpoint's before it resumes (src/training/train_run.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "${folder}"
cat > train.py <<'PYTHON'
"""A model of one weight that every step moves by 0.05, over 64 rows in batches of 4."""
import json
import os
import sys

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

stop_at, resume = int(sys.argv[1]), sys.argv[2] == "resume"
forwards = 0


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        global forwards
        forwards += self.training
        return {"loss": -(self.weight * x).mean()}


class Stop(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == stop_at


rows = [{"x": torch.ones(1)} for _ in range(64)]
trainer = Trainer(Model(), TrainingArguments(
    output_dir="out" if stop_at else "whole", num_train_epochs=1, per_device_train_batch_size=4,
    learning_rate=0.05, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0, save_steps=8,
    use_cpu=True, ddp_backend="gloo" if "RANK" in os.environ else None, report_to="none",
    disable_tqdm=True), train_dataset=rows,
    callbacks=[Stop()])
trainer.train(resume_from_checkpoint=resume or None)
if int(os.environ.get("RANK", 0)) == 0:
    print(json.dumps({"steps": trainer.state.global_step, "of": trainer.state.max_steps,
                      "forwards": forwards, "processes": trainer.accelerator.num_processes,
                      "weight": round(trainer.model.weight.item(), 3)}), flush=True)
if torch.distributed.is_initialized():  # gloo aborts now and then when Python ends
    torch.distributed.barrier()
    os._exit(0)
PYTHON
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
last() { tail -n 1 "$1"; }
venv/bin/python train.py 0 anew > whole.txt
venv/bin/python train.py 8 anew > stopped.txt
venv/bin/python -m torch.distributed.run --nproc_per_node 2 train.py -1 resume > resumed.txt
printf '%s\n' "whole:   $(last whole.txt)" "stopped: $(last stopped.txt)" "resumed: $(last resumed.txt)"
expect() {
  [[ "$(last "$1")" == "$2" ]] || { echo "changed: $1 was expected to be $2" >&2; exit 1; }
}
expect whole.txt '{"steps": 16, "of": 16, "forwards": 16, "processes": 1, "weight": 0.8}'
expect stopped.txt '{"steps": 8, "of": 16, "forwards": 8, "processes": 1, "weight": 0.4}'
expect resumed.txt '{"steps": 8, "of": 8, "forwards": 0, "processes": 2, "weight": 0.4}'
