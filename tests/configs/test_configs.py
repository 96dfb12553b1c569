"""Every file in configs/ loads, and names only what exists."""

import ast
import dataclasses
import json
import re
import typing
from fnmatch import fnmatch

import pytest
import yaml

import configs.data_schema
import configs.schema
from configs.launch_schema import LaunchConfig
from configs.model_schema import ModelConfig
from configs.schema import (
    CONFIG_ROOT,
    DataConfig,
    ExperimentConfig,
    PretrainConfig,
    load_config,
)
from data.pairs.splits import TRAIN
from data.read.fields import COLUMNS
from data.records import SPLITS
from model.base.truncate import LAYER_LISTS
from src.batches.packing import scoring_budget
from src.common.files import REPO_ROOT
from src.methods.losses import LOSSES

FOLDERS = {"models": ModelConfig, "data": DataConfig, "experiments": ExperimentConfig,
           "pretrain": PretrainConfig, "launch": LaunchConfig}
NAMED = {"models": {"llama_3_2_1b", "llama_3_2_3b", "llama_3_1_8b", "gemma_2_2b", "gpt2", "demo"},
         "experiments": {"llama_3_2_1b", "llama_3_2_3b", "llama_3_1_8b", "gemma_2_2b", "gpt_neo",
                         "gpt2", "mistral", "demo", "hh_single_turn"}}
"""What the scripts and the README promise."""


def names(folder):
    return sorted(path.stem for path in (CONFIG_ROOT / folder).glob("*.yaml"))


def each(folder):
    return pytest.mark.parametrize("name", names(folder))


@pytest.mark.parametrize("path", [path.relative_to(CONFIG_ROOT) for path in
                                  sorted(CONFIG_ROOT.rglob("*.y*ml"))], ids=str)
def test_every_yaml_file_is_of_a_kind_that_is_loaded(path):
    assert path.suffix == ".yaml" and len(path.parts) == 2
    assert path.parts[0] in (*FOLDERS, "averaging", "hardware", "tax")


@pytest.mark.parametrize(("folder", "name"), [(f, n) for f in FOLDERS for n in names(f)])
def test_every_config_loads_strictly(folder, name):
    assert load_config(FOLDERS[folder], name).name == name


@pytest.mark.parametrize("folder", NAMED)
def test_what_is_promised_is_there(folder):
    assert NAMED[folder] <= set(names(folder))


def test_the_readme_s_list_of_experiments_is_whole():
    """`gemma_3_*` stands for all that begin so."""
    page = (REPO_ROOT / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"`([\w*]+)`", page.split("Ready in `configs/experiments`")[1].split("##")[0])
    there = names("experiments")
    assert [name for name in there if not any(fnmatch(name, each) for each in told)] == []
    assert [each for each in told if not any(fnmatch(name, each) for name in there)] == []


@each("experiments")
def test_an_experiment_names_data_and_models_that_exist(name):
    experiment = load_config(ExperimentConfig, name)
    assert experiment.data in names("data")
    assert set(experiment.model_names) <= set(names("models"))


@each("experiments")
def test_the_longest_pair_is_within_the_budget_of_a_micro_batch(name):
    experiment = load_config(ExperimentConfig, name)
    longest = 2 * load_config(DataConfig, experiment.data).max_length
    assert longest <= experiment.runtime.micro_batch_tokens
    assert longest <= scoring_budget(experiment.runtime, "cpu", packed=True).tokens


@each("experiments")
def test_a_committed_method_names_a_loss_that_there_is(name):
    assert {method.loss for method in load_config(ExperimentConfig, name).methods} <= set(LOSSES)


LEFT_OVER = {("truncation", "drop"), ("take", "best_vs_rest"), ("tokenizer", "bpe")}
"""What is done where the code has found none of the key's other names."""
HANDED_ON = {("schedule", "constant"), ("report_to", "wandb")}
"""Names of transformers, which refuses those that it does not know."""


def words_of(hint) -> set:
    """Every name that a type allows."""
    own = set(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else set()
    return own.union(*(words_of(part) for part in typing.get_args(hint)
                       if not isinstance(part, str)))


def test_every_name_that_a_config_may_hold_stands_in_the_code():
    """One without code would do what another name means, and nobody would know."""
    said = {node.value for folder in ("src", "data", "model")
            for path in (REPO_ROOT / folder).rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    classes = {cls for module in (configs.schema, configs.data_schema)
               for cls in vars(module).values() if dataclasses.is_dataclass(cls)}
    unsaid = {(key, word) for cls in classes for key, hint in typing.get_type_hints(cls).items()
              for word in words_of(hint) - said}
    assert unsaid == LEFT_OVER | HANDED_ON


@each("models")
def test_a_model_is_of_a_supported_family_at_a_pinned_revision(name):
    model = load_config(ModelConfig, name)
    assert model.family in LAYER_LISTS
    made_here = model.checkpoint.startswith("model/")
    assert made_here or len(model.revision) == 40 and int(model.revision, 16)


@each("models")
def test_a_model_s_chat_template_is_in_the_folder_of_templates(name):
    template = load_config(ModelConfig, name).chat_template
    assert not template or (CONFIG_ROOT / "templates" / template).is_file()


@each("data")
def test_a_data_config_says_where_it_is_published_and_maps_known_columns(name):
    data = load_config(DataConfig, name)
    assert data.source
    assert set(data.keys) <= set(COLUMNS)
    assert set(data.files) <= {*SPLITS, TRAIN}


@each("pretrain")
def test_a_pretraining_config_never_reads_test_pairs_and_makes_a_model_that_is_used(name):
    config = load_config(PretrainConfig, name)
    assert not any("test" in path for path in (*config.documents, *config.books, *config.pairs))
    made = {load_config(ModelConfig, model).checkpoint for model in names("models")}
    assert config.output_dir in made
    assert (CONFIG_ROOT / "templates" / config.chat_template).is_file()


@pytest.mark.parametrize("name", ["cpu", "gpu", "multi_gpu", "zero2", "zero3"])
def test_a_hardware_config_names_files_that_exist(name):
    hardware = yaml.safe_load((CONFIG_ROOT / "hardware" / f"{name}.yaml").read_text())
    assert (hardware["distributed_type"] == "DEEPSPEED") == name.startswith("zero")
    if name.startswith("zero"):
        file = REPO_ROOT / hardware["deepspeed_config"]["deepspeed_config_file"]
        assert json.loads(file.read_text())["zero_optimization"]["stage"] == int(name[-1])
