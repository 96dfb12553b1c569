"""Prompts of a split -> what a language model answers.

Sampling has a seed of its own, the same for every policy: two that give the same odds give the
same answers.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.pairs.pair_files import read_pairs
from data.records import Message
from data.tokens.formatting import TokenIds, answer_end, tokenizer_key
from model.base.weights import weights_fingerprint
from src.batches.packing import scoring_budget
from src.common import distributed
from src.common.errors import UserError
from src.common.hashing import content_hash
from src.runs.plan import Plan


@dataclass(frozen=True)
class Prompts:
    """Distinct prompts, as hashes, conversations and token ids."""

    ids: list[str]
    messages: list[list[Message]]
    tokens: list[TokenIds]


@dataclass(frozen=True)
class Sampling:
    """How a policy answers."""

    answers: int
    """To each prompt."""
    max_new_tokens: int
    temperature: float
    seed: int


def prompts_of(plan: Plan, run: RunConfig, split: str, count: int,
               seed: tuple[int, ...]) -> Prompts:
    """`count` distinct prompts of a split, or all where it has fewer; drawn by `seed`."""
    tokenised = plan.split(run, split)
    names, first = np.unique(tokenised.prompt_ids, return_index=True)
    if not len(names):
        raise UserError(f"{plan.prepared.folder}: split {split} has no pairs, so no prompts to "
                        "answer: prepare more pairs")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(names))[:count])
    table = read_pairs(plan.prepared.folder, split, ["pair_id", "prompt"]).to_pandas()
    texts = table.set_index("pair_id").prompt
    rows = first[drawn]
    return Prompts(list(map(str, names[drawn])),
                   [json.loads(texts[tokenised.pair_ids[row]]) for row in rows],
                   [ids.tolist() for ids in tokenised.ids(rows, [0] * len(rows))])


def answer_inputs(folder: Path, prompts: Prompts, sampling: Sampling,
                  tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """What the answers of the policy in `folder` are a function of, as hashes."""
    return {"policy": weights_fingerprint(folder), "prompts": content_hash(prompts.tokens),
            "sampling": content_hash(asdict(sampling)), "tokenizer": tokenizer_key(tokenizer)}


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts,
           sampling: Sampling, runtime: RuntimeConfig, title: str = "answers") -> pd.DataFrame:
    """`prompt_id, sample, response, ids, tokens, characters, finished`: the answers to each prompt
    follow each other.

    `ids` are without the token that ends an answer, `tokens` counts them; an answer that met
    `max_new_tokens` before it is not `finished`.
    """
    device = distributed.device()
    model = model.to(device).eval()
    end, rows = answer_end(tokenizer), []
    order = sorted(range(len(prompts.tokens)), key=lambda i: len(prompts.tokens[i]))
    longest = max(map(len, prompts.tokens)) + sampling.max_new_tokens
    budget = scoring_budget(runtime, device.type, True).tokens
    size = max(1, budget // (longest * sampling.answers))
    starts = range(0, len(order), size)
    for start in tqdm(starts, desc=title, unit="batch", disable=len(starts) < 10):
        places = order[start:start + size]
        found = _sampled(model, [prompts.tokens[i] for i in places], tokenizer.pad_token_id, end,
                         sampling, (sampling.seed, start))
        rows += [(place, sample, ids) for place, samples in zip(places, found, strict=True)
                 for sample, ids in enumerate(samples)]
    rows.sort(key=lambda row: row[:2])
    return _table(rows, prompts, tokenizer, end)


def _sampled(model: PreTrainedModel, prompts: list[TokenIds], pad: int, end: int,
             sampling: Sampling, seed: tuple[int, int]) -> list[list[TokenIds]]:
    """The new tokens of each answer to each prompt, up to and with `end`."""
    width, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[pad] * (width - len(each)) + each for each in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts],
                        device=device)
    config = GenerationConfig(
        do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0,
        max_new_tokens=sampling.max_new_tokens, num_return_sequences=sampling.answers,
        pad_token_id=pad, eos_token_id=end)
    with torch.random.fork_rng(), torch.inference_mode():  # the library draws from the global one
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**31)))
        found = model.generate(ids, attention_mask=seen, generation_config=config)
    new = found[:, width:].tolist()
    new = [each[:each.index(end) + 1] if end in each else each for each in new]
    return [new[i:i + sampling.answers] for i in range(0, len(new), sampling.answers)]


def _table(rows: list[tuple[int, int, TokenIds]], prompts: Prompts,
           tokenizer: PreTrainedTokenizerBase, end: int) -> pd.DataFrame:
    kept = [ids[:-1] if ids[-1:] == [end] else ids for _, _, ids in rows]
    texts = [text.strip() for text in tokenizer.batch_decode(kept, skip_special_tokens=True)]
    return pd.DataFrame({
        "prompt_id": [prompts.ids[place] for place, _, _ in rows],
        "sample": [sample for _, sample, _ in rows], "response": texts, "ids": kept,
        "tokens": list(map(len, kept)), "characters": list(map(len, texts)),
        "finished": [ids[-1:] == [end] for _, _, ids in rows]})
