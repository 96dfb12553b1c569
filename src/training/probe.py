"""What a trained model says of a few pairs, kept to hold the saved one against; every rank asks."""

import numpy as np
import torch
from torch import Tensor
from transformers.trainer_utils import unwrap_peft_model

from model.reload_check import Probe
from src.batches.collate import PairDataset, TreeCollator
from src.training.trainer import PairTrainer

PROBE_PAIRS, SHORTEST = 4, 8
"""As many pairs, of different lengths, out of the shortest eighth: each goes three times through
all layers, frozen ones too, and the longest of them sets what that costs every run."""


def probe_of(trainer: PairTrainer) -> Probe:
    """The responses of a few short pairs with the rewards that the model in memory gives them,
    laid out as it was trained.

    Afterwards the model computes without autocast, in the precision of its weights, and with the
    attention that any precision and any device has: nothing is to be trained with it any more.
    """
    batch, place, sequences = few_responses(trainer.train_dataset, trainer.data_collator)

    def rewards(model: torch.nn.Module) -> Tensor:
        model.eval()
        with torch.no_grad():
            found = model(**{name: value.to(trainer.args.device) for name, value in batch.items()})
        return found.flatten().float().cpu()[place]

    trained = rewards(trainer.model_wrapped)
    model = trainer.model_wrapped  # an engine, whose weights may lie on other ranks
    if not trainer.is_deepspeed_enabled:
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    unwrap_peft_model(trainer.model).attention = "dense"
    dtype = next(trainer.model.parameters()).dtype
    return Probe(sequences, batch, place, trained, rewards(model), dtype)


def few_responses(data: PairDataset, collator: TreeCollator) -> tuple[
        dict[str, Tensor], Tensor, list[list[int]]]:
    """The batch, place and sequences of a Probe."""
    short = np.argsort(data.split.lengths().sum(axis=1), kind="stable")
    short = short[:max(PROBE_PAIRS, len(data) // SHORTEST)]
    pairs = short[np.unique(np.linspace(0, len(short) - 1, PROBE_PAIRS).astype(int))]
    ids = data.read(pairs, np.arange(len(pairs))).ids  # each pair a unit of its own
    batch, place = collator.lay_out(ids)
    there = [i for i, response in enumerate(ids.responses) if len(response)]
    sequences = [[*ids.prompts[ids.tree[i]].tolist(), *ids.responses[i].tolist()] for i in there]
    return batch, torch.from_numpy(place[there]), sequences
