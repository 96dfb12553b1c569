"""Whether a peer computes what ours does: loss and gradients of one step, same weights and pairs.

Nothing that was measured means anything otherwise.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import Trainer

from configs.schema import RuntimeConfig
from speed.mixes import write_split
from speed.ours import trainer_of, used_by_peers
from speed.peers.peer import Peer, Task
from src.common.distributed import device

TOLERANCE = {"cpu": 1e-4, "cuda": 0.1}
"""fp32 on a CPU; bf16 compute on CUDA."""


def step_difference(peers: list[Peer], task: Task, runtime: RuntimeConfig) -> float:
    """The largest difference of the peers' first step to ours: of the loss, and of the gradients of
    all weights together, relative to their norm.

    Args:
        peers: over `task`, which is one round, of one step.

    Raises:
        AssertionError: above the tolerance.
    """
    with tempfile.TemporaryDirectory() as folder:
        split = write_split(task.rows, Path(folder) / "step.arrow")
        with trainer_of(task, split, runtime, used_by_peers()) as trainer:
            loss, gradients = _step(trainer)
    worst = 0.0
    for peer in peers:
        with peer.trainer(peer.parts[0]) as trainer:
            own_loss, own = _step(trainer)
        assert set(own) == set(gradients), f"{peer.name}: other weights have gradients"
        gap = torch.stack([(own[name] - gradients[name]).norm() for name in own]).norm()
        norm = torch.stack([each.norm() for each in gradients.values()]).norm()
        difference = max(abs(own_loss - loss), (gap / norm).item())
        limit = TOLERANCE[device().type]
        assert difference <= limit, (f"{peer.name}: loss or gradients differ from ours by "
                                     f"{difference}, above {limit}")
        worst = max(worst, difference)
    return worst


def _step(trainer: Trainer) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients, by name of the weight, of all batches of the trainer's data together."""
    batches = list(trainer.get_train_dataloader())
    trainer.current_gradient_accumulation_steps = len(batches)
    loss = sum(trainer.training_step(trainer.model, batch).item() for batch in batches)
    return loss, {name.removeprefix("classifier."): weight.grad.float()
                  for name, weight in trainer.model.named_parameters() if weight.grad is not None}
