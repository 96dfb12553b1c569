"""prefix-grouper (arXiv 2506.05433): a padded row for each prompt with all its responses.

The package shares a prompt's forward among its responses: its attention takes every row apart into
padded prompts and padded responses, attends twice, and puts them together again; all else runs on
the padded rows. It knows FlashAttention only; here it is given sdpa and masks for it, made once a
batch.
"""

import functools
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from speed.mixes import Row, grouped_rounds, rounds_of
from speed.peers.peer import PairLossTrainer, Peer, Task, with_arguments
from speed.shapes import load_classifier

ATTENTION = "prefix_grouper_sdpa"
NAME = "prefix-grouper"


def version() -> str:
    """Of the package, which speed/requirements.txt pins; nothing where it is not installed."""
    try:
        from prefix_grouper import __version__
    except ImportError:
        return ""
    return __version__


def peers(task: Task) -> list[Peer]:
    """With random batches of whole prompts, as many as make about a step's pairs, and with batches
    of similar length, sorted over the prompts of all rounds as TRL's second row is."""
    random = [prompts_of(rows) for rows in rounds_of(task.rows, task.rounds)]
    prompts = [prompt for part in random for prompt in part]
    batch = max(1, round(task.batch_pairs * len(prompts) / len(task.rows)))
    grouped = grouped_rounds(prompts, task.rounds, batch, _tokens)
    return [Peer(NAME, random, functools.partial(_trainer, task, batch, "random")),
            Peer(f"{NAME}, length-grouped", grouped,
                 functools.partial(_trainer, task, batch, "sequential"), same_pairs=False)]


def prompts_of(rows: list[Row]) -> list[dict[str, Any]]:
    """Of every prompt: prompt_ids, its distinct responses, and which of them are the chosen and the
    rejected side of each of its pairs."""
    found: dict[str, dict] = {}
    for row in rows:
        prompt = found.setdefault(row["prompt_id"], {
            "prompt_ids": row["prompt_ids"], "responses": [], "chosen": [], "rejected": []})
        for side in ("chosen", "rejected"):
            ids = row[f"{side}_ids"]
            if ids not in prompt["responses"]:
                prompt["responses"].append(ids)
            prompt[side].append(prompt["responses"].index(ids))
    return list(found.values())


def _tokens(prompt: dict[str, Any]) -> int:
    return len(prompt["prompt_ids"]) + sum(map(len, prompt["responses"]))


def _trainer(task: Task, prompts: int, sampling: str,
             examples: list[dict]) -> AbstractContextManager[Trainer]:
    AttentionInterface.register(ATTENTION, _attention)
    return with_arguments(
        task, TrainingArguments, lambda args: PairLossTrainer(
            model=GroupedRewards(load_classifier(task.model, attention=ATTENTION)), args=args,
            train_dataset=examples,
            data_collator=functools.partial(group_prompts, pad=task.pad)),
        per_device_train_batch_size=prompts, train_sampling_strategy=sampling)


def group_prompts(examples: list[dict[str, Any]], pad: int) -> dict[str, Any]:
    """input_ids and position_ids (B, T), a padded row a prompt, positions restarting behind it for
    each response; grouper, the package's own record of what lies where; chosen, rejected (P,)."""
    from prefix_grouper import PrefixGrouper

    ids, positions, sides, before = [], [], {"chosen": [], "rejected": []}, 0
    for example in examples:
        prompt, responses = example["prompt_ids"], example["responses"]
        ids.append(torch.tensor(sum(responses, start=list(prompt))))
        positions.append(torch.cat([torch.arange(len(prompt)),
                                    *(len(prompt) + torch.arange(len(own)) for own in responses)]))
        for side, own in sides.items():
            own += [before + k for k in example[side]]
        before += len(responses)
    grouper = PrefixGrouper([[len(example["prompt_ids"]), *map(len, example["responses"])]
                             for example in examples], padding_mode="right")
    _widen_masks(grouper)
    return {"input_ids": pad_sequence(ids, True, pad),
            "position_ids": pad_sequence(positions, True, 0), "grouper": grouper,
            **{side: torch.tensor(own) for side, own in sides.items()}}


def _widen_masks(grouper: Any) -> None:
    """Its masks of keys, (B, K), which FlashAttention reads, to what sdpa reads, (B, 1, Q, K):
    which keys each query sees. A padding token of a prompt sees itself, for it must see one."""
    info = grouper.group_info
    prompt, response = info.prefix_attn_mask, info.suffix_attn_mask
    size, keys = prompt.shape[1], torch.arange(response.shape[1])
    causal = keys[:size] <= keys[:size, None]
    own = torch.eye(size, dtype=torch.bool)
    info.prefix_attn_mask = (prompt[:, None, None] & causal) | own
    info.suffix_attn_mask = response[:, None, None] & (keys <= keys[size:, None])


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None,
               grouper: Any, **kwargs) -> tuple[Tensor, None]:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]

    return grouper.forward(attend, query, key, value), None


class GroupedRewards(nn.Module):
    """A classifier's reward of every response, read at its last token."""

    def __init__(self, classifier: PreTrainedModel):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, position_ids: Tensor, grouper: Any) -> Tensor:
        """(B, T), (B, T) -> (R,), prompt by prompt."""
        states = self.classifier.model(input_ids=input_ids, position_ids=position_ids,
                                       use_cache=False, grouper=grouper).last_hidden_state
        _, _, responses, _ = grouper.split_output(states)  # (R, S, d)
        last = grouper.ungrouped_suffix_lens.to(responses.device) - 1
        return self.classifier.score(
            responses[torch.arange(len(last), device=last.device), last]).squeeze(-1)
