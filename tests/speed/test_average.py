"""The comparison of merges: its models load, its figures are those of the command it starts."""

import sys

import pytest
from transformers import AutoModelForCausalLM

from configs.averaging import load_recipe
from model.base.average.folders import average_folders
from speed.merge import average
from src.common.errors import UserError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(average, "SHAPE", average.SHAPE | {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2})


def test_our_merge_of_its_checkpoints_is_the_average_in_memory(tmp_path, small):
    for seed, name in enumerate(("base", "tuned")):
        average.write_checkpoint(tmp_path / name, 3, seed)
    AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    average_folders(tmp_path / "base", tmp_path / "tuned", load_recipe(average.RECIPE),
                    tmp_path / "out")
    folders = [tmp_path / name for name in ("base", "tuned", "out")]
    assert average.largest_difference(*folders, 3) == 0
    assert average.largest_difference(folders[0], folders[1], folders[0], 3) > 1e-3


def test_peak_memory_is_the_commands_own():
    held = average.measured([sys.executable, "-c", "import time; x = b'1' * (80 << 20); "
                             "time.sleep(1.5)"])
    assert 80 <= held["peak_mib"] < 200 and held["seconds"] >= 1.5
    with pytest.raises(UserError, match="ended with 3: why"):
        average.measured([sys.executable, "-c", "print('why'); raise SystemExit(3)"])
