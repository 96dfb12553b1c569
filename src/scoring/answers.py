"""Sampled answers -> their rewards by a reward model, their log-probability by a language model."""

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.schema import RuntimeConfig
from data.tokens.formatting import TokenIds, answer_end
from src.batches.packing import scoring_budget
from src.common import distributed
from src.common.errors import UserError
from src.scoring.generations import Prompts
from src.scoring.texts import TextScorer

LOGITS_SHARE = 4
"""Of a scoring batch's tokens a fourth go into one forward where every token has log-odds."""


def log_probabilities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
                      prompts: Prompts, table: pd.DataFrame, runtime: RuntimeConfig) -> np.ndarray:
    """(n,) float64: of each answer of `table`, with the token that ends it where it has ended,
    summed over its tokens; in nats, at temperature 1."""
    device, end = distributed.device(), answer_end(tokenizer)
    model = model.to(device).eval()
    known = dict(zip(prompts.ids, prompts.tokens, strict=True))
    rows = [(known[row.prompt_id], [*row.ids, *([end] if row.finished else [])])
            for row in table.itertuples()]
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    longest = max(len(prompt) + len(ids) for prompt, ids in rows)
    budget = scoring_budget(runtime, device.type, True).tokens
    size = max(1, budget // (longest * LOGITS_SHARE))
    found = np.zeros(len(rows))
    with torch.inference_mode():
        for start in range(0, len(order), size):
            places = order[start:start + size]
            found[places] = _summed(model, [rows[i] for i in places], tokenizer.pad_token_id)
    return found


def _summed(model: PreTrainedModel, rows: list[tuple[TokenIds, TokenIds]], pad: int) -> np.ndarray:
    width = max(len(prompt) + len(ids) for prompt, ids in rows)
    ids = torch.tensor([[*prompt, *own] + [pad] * (width - len(prompt) - len(own))
                        for prompt, own in rows], device=model.device)
    asked = torch.tensor([[len(prompt) <= place < len(prompt) + len(own) for place in range(width)]
                          for prompt, own in rows], device=model.device)  # (B, T)
    logits = model(ids, attention_mask=torch.ones_like(ids)).logits[:, :-1].float()
    nats = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (nats * asked[:, 1:]).sum(dim=1).double().cpu().numpy()


def rewards_of(scorer: TextScorer, prompts: Prompts, table: pd.DataFrame) -> np.ndarray:
    """(n,) float64: what a reward model gives the answers of `table`, in its order.

    Raises:
        UserError: an answer that the model cannot read.
    """
    answers = {prompt: list(own) for prompt, own in
               table.groupby("prompt_id", sort=False).response}
    questions = [(messages, answers[prompt])
                 for prompt, messages in zip(prompts.ids, prompts.messages, strict=True)]
    rewards = np.concatenate(scorer.rewards(questions, scorer.folder.name)).astype(np.float64)
    unread = int(np.isnan(rewards).sum())
    if unread:
        raise UserError(f"{scorer.folder}: {unread} of {len(rewards)} answers have no reward, for "
                        "with their prompts they are longer than it takes: lower "
                        "policies.max_new_tokens")
    return rewards
