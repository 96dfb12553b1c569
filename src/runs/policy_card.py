"""A policy's README.md: what the checkpoint is, for somebody who finds it without this repository.
"""

from pathlib import Path

from src.common.files import read_json, write_text
from src.runs.cards import rounded_weights
from src.runs.folders import CARD, read_run_config

STEPS = {"sft": "supervised fine-tuning on answers that people chose",
         "dpo": "direct preference optimisation (DPO)",
         "raft": "fine-tuning on its own best answers (RAFT)"}
TEXT = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [weak-to-strong, preference-alignment]
{license}---

# {title}

A language model, made by {made}.

| | |
|---|---|
{facts}

## How to load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".").eval()
tokenizer = AutoTokenizer.from_pretrained(".")
text = tokenizer.apply_chat_template([{{"role": "user", "content": "Hello?"}}], tokenize=False,
                                     add_generation_prompt=True)
tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens={longest})[0]))
```

## Limits

It was trained for research on weak-to-strong generalisation, on one data set and with one seed. It
says what a reward model or a few people preferred there, and not what is true, safe or good.
"""


def write_policy_card(folder: Path) -> None:
    """Write `folder`/README.md about the policy that the folder holds."""
    run, manifest = read_run_config(folder), read_json(folder / "manifest.json") or {}
    step, base = run.policy, manifest.get("base", {})
    facts = {
        "base model": base.get("checkpoint") or run.model, **rounded_weights(base),
        "layers": len(run.kept),
        "data": f"{run.data}, {run.split}, {manifest.get('rows', 0):,} rows",
        "preferences": f"of {run.teacher}" if run.teacher else "of people",
        **({"loss": f"{step.loss}, beta {step.beta:g}"} if step.step == "dpo" else {}),
        "seed": run.seed, "identity": run.identity, "commit": manifest.get("commit", "unknown")}
    write_text(folder / CARD, TEXT.format(
        title=run.display_name, made=STEPS[step.step], longest=step.max_new_tokens,
        license=f"license: {base['license']}\n" if base.get("license") else "",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items())))
