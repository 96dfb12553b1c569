"""A run's README.md: what the checkpoint is, for somebody who finds it without this repository.

Made of what the run's folder holds, so that it can be made again: after training without a number,
and when the run has been scored with its accuracy, n and interval.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from configs.run import RunConfig
from src.common.files import read_json, write_text
from src.common.lock import is_marked, lock, quiet
from src.methods.labelling import ORACLE
from src.runs.folders import CARD, read_run_config

HUB_DATASET = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
HEADER_ORDER = ["library_name", "pipeline_tag", "base_model", "datasets", "license"]
NOT_SCORED = "Not scored on held-out pairs yet."
TEXT = """\
---
{header}
---

# {title}

A reward model: it reads a conversation and gives the last answer one number. A higher reward is
better; only differences between answers to one prompt mean anything.

| | |
|---|---|
{facts}

## Accuracy

{accuracy}

## How to load

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(".").eval()
tokenizer = AutoTokenizer.from_pretrained(".")

conversation = [{{"role": "user", "content": "What is 2 + 2?"}},
                {{"role": "assistant", "content": "4"}}]
text = tokenizer.apply_chat_template(conversation, tokenize=False)
tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")  # the template has them
with torch.no_grad():
    reward = model(**tokens).logits.item()  # read at the last token
```

## Limits

- It was trained for research on weak-to-strong generalisation, on {pairs} pairs of one data set
  and with one seed. It knows what was preferred there, and not what is true, safe or good
  elsewhere.
- {labels_limit}
- Reward models learn length and style where these go with what was preferred. Compare the accuracy
  with that of a rule on length, and do not train against this reward without a check of your own.
- {license}
"""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one seed's run on held-out pairs."""

    seed: int
    data: str
    split: str
    n: int
    estimate: float
    low: float
    high: float
    length_only: float
    """Of the rule that the shorter answer is the better one."""
    level: float = 0.95


def write_model_card(folder: Path, scores: Sequence[Accuracy] = ()) -> None:
    """Write `folder`/README.md about the run that the folder holds, unless it says so already.

    Args:
        scores: of this run and of its like with other seeds; empty where it was not scored.
    """
    card, text = folder / CARD, model_card(folder, scores)
    if is_marked(card) or not card.is_file() or card.read_text(encoding="utf-8") != text:
        with lock(card, quiet):
            write_text(card, text)


def model_card(folder: Path, scores: Sequence[Accuracy] = ()) -> str:
    """The card's text; see write_model_card."""
    run = read_run_config(folder)
    manifest = read_json(folder / "manifest.json") or {}
    base = manifest.get("base", {})
    own = [score for score in scores if score.seed == run.seed]
    return TEXT.format(
        header=_header(run, base, manifest.get("data_source", ""), own), title=run.display_name,
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(run, manifest).items()),
        accuracy=_accuracy_table(run, scores) if own else NOT_SCORED,
        pairs=f"{manifest['pairs']:,}" if "pairs" in manifest else "the", license=_license(base),
        labels_limit=_labels(run)[1])


def _labels(run: RunConfig) -> tuple[str, str]:
    """Whose labels the run learned from, and what is wrong with them."""
    if not run.teacher:
        return "human", "Its labels are the data set's own, which err at times."
    if run.method.name.startswith(ORACLE) and run.method.stop_on == "weak":
        return (f"human, by treatment {run.method.treatment}",
                "Its labels are made of the data set's own: it is a control.")
    earlier = " and of a student of theirs" if run.earlier else ""
    if run.method.through:
        earlier = f", by a chain of {len(run.method.through)} between"
    weak = f"weak labels of {run.teacher}{earlier}"
    if run.method.stop_on == "truth":
        return (f"{weak}; human ones of val said when to stop",
                "When to stop was chosen on the data set's own labels: it is a diagnostic.")
    return (weak,
            "Its labels are a smaller model's, and it has taken over some of the errors in them.")


def rounded_weights(base: dict[str, Any]) -> dict[str, str]:
    """A card's row on base weights that were rounded, from a manifest's `base`; else none."""
    source = base.get("dequantised_from")
    return {"base weights": f"dequantised from {source}: rounded, not the original ones"
            } if source else {}


def _facts(run: RunConfig, manifest: dict[str, Any]) -> dict[str, object]:
    base = manifest.get("base", {})
    total = f" of {base['layers']}" if base.get("layers") else ""
    pairs = f", {manifest['pairs']:,} pairs" if "pairs" in manifest else ""
    return {
        "role": run.kind,
        "base model": f"{base['checkpoint']} at {base['revision']}" if base.get("checkpoint")
        else run.model.rsplit("/", 1)[-1].removesuffix(".yaml"),
        **rounded_weights(base),
        "layers kept": f"{len(run.kept)}{total}: {', '.join(map(str, run.kept))}{_why(run)}",
        "data": f"{run.data}, {run.split}{pairs}",
        "data hash": run.data_hash,
        "labels": _labels(run)[0],
        "method": run.method.name,
        **({"averaged": f"with its base by recipe.yaml ({run.average.name})"} if run.average
           else {}),
        **_frozen(run),
        **({"micro batches": f"{manifest['micro_batch_tokens']:,} tokens, which changes rounding "
            "alone"} if "micro_batch_tokens" in manifest else {}),
        "seed": run.seed,
        "experiment": run.experiment,
        "identity": run.identity,
        "commit": manifest.get("commit", "unknown"),
    }


def _why(run: RunConfig) -> str:
    """By which rule the layers were chosen; runs of old do not say."""
    reasons = {"first": "the first ones", "evenly_spaced": "evenly spaced",
               "first_and_last": "both ends", "listed": "listed in the experiment",
               "block_influence": "those that change most of what passes through them"}
    return f" ({reasons[run.keep]})" if run.keep in reasons else ""


def _frozen(run: RunConfig) -> dict[str, str]:
    """What of the weights is the base model's still, or comes from adapters."""
    lora = run.train.lora
    if run.method.learner == "probe":
        return {"weights": "the base model's; the head is a linear probe of its hidden states"}
    if run.train.freeze_embeddings:
        return {"embeddings": "the base model's, not trained"}
    if lora is None:
        return {}
    top = run.train.trainable_layers
    where = f"the top {top} layers" if top else "every layer"
    targets = "all linear layers" if isinstance(lora.targets, str) else ", ".join(lora.targets)
    return {"adapters": f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}, on {targets} of {where}; "
            "merged into these weights"}


def _header(run: RunConfig, base: dict[str, Any], source: str, own: list[Accuracy]) -> str:
    """The YAML that the hub reads."""
    dataset = HUB_DATASET.match(source)
    results = [EvalResult(
        task_type="text-classification", task_name="preference pairs", dataset_type=score.data,
        dataset_name=score.data, dataset_split=score.split, metric_type="accuracy",
        metric_value=round(score.estimate, 4),
        metric_name=f"accuracy, n = {score.n}, {_interval(score)}") for score in own]
    data = ModelCardData(
        base_model=base.get("checkpoint") or None, datasets=[dataset[1]] if dataset else None,
        license=base.get("license") or None, library_name="transformers",
        license_link=f"https://huggingface.co/{base['checkpoint']}"
        if base.get("license") == "other" else None,
        pipeline_tag="text-classification", tags=["reward-model", "weak-to-strong"],
        model_name=run.display_name if results else None, eval_results=results or None)
    return data.to_yaml(original_order=HEADER_ORDER)


def _interval(score: Accuracy) -> str:
    return f"{score.level:.0%} interval {score.low:.4f} to {score.high:.4f}"


def _accuracy_table(run: RunConfig, scores: Sequence[Accuracy]) -> str:
    rows = [f"| {score.seed}{' (this model)' if score.seed == run.seed else ''} | {score.data}, "
            f"{score.split} | {score.n:,} | {score.estimate:.4f} | {score.low:.4f} to "
            f"{score.high:.4f} | {score.length_only:.4f} |"
            for score in sorted(scores, key=lambda score: score.seed)]
    return "\n".join([
        "The share of held-out pairs whose preferred answer gets the higher reward; a tie counts "
        "half.\nThe interval is a bootstrap over prompts.", "",
        f"| seed | pairs | n | accuracy | {scores[0].level:.0%} interval | the shorter wins |",
        "|---|---|---|---|---|---|", *rows])


def _license(base: dict[str, Any]) -> str:
    if not base.get("license"):
        return "The licence of the base model is not recorded here: look it up before use."
    where = f"; see https://huggingface.co/{base['checkpoint']}" if base.get("checkpoint") else ""
    return (f"The licence of the base model ({base['license']}) holds for this model as well"
            f"{where}.")
