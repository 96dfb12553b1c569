"""A run's README.md: what the checkpoint is, for somebody who finds it without this repository."""

from pathlib import Path

from configs.schema import RunConfig
from src.runs import write_text

CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, weak-to-strong]
---

# {title}

A reward model: `AutoModelForSequenceClassification` with one label, a scalar reward read at the
last token of `prompt | answer` under the chat template beside it. A higher reward is better; only
differences between answers to one prompt mean anything.

| | |
|---|---|
{facts}
"""


def write_model_card(folder: Path, run: RunConfig) -> None:
    """Write `folder`/README.md about `run`."""
    facts = {
        "role": run.role,
        "base model": run.model,
        "layers kept": ", ".join(map(str, run.kept)),
        "data": f"{run.data}, {run.split}",
        "labels": f"weak labels of {run.teacher}" if run.teacher else "human",
        "method": run.method.name,
        "seed": run.seed,
        "experiment": run.experiment,
        "identity": run.identity,
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    write_text(folder / "README.md", CARD.format(title=run.display_name, facts=rows))
