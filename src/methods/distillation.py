"""Hidden states of teachers that a student's own are to become, through linear connectors.

Of each of two responses, with h_s what the student's layer s gives at its last token, h what its
reward is read from, z_t what a teacher's layer t gives there, and N(x) a state less its mean over
its standard deviation:

    D_k = mean((C_k N(h_s) - N(z_t))^2)          g = softmax(G N(h))

k runs over every teacher and every pair (s, t) of layers. The connectors C_k are linear maps with a
bias, at first the identity as far as both widths reach (FitNets, Romero et al. 2015, arXiv
1412.6550); the gate G, which decides for each response whom it comes to resemble, is 0 at first.
Both train with the student and are not part of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.inner_states import InnerStates


class Connectors(nn.Module):
    """The maps C_k and the gate G.

    Args:
        width: of the student's states.
        widths: of the teachers' states that each of the K maps leads to.
    """

    def __init__(self, width: int, widths: Sequence[int]):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, each) for each in widths)
        self.gate = nn.Linear(width, len(widths), bias=False)
        for each in self.maps:
            nn.init.eye_(each.weight)
            nn.init.zeros_(each.bias)
        nn.init.zeros_(self.gate.weight)

    def forward(self, states: Sequence[Tensor], final: Tensor) -> tuple[list[Tensor], Tensor]:
        """States (..., d) of the K layers, and those that rewards are read from -> the K mapped
        ones (..., d_k), and log g (..., K)."""
        dtype = self.gate.weight.dtype
        mapped = [each(normal(state).to(dtype)).float()
                  for each, state in zip(self.maps, states, strict=True)]
        return mapped, F.log_softmax(self.gate(normal(final).to(dtype)).float(), dim=-1)


def normal(states: Tensor) -> Tensor:
    """(..., d) float32: each state less its mean, over its standard deviation; 0 where it is 0."""
    return F.layer_norm(states.float(), states.shape[-1:])


def distances(mapped: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """(P, 2, K): D_k of both responses of each pair, of states (P, 2, d_k) each; 0 of a response
    that is not there, whose teacher's state is 0."""
    found = [(own - normal(theirs)).square().mean(dim=-1) * theirs.any(dim=-1)
             for own, theirs in zip(mapped, teachers, strict=True)]
    return torch.stack(found, dim=-1)


def gated(distance: Tensor, log_gate: Tensor, balance: float) -> Tensor:
    """(P,): mean over both responses of sum_k g_k D_k + balance * KL(g || equal shares); (P, 2, K)
    each."""
    even = math.log(log_gate.shape[-1])
    return (log_gate.exp() * (distance + balance * (log_gate + even))).sum(dim=-1).mean(dim=-1)


class Distillation:
    """Connectors on a student while it trains: its states are read in every forward `with_states`.

    They are a part of the model, so that whatever shares, saves and resumes its parameters does so
    with theirs, until they are released.

    Args:
        layers: the student's layer that each of the K maps begins at.
        widths: of the states that it leads to.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], widths: Sequence[int]):
        self.model, self.inner = model, InnerStates(model, layers)
        model.connectors = Connectors(model.config.hidden_size, widths)
        self._hook = model.register_forward_hook(self._connect, with_kwargs=True)
        self._found: tuple[list[Tensor], Tensor] | None = None

    def _connect(self, model: nn.Module, args: tuple, inputs: dict[str, Any],
                 out: Tensor | tuple[Tensor, Tensor]) -> None:
        if isinstance(out, tuple):
            states = self.inner.read(inputs["last_index"], out[1])
            self._found = model.connectors(states, out[1])

    def compared(self, left: Tensor, right: Tensor,
                 teachers: Sequence[Tensor]) -> dict[str, Tensor]:
        """`distances` and `log_gate`, (P, 2, K), of the pairs of the last forward.

        Args:
            left, right: (P,), where in its rewards, flattened, those of each pair are.
            teachers: (P, 2, d_k) states of left and right.
        """
        mapped, log_gate = self._found
        *mapped, log_gate = (torch.stack([each.flatten(0, 1)[side] for side in (left, right)], 1)
                             for each in (*mapped, log_gate))
        self._found = None
        return {"distances": distances(mapped, teachers), "log_gate": log_gate}

    def release(self) -> None:
        """Leave the model as it was before, but for what it has learned."""
        self.inner.release()
        self._hook.remove()
        del self.model.connectors
