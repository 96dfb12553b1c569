"""Every run of every committed experiment is known by the identity that it always had.

`identities.csv` is what finished runs, their weak labels and shared ceilings are found by: where a
line changes, all of them are trained again. Data, and base models other than the demo's, have
stand-ins: these identities cover what the configs say. A new experiment adds lines, which the
failing test prints; a line changes only with its experiment, on purpose, which results/LOG.md says.
"""

import csv
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.data_schema import CompareConfig
from configs.identity import FIRST_KEYS, facts, written
from configs.model_schema import ModelConfig
from configs.run import POLICIES, STAGES
from configs.schema import (
    CONFIG_ROOT,
    DataConfig,
    EvalConfig,
    ExperimentConfig,
    LoraConfig,
    MethodConfig,
    TrainConfig,
    load_config,
)
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.hashing import content_hash
from src.runs import plan, rungs
from src.runs.bases import BaseModel
from src.runs.plan import Plan

TABLE = Path(__file__).with_name("identities.csv")
EXPERIMENTS = sorted(path.stem for path in (CONFIG_ROOT / "experiments").glob("*.yaml"))
LAYERS = {"chess_small": 6, "hh_small": 6, "gemma_2_2b": 26, "gemma_2_9b": 42, "gpt2": 12,
          "gpt2_medium": 24, "gpt2_large": 36, "gpt2_xl": 48, "gpt_neo_125m": 12,
          "gpt_neo_1_3b": 24, "gpt_neo_2_7b": 32, "llama_3_1_8b": 32, "llama_3_2_1b": 16,
          "llama_3_2_3b": 28, "ministral_3b": 26, "ministral_4b": 34, "ministral_8b": 36,
          "mistral_7b": 32, "mistral_nemo_12b": 40, "qwen3_0_6b": 28, "qwen3_1_7b": 28,
          "qwen3_4b": 36, "qwen3_8b": 36, "smollm2_135m": 30, "gemma_3_270m": 18,
          "demo_generative": 8, **{f"demo_verdicts_{percent}": 8 for percent in (0, 1, 5, 20, 50)}}
"""Decoder layers of the base models, as their config.json has them."""


class StandIn(BaseModel):
    """A base model without a checkpoint; `demo` is itself."""

    has_language_head = True

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

    def parameters(self, kept: tuple[int, ...]) -> int:
        """Of the base model's size, the share of its layers that are kept."""
        if self.key == "demo":
            return super().parameters(kept)
        return round(1e9 * self.hf_config.size * len(kept) / self.layers)


def identities(config: ExperimentConfig, data_dir: Path) -> list[list[str]]:
    """Lines of the table: experiment, stage, name, identity."""
    (data_dir / config.data).mkdir(exist_ok=True)
    sweep = Plan(config, data_dir)
    return [[config.name, stage, run.display_name, run.identity]
            for stage in (*STAGES, POLICIES) for run in sweep.stage(stage)]


def committed(experiment: str) -> list[list[str]]:
    """The same lines as they stand in the table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [line for line in csv.reader(file) if line[0] == experiment]


@pytest.fixture
def stand_ins(monkeypatch):
    """No base model is asked for but the demo's, and no prepared data; the upper layers of a base
    model have the more influence."""
    monkeypatch.setattr(plan, "BaseModel", StandIn)
    monkeypatch.setattr(rungs, "_influence", lambda ladder, base, *facts: list(range(base.layers)))
    monkeypatch.setattr(plan, "read_manifest", lambda folder: {
        "data_hash": content_hash(["stand-in data", folder.name]), "splits": {"val": {"pairs": 1}}})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_run_of_a_committed_experiment_keeps_its_identity(experiment, tmp_path, stand_ins):
    found = identities(load_config(ExperimentConfig, experiment), tmp_path)
    assert found == committed(experiment), f"{TABLE.relative_to(REPO_ROOT)}, as it is now:\n" + (
        "\n".join(map(",".join, found)))


@dataclass(frozen=True)
class LaterMethod(MethodConfig):
    """MethodConfig, once it has keys that nobody has thought of yet."""

    temperature: float = 1.0
    heads: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class LaterTrain(TrainConfig):
    optimiser: str = "adamw"


def later(monkeypatch, **values) -> ExperimentConfig:
    """The demo with a later MethodConfig in every method, and in that of ground truth."""
    def extended(method: MethodConfig) -> LaterMethod:
        return LaterMethod(**dataclasses.asdict(method), **values)

    monkeypatch.setattr(plan, "GROUND_TRUTH_METHOD", extended(plan.GROUND_TRUTH_METHOD))
    demo = load_config(ExperimentConfig, "demo")
    return dataclasses.replace(demo, methods=tuple(map(extended, demo.methods)))


def changed(found: list[list[str]]) -> set[str]:
    """Stages of the demo whose identities are not the table's; all of a stage's change, or none."""
    pairs = list(zip(committed("demo"), found, strict=True))
    stages = {old[1] for old, new in pairs if old != new}
    assert all(old[3] != new[3] for old, new in pairs if old[1] in stages)
    return stages


def test_a_new_method_key_at_its_default_changes_no_identity(tmp_path, stand_ins, monkeypatch):
    assert not changed(identities(later(monkeypatch), tmp_path))


@pytest.mark.parametrize("values", [{"temperature": 2.0}, {"heads": ("a",)}], ids=str)
def test_a_new_method_key_changes_only_the_students(tmp_path, stand_ins, monkeypatch, values):
    assert changed(identities(later(monkeypatch, **values), tmp_path)) == {"students"}


def test_another_default_of_a_method_key_leaves_ground_truth_alone(tmp_path, stand_ins,
                                                                   monkeypatch):
    monkeypatch.setattr(plan, "GROUND_TRUTH_METHOD",
                        dataclasses.replace(plan.GROUND_TRUTH_METHOD, warmup_frac=0.7))
    assert not changed(identities(load_config(ExperimentConfig, "demo"), tmp_path))


def test_a_new_budget_key_changes_every_run_but_only_off_its_default(tmp_path, stand_ins):
    demo = load_config(ExperimentConfig, "demo")
    train = LaterTrain(**dataclasses.asdict(demo.train))
    assert not changed(identities(dataclasses.replace(demo, train=train), tmp_path))
    train = dataclasses.replace(train, optimiser="muon")
    assert changed(identities(dataclasses.replace(demo, train=train), tmp_path)) == set(STAGES)


def test_a_loss_for_weak_labels_is_refused_on_ground_truth(tmp_path, stand_ins, monkeypatch):
    """Its identity would not tell."""
    monkeypatch.setattr(plan, "GROUND_TRUTH_METHOD", MethodConfig("odd", "margin_mse"))
    with pytest.raises(UserError, match="loss margin_mse is for weak labels: expected hard_bt"):
        identities(load_config(ExperimentConfig, "demo"), tmp_path)


@dataclass(frozen=True)
class LaterCompare(CompareConfig):
    margin: float = 0.0


@dataclass(frozen=True)
class LaterData(DataConfig):
    shards: int = 1


@pytest.mark.parametrize("cls", [EvalConfig, TrainConfig, CompareConfig])
def test_the_facts_of_a_config_are_all_its_first_keys(cls):
    values = json.loads(json.dumps(dataclasses.asdict(cls())))
    assert facts(cls()) == {key: values[key] for key in FIRST_KEYS[cls.__name__]}


def test_adapters_change_the_identity_of_every_run_and_each_of_their_keys_does(tmp_path,
                                                                               stand_ins):
    demo = load_config(ExperimentConfig, "demo")
    seen = {run[3] for run in committed("demo")}
    for lora in (LoraConfig(), LoraConfig(rank=8), LoraConfig(alpha=8),
                 LoraConfig(targets=("q_proj",))):
        train = dataclasses.replace(demo.train, lora=lora)
        found = {run[3] for run in identities(dataclasses.replace(demo, train=train), tmp_path)}
        assert len(found) == len(committed("demo")) and not found & seen
        seen |= found


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIG_ROOT / "data").glob("*.yaml")))
def test_scores_of_a_data_set_are_found_by_what_its_config_always_said(name):
    config, first = load_config(DataConfig, name), FIRST_KEYS["DataConfig"]
    always = "DataConfig(" + ", ".join(f"{key}={getattr(config, key)!r}" for key in first) + ")"
    values = {f.name: getattr(config, f.name) if f.name in first else f.default
              for f in dataclasses.fields(config)}
    assert written(DataConfig(**values)) == always
    values["compare"] = LaterCompare(**dataclasses.asdict(config.compare))
    later_text = written(LaterData(**values))
    assert later_text.replace("LaterData", "DataConfig").replace(
        "LaterCompare", "CompareConfig") == always
    values["compare"] = dataclasses.replace(values["compare"], margin=1.0)
    assert "margin=1.0" in written(LaterData(**values))
    assert config.balance == "none" or f"balance={config.balance!r}" in written(config)
