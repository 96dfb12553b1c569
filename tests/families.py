"""Tiny random models of every supported family, with windows shorter than the tests' rows."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

VOCAB = 61
PAD = 60
WINDOW = 5
LAYERS = 6

ROTARY = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32,
          "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 8, "max_position_embeddings": 64}
MIXED = [("sliding_attention", "full_attention")[i % 2] for i in range(LAYERS)]

FAMILIES = {
    "llama": {**ROTARY, "attention_dropout": 0.1, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32}},
    "gemma": {**ROTARY},
    "gemma2": {**ROTARY, "sliding_window": WINDOW, "query_pre_attn_scalar": 8,
               "attn_logit_softcapping": 0.5},
    "gemma3_text": {**ROTARY, "sliding_window": WINDOW, "query_pre_attn_scalar": 8,
                    "sliding_window_pattern": 3},
    "mistral": {**ROTARY, "sliding_window": WINDOW},
    "ministral": {**ROTARY, "sliding_window": WINDOW, "layer_types": MIXED},
    "qwen2": {**{k: v for k, v in ROTARY.items() if k != "head_dim"}, "use_sliding_window": True,
              "sliding_window": WINDOW, "max_window_layers": 3},
    "qwen3": {**ROTARY, "use_sliding_window": True, "sliding_window": WINDOW,
              "max_window_layers": 3},
    "gpt2": {"vocab_size": VOCAB, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 40,
             "bos_token_id": 1, "eos_token_id": 1},
    "gpt_neo": {"vocab_size": VOCAB, "hidden_size": 16, "num_layers": LAYERS, "num_heads": 2,
                "attention_types": [[["global", "local"], LAYERS // 2]], "window_size": WINDOW,
                "max_position_embeddings": 40, "embed_dropout": 0.1, "bos_token_id": 1,
                "eos_token_id": 1},
}


def tiny_config(family: str, **changes) -> PreTrainedConfig:
    """The family's tiny config; `changes` replace some of it."""
    return AutoConfig.for_model(family, **{**FAMILIES[family], **changes})


def save_base(folder: Path, family: str, seed: int = 0, noise: float = 0.3, **changes) -> Path:
    """A tiny language model of the family with random weights, saved in `folder`. The wider it is,
    the less noise it takes without becoming chaotic."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
    with torch.no_grad():  # norms and biases start at 0 or 1, which would hide a mix-up of layers
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@dataclass
class Tree:
    """A prompt and its responses, as token ids."""

    prompt: list[int]
    responses: list[list[int]]

    @property
    def sequences(self) -> list[list[int]]:
        return [self.prompt + response for response in self.responses]


def random_tree(prompt: int, responses: tuple[int, ...], seed: int = 0) -> Tree:
    """Random tokens, never the padding token; the arguments are lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> list[int]:
        return torch.randint(PAD, (length,), generator=generator).tolist()

    return Tree(draw(prompt), [draw(length) for length in responses])


def tree_batch(trees: list[Tree], pad: int = PAD, extra: int = 0) -> dict[str, Tensor]:
    """One row a tree, padded on the right to the longest row plus `extra`."""
    return _stack([packed_row([tree]) for tree in trees], pad, extra)


def packed_batch(trees: list[Tree], pad: int = PAD, extra: int = 0) -> dict[str, Tensor]:
    """All trees in one row."""
    return _stack([packed_row(trees)], pad, extra)


def _stack(rows: list[dict[str, list[int]]], pad: int, extra: int) -> dict[str, Tensor]:
    length = max(len(row["input_ids"]) for row in rows) + extra
    fillers = {"input_ids": pad, "position_ids": 0, "tree": -1, "branch": -1}
    batch = {name: torch.tensor([row[name] + [filler] * (length - len(row[name])) for row in rows])
             for name, filler in fillers.items()}
    most = max(len(row["last_index"]) for row in rows)
    batch["last_index"] = torch.tensor([row["last_index"] + [-1] * (most - len(row["last_index"]))
                                        for row in rows])
    return batch


def packed_row(trees: list[Tree]) -> dict[str, list[int]]:
    """What `RewardForward.forward` takes, for one row."""
    row = {"input_ids": [], "position_ids": [], "tree": [], "branch": [], "last_index": []}
    for number, tree in enumerate(trees):
        start = len(tree.prompt)
        _add(row, tree.prompt, range(start), number, 0)
        for response in tree.responses:
            _add(row, response, range(start, start + len(response)), number,
                 len(row["last_index"]) + 1)
            row["last_index"].append(len(row["input_ids"]) - 1)
    return row


def _add(row: dict[str, list[int]], tokens: list[int], positions: range, tree: int,
         branch: int) -> None:
    row["input_ids"] += tokens
    row["position_ids"] += positions
    row["tree"] += [tree] * len(tokens)
    row["branch"] += [branch] * len(tokens)


def plain_batch(sequences: list[list[int]], side: str = "right",
                extra: int = 0) -> dict[str, Tensor]:
    """What the library's own classifier takes: a row a sequence, padded on `side`."""
    length = max(map(len, sequences)) + extra
    rows, masks = [], []
    for sequence in sequences:
        pad = length - len(sequence)
        rows.append(sequence + [PAD] * pad if side == "right" else [PAD] * pad + sequence)
        ones = [1] * len(sequence)
        masks.append(ones + [0] * pad if side == "right" else [0] * pad + ones)
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
