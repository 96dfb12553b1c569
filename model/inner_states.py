"""What chosen decoder layers give at the tokens that rewards are read from, forward by forward."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.attention.family import at_last
from model.base.truncate import decoder_layers


class InnerStates:
    """Keeps the outputs of some layers of a reward model, from one forward to the next.

    Args:
        layers: their numbers, 0 for the first. The last one's is not kept: what its reward is read
            from, behind the final norm, is taken for it, which a forward gives `with_states`.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]):
        every = decoder_layers(model)
        self.layers, self.last = tuple(layers), len(every) - 1
        self._seen: dict[int, Tensor] = {}
        self._handles = [every[number].register_forward_hook(self._keeper(number))
                         for number in {*layers} - {self.last}]

    def _keeper(self, number: int):
        def keep(layer: torch.nn.Module, args: tuple, out: Tensor | tuple) -> None:
            self._seen[number] = out[0] if isinstance(out, tuple) else out
        return keep

    def read(self, last_index: Tensor, final: Tensor) -> list[Tensor]:
        """(B, R, d) of each of the layers, in their order, in the forward that was run last.

        Args:
            last_index, final: the forward's input (B, R) and its states (B, R, d).
        """
        absent = (last_index < 0)[..., None]
        found = {number: at_last(hidden, last_index).masked_fill(absent, 0.0)
                 for number, hidden in self._seen.items()} | {self.last: final}
        self._seen.clear()
        return [found[number] for number in self.layers]

    def release(self) -> None:
        """Keep nothing any more."""
        for handle in self._handles:
            handle.remove()
