"""The stages of a tiny experiment, each in this process, for tests of what lies between them."""

import yaml

from configs.run import STAGES
from configs.schema import DataConfig, ExperimentConfig, load_config
from data.prepare import TokenizerSpec, prepare
from src.runs.plan import Plan
from src.train import train_stage
from tests.tiny_experiment import TinyExperiment


def prepare_data(tiny: TinyExperiment) -> None:
    config = load_config(DataConfig, str(tiny.root / "pairs.yaml"))
    prepare(config, tiny.processed, [TokenizerSpec("tiny", str(tiny.model))])


def sweep_of(tiny: TinyExperiment, seeds: tuple[int, ...] = ()) -> Plan:
    config = load_config(ExperimentConfig, str(tiny.config))
    return Plan(config, tiny.processed.parent, seeds)


def nested_plan(tiny: TinyExperiment, teachers: list[int], students: list[int], runtime: dict,
                **train) -> Plan:
    """The plan of an experiment like `tiny`, whose rungs are the first layers of its model."""
    values = tiny.settings()
    for name, layers in (("teachers", teachers), ("students", students)):
        values[name] = [{**values[name][0], "layers": layers, "keep": "first"}]
    values["train"] |= train
    values["runtime"] |= runtime
    path = tiny.config.with_name("nested.yaml")
    path.write_text(yaml.safe_dump(values))
    return Plan(load_config(ExperimentConfig, str(path)), tiny.processed.parent)


def train_all(tiny: TinyExperiment) -> None:
    """Every run of every stage; an error where one fails."""
    sweep = sweep_of(tiny)
    failed = [reason for stage in STAGES
              for reason in train_stage(sweep, stage, tiny.runs_dir, 0, 1)]
    assert not failed, failed
