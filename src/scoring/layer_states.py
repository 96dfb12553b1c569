"""What a reward model makes of texts on the way to the reward: states behind each layer, and how
well they still foretell the text.

A text is a prompt with one response, a row of its own, so that a row reads as the text does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.schema import RuntimeConfig
from model.attention.family import at_last
from model.base.truncate import decoder_layers
from model.base.trunk import begin_above
from src.batches.collate import TreeCollator
from src.batches.packing import Budget, scoring_batches, scoring_budget
from src.batches.trees import Trees
from src.common import distributed
from src.common.precision import computing
from src.scoring.texts import Responses

CHUNK_TOKENS = 512
"""Whose log-odds over the whole vocabulary are in memory at a time."""

Batch = dict[str, Tensor]


@dataclass
class Entering:
    """What enters layer `below` in each forward over some texts: kept of the first model that reads
    them, handed to the next ones, which share the layers underneath and need not run them. With no
    layer below there is nothing to keep."""

    below: int
    batches: list[Tensor] = field(default_factory=list)
    """(B, T, d) of each forward."""


def states_behind_layers(model: PreTrainedModel, texts: Responses, runtime: RuntimeConfig,
                         entering: Entering | None = None) -> np.ndarray:
    """(L, R, d) float32: what each decoder layer gives at the last token of each of R texts.

    Args:
        model: without the last layer's shortcut, which computes read tokens alone.
        entering: of the same texts and runtime; where another model has left its states there, L
            counts the layers above alone.
    """
    layers, seen = decoder_layers(model)[entering.below if _is_known(entering) else 0:], {}

    def keep(layer: torch.nn.Module, args: tuple, out: Tensor | tuple, *, number: int) -> None:
        seen[number] = out[0] if isinstance(out, tuple) else out

    handles = [layer.register_forward_hook(
        lambda layer, args, out, number=number: keep(layer, args, out, number=number))
        for number, layer in enumerate(layers)]
    try:
        def read(batch: Batch) -> Tensor:
            return torch.stack([at_last(seen[number], batch["last_index"])[:, 0]
                                for number in range(len(layers))], dim=1)  # (B, L, d)
        return _each_text(model, texts, runtime, read, entering).swapaxes(0, 1)
    finally:
        for handle in handles:
            handle.remove()


def nats_of_answers(model: PreTrainedModel, texts: Responses, runtime: RuntimeConfig,
                    head: Callable[[Tensor], Tensor], title: str = "",
                    entering: Entering | None = None) -> np.ndarray:
    """(R, 2) float64: sum of -log P(token | text so far) over each response's tokens, and how many
    they are, by the model's last states under `head`.

    Args:
        model: without the last layer's shortcut.
        title: of a bar; none where it is empty.
        entering: of the same texts and runtime.
    """
    with watched_trunk(model) as seen:
        return _each_text(model, texts, runtime, lambda batch: nats_of(seen["last"], batch, head),
                          entering, title)


@contextmanager
def watched_trunk(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Inside, `last` of this is what the trunk gave last, (B, T, d) behind the final norm."""
    seen: dict[str, Tensor] = {}
    handle = model.base_model.register_forward_hook(
        lambda trunk, args, out: seen.update(last=out.last_hidden_state))
    try:
        yield seen
    finally:
        handle.remove()


def nats_of(states: Tensor, batch: Batch, head: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, 2): a response's nats and tokens of each row; its first follows the prompt's last."""
    wanted = batch["branch"][:, 1:] > 0  # padding is -1
    before, after = states[:, :-1][wanted], batch["input_ids"][:, 1:][wanted]
    each = torch.cat([torch.nn.functional.cross_entropy(head(some), tokens, reduction="none")
                      for some, tokens in zip(before.split(CHUNK_TOKENS), after.split(CHUNK_TOKENS),
                                              strict=True)] or [before.new_zeros(0)])
    nats = torch.zeros(wanted.shape, dtype=torch.float64, device=states.device)
    nats[wanted] = each.double()
    return torch.stack([nats.sum(dim=1), wanted.sum(dim=1).double()], dim=1)


def _each_text(model: PreTrainedModel, texts: Responses, runtime: RuntimeConfig,
               read: Callable[[Batch], Tensor], entering: Entering | None,
               title: str = "") -> np.ndarray:
    """(R, ...): what `read` finds of each row, (B, ...), after each forward."""
    trees = Trees(texts, share_prompt=False)
    found: list[np.ndarray | None] = [None] * len(trees.response_tokens)
    for numbers, batch, place in _forwards(model, trees, runtime, entering, title):
        rows = read(batch).cpu().numpy()[place]
        for number, row in zip(numbers, rows, strict=True):
            found[number] = row
    return np.stack([found[number] for number in trees.chosen])


def _forwards(model: PreTrainedModel, trees: Trees, runtime: RuntimeConfig,
              entering: Entering | None, title: str,
              ) -> Iterator[tuple[np.ndarray, Batch, np.ndarray]]:
    """After each forward: numbers of its responses, its inputs, and each response's row."""
    device = distributed.device()
    model = model.to(device).eval()
    budget = scoring_budget(runtime, device.type, packed=False)
    rows = rows_of(trees, budget, model.config.pad_token_id, device, title)
    with torch.inference_mode(), computing(model.precision), _passing(model, entering) as known:
        for number, (responses, inputs, place) in enumerate(rows):
            model(**inputs, **known(number))
            yield responses, inputs, place


def _is_known(entering: Entering | None) -> bool:
    return entering is not None and bool(entering.batches)


@contextmanager
def _passing(model: PreTrainedModel, entering: Entering | None,
             ) -> Iterator[Callable[[int], Batch]]:
    """What the model's forward of each number takes beside its inputs: `hidden` where it is known.
    Where it is not, and wanted, it is kept."""
    if entering is None or not entering.below:
        yield lambda number: {}
    elif _is_known(entering):
        begin_above(model, entering.below)
        yield lambda number: {"hidden": entering.batches[number].to(distributed.device())}
    else:
        handle = decoder_layers(model)[entering.below].register_forward_pre_hook(
            lambda layer, args: entering.batches.append(args[0].cpu()))
        try:
            yield lambda number: {}
        finally:
            handle.remove()


def rows_of(trees: Trees, budget: Budget, pad_token_id: int, device: torch.device,
            title: str = "") -> Iterator[tuple[np.ndarray, Batch, np.ndarray]]:
    """For each forward: numbers of its responses, its inputs, and each response's row."""
    collator = TreeCollator(pad_token_id, pack=False)
    for responses, unit in tqdm(scoring_batches(trees, budget), title, unit="batch",
                                disable=not title):
        batch, place = collator.lay_out(trees.read(responses, unit))
        yield responses, {name: value.to(device) for name, value in batch.items()}, place
