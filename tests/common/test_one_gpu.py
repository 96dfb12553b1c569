"""One process on a box of several GPUs is refused before it trains."""

from types import SimpleNamespace

import pytest
import torch

from model.pretraining import pretrain
from src.common.distributed import require_one_gpu
from src.common.errors import UserError
from src.training.arguments import training_arguments


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch):
    monkeypatch.setattr("src.common.distributed.device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("trains", [
    require_one_gpu,
    lambda: training_arguments(None, None, None, 0),
    lambda: pretrain(SimpleNamespace(output_dir="model/checkpoints/not_there", name="x")),
])
def test_several_gpus_are_refused_with_what_to_set(trains):
    with pytest.raises(UserError, match="one process sees 2 GPUs.*set CUDA_VISIBLE_DEVICES=0"):
        trains()


def test_a_process_of_several_has_one_each(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    require_one_gpu()
