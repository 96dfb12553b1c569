"""A base model's own head: what turns its last hidden states into the next token's log-odds."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from model.base.weights import read_config, read_tensors, tensor_files
from src.common.errors import UserError

HEADS = ("lm_head.weight",)
TABLES = ("embed_tokens.weight", "wte.weight")
"""How the tables of token embeddings end, which are the head where there is no other."""


def language_head(base_path: Path) -> Callable[[Tensor], Tensor]:
    """(n, d) states behind the final norm -> (n, V) log-odds, as the base model computes them.

    Raises:
        UserError: the checkpoint is no language model's: neither a head nor tied embeddings.
    """
    weight = head_weight(base_path)
    cap = getattr(read_config(base_path), "final_logit_softcapping", None)

    def log_odds(states: Tensor) -> Tensor:
        found = states.float() @ weight.to(states.device).T
        return found if cap is None else cap * torch.tanh(found / cap)

    return log_odds


def head_weight(base_path: Path) -> Tensor:
    """(V, d) float32: the base model's own head, tied to its embeddings or not.

    Raises:
        UserError: the checkpoint is no language model's: neither a head nor tied embeddings.
    """
    name = head_name(base_path)
    if name is None:
        raise UserError(f"{base_path}: no tensor {HEADS[0]}, so no language model: fetch one with "
                        "its head")
    return read_tensors(tensor_files(base_path), {name: name}, torch.float32)[name]


def head_name(base_path: Path) -> str | None:
    """The tensor that is the base model's own head; None where its checkpoint has none."""
    tied = TABLES if read_config(base_path).tie_word_embeddings else ()
    return next((name for ending in (*HEADS, *tied) for name in tensor_files(base_path)
                 if name.endswith(ending)), None)
