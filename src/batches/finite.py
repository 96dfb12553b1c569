"""Losses that are not finite: training ends before anything is saved of them.

Asking a GPU for a number waits until it has done all that it was given, and leaves it idle until it
gets more. So losses stay where they are until the host waits anyway: until something is logged,
saved or evaluated, or training ends.
"""

import numpy as np
import torch
from torch import Tensor

from src.common import distributed


class NonFiniteLossError(RuntimeError):
    """A loss is NaN or infinite: nothing was saved of the step that it belongs to."""


class FiniteLosses:
    """The losses of some steps that nobody has looked at yet."""

    def __init__(self):
        self._steps: list[tuple[int, Tensor, Tensor]] = []

    def note(self, step: int, losses: list[Tensor], rows: list[Tensor]) -> None:
        """Keep a step's losses, (P,) of each micro batch and on its device, and which pairs of the
        split they are of, (P,) on the host."""
        self._steps.append((step, torch.cat(losses), torch.cat(rows)))

    def require(self, pair_ids: np.ndarray) -> None:
        """Look at all of them; every rank calls it after the same steps.

        Args:
            pair_ids: of the split.
        Raises:
            NonFiniteLossError: on every rank, with the first such step and its pairs on all ranks.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        finite = torch.isfinite(torch.cat([losses for _, losses, _ in steps]))
        if not distributed.any_true(~finite.all()):
            return
        bad = {step: [str(pair) for pair in pair_ids[rows[~torch.isfinite(losses).cpu()].numpy()]]
               for step, losses, rows in steps}
        ranks = distributed.gather(bad)
        first = next(step for step in bad if any(rank[step] for rank in ranks))
        named = ", ".join(pair for rank in ranks for pair in rank[first])
        raise NonFiniteLossError(
            f"loss is not finite at step {first}, pairs {named}: training stopped and nothing of "
            "that step is saved, earlier checkpoints are kept; lower learning_rate or look at "
            "these pairs")
