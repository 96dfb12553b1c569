"""Whether a run's decoder layers are compiled, and a warning where that is done over and over."""

import logging

import torch
from transformers import PreTrainedModel, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import unwrap_peft_model

from configs.schema import RuntimeConfig
from model import compiled
from model.attention.flex import can_compile
from src.common import distributed
from src.common.errors import UserError

log = logging.getLogger(__name__)


def is_asked(runtime: RuntimeConfig, device: torch.device) -> bool:
    """Whether layers are to be compiled; where nothing is said, on CUDA, if it can be done.

    Under ZeRO-3 they are not: hooks that fetch each weight would part the code at every module.

    Raises:
        UserError: they are to be, and cannot.
    """
    zero3 = is_deepspeed_zero3_enabled()
    if runtime.compile_layers is None:
        return device.type == "cuda" and runtime.pack and not zero3 and can_compile("cuda")
    if runtime.compile_layers and zero3:
        raise UserError("runtime.compile_layers: true, under ZeRO-3, which fetches weights module "
                        "by module: leave the key out, or take HARDWARE=zero2")
    if runtime.compile_layers:
        _require_compiler(device)
    return runtime.compile_layers


def _require_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.sin, backend=compiled.BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"runtime.compile_layers: true, but nothing can be compiled here "
                        f"({type(error).__name__}: {reason}): install a C++ compiler, and on CUDA "
                        "Triton, or leave the key out") from error


class LayerGraphs(TrainerCallback):
    """Compiles a model's layers, and counts the graphs that come of it.

    More than a model has by itself say that something differs from step to step that should not:
    each costs a minute. The first one is a warning with its cause.
    """

    def __init__(self, model: PreTrainedModel, last_layer_shortcut: bool):
        self._compiler = compiled.compiler(compiled.BACKEND)
        self._before = len(self._compiler.compiled)
        self._has_warned = False
        self.layers = compiled.compile_layers(unwrap_peft_model(model), last_layer_shortcut)
        """Compiled ones."""

    @property
    def graphs(self) -> int:
        """Compiled since training began; none where an earlier run has left all."""
        return len(self._compiler.compiled) - self._before

    def on_step_end(self, args, state, control, **kwargs):
        if self.graphs > compiled.MOST_GRAPHS and not self._has_warned:
            self._has_warned = True
            if distributed.is_main():
                log.warning(
                    "step %d: a decoder layer was compiled again, %d graphs where %d serve rows of "
                    "any length; the cause: %s. runtime.compile_layers: false trains without",
                    state.global_step, self.graphs, compiled.MOST_GRAPHS, self._compiler.cause())
