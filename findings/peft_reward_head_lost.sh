#!/usr/bin/env bash
# LoraConfig(target_modules="all-linear") without a task_type takes the head of a reward model for one
# more layer to adapt: the head itself stays at its random start and is not in the saved adapter.
# Training goes as well, for that head is in memory; whoever loads the adapter onto the base gets
# another one, and other rewards. With task_type="SEQ_CLS" the head trains, and is saved.
#
#   findings/peft_reward_head_lost.sh     # a minute beside the downloads; fails if it changed
#
# Seen with peft 0.21.2, transformers 5.24.0, torch 2.13.0 on Python 3.11, CPU:
#
#   None:      accuracy 1.000, of the head in the file lora_A and lora_B, loaded again 0.000 to 1.000
#   SEQ_CLS:   accuracy 1.000, of the head in the file weight, loaded again 1.000 to 1.000
#
# (Loaded five times; each draws a head of its own.) Neither saving nor loading is an error; that
# score.weight is new is said while the base is read, whether the adapter brings the head or not.
# Nothing of this repository runs here; it trains and saves the head itself, and merges adapters into
# a plain folder.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.24.0 peft==0.21.2
cd "${folder}"
cat > adapters.py <<'PYTHON'
"""A tiny language model becomes a reward model that prefers more of one token, by adapters alone."""
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=16, hidden_size=256, intermediate_size=512, num_hidden_layers=2, pad_token_id=0,
    num_attention_heads=4, num_key_value_heads=4)).save_pretrained("base")


def reward_model():
    return LlamaForSequenceClassification.from_pretrained("base", num_labels=1, pad_token_id=0)


def pairs(count, seed):
    """(2, count, 12) token ids: the first of each two has three more of token 1."""
    draw = torch.Generator().manual_seed(seed)
    rejected = torch.randint(2, 16, (count, 12), generator=draw)
    chosen = rejected.clone()
    chosen[:, :3] = 1
    return torch.stack([chosen, rejected])


def margins(model, texts):
    chosen, rejected = (model(input_ids=side).logits[:, 0] for side in texts)
    return chosen - rejected


def accuracy(model):
    with torch.no_grad():
        return (margins(model.eval(), pairs(500, 1)) > 0).float().mean().item()


for task in (None, "SEQ_CLS"):
    torch.manual_seed(1)
    model = get_peft_model(reward_model(), LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type=task))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    for step in range(40):
        loss = -torch.nn.functional.logsigmoid(margins(model.train(), pairs(32, 2 + step))).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    before = accuracy(model)
    model.save_pretrained(f"adapter_{task}")
    kept = sorted(name.split(".score.")[1].removesuffix(".weight") for name in
                  load_file(f"adapter_{task}/adapter_model.safetensors") if ".score." in name)
    again = [accuracy(PeftModel.from_pretrained(reward_model(), f"adapter_{task}"))
             for _ in range(5)]
    print(f"{task}: accuracy {before:.3f}, of the head in the file {' and '.join(kept)}, "
          f"loaded again {min(again):.3f} to {max(again):.3f}")
    assert before > 0.95
    if task == "SEQ_CLS":
        assert kept == ["weight"] and min(again) == max(again) == before
    else:
        assert kept == ["lora_A", "lora_B"], "the head is no layer to adapt any more"
        assert min(again) < before - 0.2, "an adapter that is loaded again has its head"
PYTHON
"${folder}/venv/bin/python" adapters.py 2> errors | grep accuracy || { tail -n 5 errors >&2; exit 1; }
