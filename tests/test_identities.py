"""Every run of every committed experiment is known by the identity that it always had.

`identities.csv` is what finished runs, their weak labels and shared ceilings are found by: where a
line changes, all of them are trained again. Data, and base models other than the demo's, have
stand-ins: these identities cover what the configs say. A new experiment adds lines, which the
failing test prints; no line is ever changed.
"""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.schema import (
    CONFIG_ROOT,
    REPO_ROOT,
    STAGES,
    ExperimentConfig,
    ModelConfig,
    load_config,
)
from data.records import content_hash
from src import sweep
from src.sweep import BaseModel, Sweep

TABLE = Path(__file__).with_name("identities.csv")
EXPERIMENTS = sorted(path.stem for path in (CONFIG_ROOT / "experiments").glob("*.yaml"))
LAYERS = {"chess_small": 6, "hh_small": 6, "gemma_2_2b": 26, "gemma_2_9b": 42, "gpt2": 12,
          "gpt2_medium": 24, "gpt2_large": 36, "gpt2_xl": 48, "gpt_neo_125m": 12,
          "gpt_neo_1_3b": 24, "gpt_neo_2_7b": 32, "llama_3_1_8b": 32, "llama_3_2_1b": 16,
          "llama_3_2_3b": 28, "ministral_3b": 26, "ministral_4b": 34, "ministral_8b": 36,
          "mistral_7b": 32, "mistral_nemo_12b": 40, "qwen3_0_6b": 28, "qwen3_1_7b": 28,
          "qwen3_4b": 36, "qwen3_8b": 36}
"""Decoder layers of the base models, as their config.json has them."""


class StandIn(BaseModel):
    """A base model without a checkpoint; `demo` is itself."""

    def __init__(self, key: str):
        if key == "demo":
            super().__init__(key)
            return
        self.key, self.layers = key, LAYERS[key]
        self.config = load_config(ModelConfig, key)
        self.hf_config = SimpleNamespace(max_position_embeddings=1 << 20, layers=self.layers,
                                         size=self.config.parameters or 1.0)
        self.fingerprint = content_hash(["stand-in base", key])
        self.tokenizer_key = content_hash(["stand-in tokenizer", key], 12)


def parameters(config, kept: tuple[int, ...]) -> tuple[int, int]:
    """Of the base model's size, the share of its layers that are kept."""
    size = getattr(config, "size", 1.0)
    layers = getattr(config, "layers", None) or config.num_hidden_layers
    return (round(1e9 * size * len(kept) / layers),) * 2


def identities(experiment: str, data_dir: Path) -> list[list[str]]:
    """Lines of the table: experiment, stage, name, identity."""
    config = load_config(ExperimentConfig, experiment)
    (data_dir / config.data).mkdir()
    plan = Sweep(config, data_dir)
    return [[experiment, stage, run.display_name, run.identity]
            for stage in STAGES for run in plan.runs(stage)]


@pytest.fixture
def stand_ins(monkeypatch):
    """No base model is asked for but the demo's, and no prepared data."""
    monkeypatch.setattr(sweep, "BaseModel", StandIn)
    monkeypatch.setattr(sweep, "count_parameters", parameters)
    monkeypatch.setattr(sweep, "read_manifest", lambda folder: {
        "data_hash": content_hash(["stand-in data", folder.name])})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_run_of_a_committed_experiment_keeps_its_identity(experiment, tmp_path, stand_ins):
    with TABLE.open(newline="", encoding="utf-8") as file:
        committed = [line for line in csv.reader(file) if line[0] == experiment]
    found = identities(experiment, tmp_path)
    assert found == committed, f"{TABLE.relative_to(REPO_ROOT)}, as the code has it now:\n" + (
        "\n".join(map(",".join, found)))
