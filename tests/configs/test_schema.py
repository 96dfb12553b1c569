"""The strict way from YAML to dataclasses, and what makes two runs the same run."""

import dataclasses
import json
import re
from typing import Any

import pytest
import yaml

from configs.averaging import Adaptive, Recipe
from configs.model_schema import ModelConfig
from configs.policy_schema import PolicyStep
from configs.run import RunConfig
from configs.schema import (
    DataConfig,
    EvalConfig,
    ExperimentConfig,
    LadderConfig,
    LoraConfig,
    MethodConfig,
    PretrainConfig,
    RuntimeConfig,
    TrainConfig,
    from_dict,
    load_config,
)
from src.common.errors import UserError

WHOLE: dict[type, dict[str, Any]] = {
    ModelConfig: {"name": "m", "checkpoint": "owner/m", "family": "llama"},
    DataConfig: {"name": "d", "path": "owner/d"},
    LadderConfig: {"model": "m"},
    MethodConfig: {"name": "soft"},
    TrainConfig: {},
    RuntimeConfig: {},
    EvalConfig: {},
    ExperimentConfig: {"name": "e", "data": "d", "teachers": [{"model": "m", "layers": [1]}],
                       "students": [{"model": "m"}]},
    PretrainConfig: {"name": "p", "output_dir": "out", "max_length": 8, "documents": ["a.txt"]},
}
"""The least that each config needs."""

BAD = [
    (ModelConfig, {"learning_rate": 0}), (ModelConfig, {"learning_rate": float("inf")}),
    (ModelConfig, {"name": "a/b"}),
    (DataConfig, {"path": ""}), (DataConfig, {"files": {"test": "t"}}),
    (DataConfig, {"expected": {"train": 60}}),
    (DataConfig, {"form": "csv"}), (DataConfig, {"fraction": 0}), (DataConfig, {"fraction": 1.5}),
    (DataConfig, {"test_pairs": 0}), (DataConfig, {"val_pairs": -1}),
    (DataConfig, {"train_pairs": 0}), (DataConfig, {"max_length": 0}),
    (DataConfig, {"balance": "words"}), (DataConfig, {"balance": "length", "pointwise": True}),
    (DataConfig, {"truncation": "right"}), (DataConfig, {"max_bad_frac": 1}),
    (LadderConfig, {"learning_rate": 0.0}), (LadderConfig, {"layers": [0]}),
    (LadderConfig, {"layers": [2, 2]}),
    (LadderConfig, {"keep": "last"}), (LadderConfig, {"keep": [1, 2], "layers": [2]}),
    (MethodConfig, {"aux_coef": 0.5}),
    (MethodConfig, {"loss": "confidence", "aux_coef": 1.5}),
    (MethodConfig, {"loss": "confidence", "aux_coef": 0.5, "warmup_frac": -0.1}),
    (MethodConfig, {"name": "a/b"}), (MethodConfig, {"name": ""}), (MethodConfig, {"name": ".a"}),
    (MethodConfig, {"stop_on": "truth"}), (MethodConfig, {"early_stopping_evals": -1}),
    (MethodConfig, {"early_stopping_evals": 2, "learner": "probe"}),
    (TrainConfig, {"epochs": 0}), (TrainConfig, {"epochs": float("inf")}),
    (TrainConfig, {"batch_pairs": 0}), (TrainConfig, {"learning_rate": -1e-5}),
    (TrainConfig, {"learning_rate": float("nan")}), (TrainConfig, {"schedule": "step"}),
    (TrainConfig, {"lr_warmup_frac": 1}), (TrainConfig, {"weight_decay": -1}),
    (TrainConfig, {"max_grad_norm": 0}), (TrainConfig, {"center_coef": -0.1}),
    (TrainConfig, {"precision": "fp16"}), (TrainConfig, {"early_stopping_evals": -1}),
    (TrainConfig, {"eval_frac": 0}),
    (TrainConfig, {"shuffle": "responses"}), (TrainConfig, {"trainable_layers": 0}),
    (TrainConfig, {"trunk_cache_dtype": "fp16"}),
    (RuntimeConfig, {"micro_batch_tokens": 0}), (RuntimeConfig, {"score_batch_tokens": 0}),
    (RuntimeConfig, {"attention": "eager"}), (RuntimeConfig, {"trunk_cache_gb": -1}),
    (RuntimeConfig, {"trunk_cache_dtype": "fp16"}),
    (RuntimeConfig, {"save_steps": 0}), (RuntimeConfig, {"logging_steps": 0}),
    (RuntimeConfig, {"report_to": "mlflow"}),
    (EvalConfig, {"pgr_floor": -0.1}), (EvalConfig, {"bootstrap_samples": 99}),
    (EvalConfig, {"level": 1}),
    (ExperimentConfig, {"teachers": []}),
    (ExperimentConfig, {"methods": []}), (ExperimentConfig, {"seeds": []}),
    (ExperimentConfig, {"seeds": [1, 1]}), (ExperimentConfig, {"seeds": [-1]}),
    (ExperimentConfig, {"seeds": [2**32]}), (ExperimentConfig, {"name": "a/b"}),
    (ExperimentConfig, {"methods": [{"name": "a"}, {"name": "a", "loss": "hard_bt"}]}),
    (PretrainConfig, {"documents": []}), (PretrainConfig, {"heads": 0}),
    (PretrainConfig, {"heads": 3}), (PretrainConfig, {"layers": 0}),
    (PretrainConfig, {"max_length": 0}), (PretrainConfig, {"epochs": 0}),
    (PretrainConfig, {"batch_rows": 0}), (PretrainConfig, {"learning_rate": 0}),
    (PretrainConfig, {"vocab_size": 5}),
]
WRONG_TYPE = [
    (ModelConfig, {"checkpoint": 3}), (ModelConfig, {"learning_rate": "fast"}),
    (DataConfig, {"test_pairs": 1.5}), (DataConfig, {"test_pairs": True}),
    (DataConfig, {"keys": ["prompt"]}), (DataConfig, {"files": {"test": 3}, "path": ""}),
    (DataConfig, {"train_pairs": "all"}), (LadderConfig, {"layers": 4}),
    (LadderConfig, {"layers": ["4"]}), (TrainConfig, {"epochs": True}),
    (TrainConfig, {"schedule": None}), (RuntimeConfig, {"share_prompt": "yes"}),
    (RuntimeConfig, {"pack": 1}), (TrainConfig, {"trainable_layers": "all"}),
    (ExperimentConfig, {"teachers": {"model": "m"}}), (ExperimentConfig, {"train": 3}),
    (ExperimentConfig, {"seeds": 3}), (MethodConfig, {"loss": 3}),
    (TrainConfig, {"batch_pairs": 2**63}), (DataConfig, {"expected": {"rows": 2**63}}),
    (TrainConfig, {"epochs": 10**400}), (TrainConfig, {"epochs": "1e999"}),
    (ExperimentConfig, {"train": None}), (DataConfig, {"keys": {1: "prompt"}}),
]


def ident(value):
    return value.__name__ if isinstance(value, type) else json.dumps(value)


@pytest.mark.parametrize("cls", WHOLE, ids=ident)
def test_the_least_that_a_config_needs_is_enough(cls):
    assert isinstance(from_dict(cls, WHOLE[cls], "here"), cls)


@pytest.mark.parametrize("cls", WHOLE, ids=ident)
def test_an_unknown_key_is_refused_with_the_known_ones(cls):
    with pytest.raises(UserError, match="here: unknown key leyers; expected some of"):
        from_dict(cls, {**WHOLE[cls], "leyers": 1}, "here")


@pytest.mark.parametrize("cls", [cls for cls, least in WHOLE.items() if least], ids=ident)
def test_a_missing_key_is_named(cls):
    key = next(iter(WHOLE[cls]))
    with pytest.raises(UserError, match=f"here: key {key} is missing"):
        from_dict(cls, {k: v for k, v in WHOLE[cls].items() if k != key}, "here")


@pytest.mark.parametrize(("cls", "change"), BAD, ids=ident)
def test_an_impossible_value_is_refused_with_its_place(cls, change):
    with pytest.raises(UserError, match="^here"):
        from_dict(cls, {**WHOLE[cls], **change}, "here")


@pytest.mark.parametrize(("cls", "change"), WRONG_TYPE, ids=ident)
def test_a_wrong_type_is_refused_with_key_and_value(cls, change):
    key = next(iter(change))
    with pytest.raises(UserError, match=f"^here: {key}.*( must be |expected .* found)"):
        from_dict(cls, {**WHOLE[cls], **change}, "here")


def test_a_key_of_a_nested_list_is_named_with_its_place():
    bad = {**WHOLE[ExperimentConfig], "methods": [{"name": "a"}, {"name": "b", "los": "soft_bt"}]}
    with pytest.raises(UserError, match=re.escape("here: methods[1]: unknown key los")):
        from_dict(ExperimentConfig, bad, "here")


def test_whole_numbers_and_exponents_without_a_point_pass_as_floats():
    model = from_dict(ModelConfig, {**WHOLE[ModelConfig], **yaml.safe_load("learning_rate: 1e-5")},
                      "here")
    assert model.learning_rate == 1e-5
    assert from_dict(TrainConfig, {"epochs": 2}, "here").epochs == 2.0


@pytest.mark.parametrize("key", ["self", "cls", "__dataclass_self__", 1, None])
def test_a_key_that_a_constructor_could_stumble_over_is_only_unknown(key):
    with pytest.raises(UserError, match=f"here: unknown key {key}; expected some of"):
        from_dict(TrainConfig, {key: 1}, "here")


def test_a_config_changed_in_code_is_held_to_its_types_too():
    with pytest.raises(UserError, match="^epochs 0 must be above 0$"):
        dataclasses.replace(TrainConfig(), epochs=0)
    with pytest.raises(UserError, match="^aux_coef 2.0 must be at most 1$"):
        MethodConfig("name", "confidence", 2.0)
    with pytest.raises(UserError):
        MethodConfig(*dataclasses.astuple(MethodConfig("name")), "one too many")
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 2


def test_keep_takes_a_word_or_a_list():
    assert from_dict(LadderConfig, {"model": "m", "keep": [1, 5]}, "here").keep == (1, 5)
    assert from_dict(LadderConfig, {"model": "m", "keep": "first"}, "here").keep == "first"


def test_the_file_s_name_is_the_config_s_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("checkpoint: owner/m\nfamily: llama\n")
    assert load_config(ModelConfig, str(path)).name == "mine"


def test_an_unknown_config_lists_the_known_ones():
    with pytest.raises(UserError, match="no models config 'llama_9': expected one of .*llama_3_2"):
        load_config(ModelConfig, "llama_9")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "a: [1", "a: !!python/none x",
                                  "\t", "checkpoint: a\nfamily: llama\nfamily: gpt2\n"])
def test_a_file_that_is_no_sound_mapping_is_refused_by_name(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="broken.yaml"):
        load_config(ModelConfig, str(path))


def test_a_key_given_twice_is_named(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("checkpoint: a\nfamily: llama\nfamily: gpt2\n")
    with pytest.raises(UserError, match="family.*twice"):
        load_config(ModelConfig, str(path))


def test_a_file_that_is_not_utf_8_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_bytes(b"checkpoint: \xff")
    with pytest.raises(UserError, match="broken.yaml"):
        load_config(ModelConfig, str(path))


def test_a_model_folder_on_disk_is_used_as_it_is_and_a_hub_id_is_a_checkpoint(tmp_path):
    local = ModelConfig("m", checkpoint=str(tmp_path), family="llama")
    hub = ModelConfig("m", checkpoint="owner/m", family="llama")
    assert local.path == tmp_path
    assert hub.path.parts[-3:] == ("model", "checkpoints", "m")


RUN = RunConfig(
    experiment="e", kind="student", name="m-L4", model="m", base="0" * 16, kept=(1, 3), data="d",
    data_hash="1" * 16, tokenizer="2" * 12, split="train_2", labels="3" * 16, teacher="m-L2",
    method=MethodConfig("conf", "confidence", 0.5, 0.2), train=TrainConfig(learning_rate=1e-4),
    seed=0)

MATTERS = {
    "kind": "ceiling", "base": "9" * 16, "kept": (0, 3), "data_hash": "9" * 16,
    "tokenizer": "9" * 12, "split": "train_1", "labels": "9" * 16, "seed": 1,
    "earlier": "9" * 16, "train_share": 0.5,
    "method": [MethodConfig("conf", "confidence", 0.6, 0.2), MethodConfig("conf", "soft_bt"),
               MethodConfig("conf", "confidence", 0.5, 0.3),
               dataclasses.replace(RUN.method, loss_options={"beta": 2.0}),
               dataclasses.replace(RUN.method, treatment="confident"),
               dataclasses.replace(RUN.method, treatment_options={"keep_share": 0.2}),
               dataclasses.replace(RUN.method, early_stopping_evals=2),
               dataclasses.replace(RUN.method, early_stopping_evals=2, stop_on="truth")],
    "train": [dataclasses.replace(RUN.train, **change) for change in (
        {"epochs": 2.0}, {"batch_pairs": 8}, {"learning_rate": 2e-4}, {"schedule": "linear"},
        {"lr_warmup_frac": 0.1}, {"weight_decay": 0.0}, {"max_grad_norm": 2.0},
        {"center_coef": 0.01}, {"precision": "bf16"}, {"early_stopping_evals": 2},
        {"eval_frac": 0.2}, {"shuffle": "pairs"}, {"trainable_layers": 2},
        {"trunk_cache_dtype": "bf16"}, {"lora": LoraConfig()}, {"freeze_embeddings": True})],
}
"""What can change a run's result, and another value of it."""
NAMES = {"experiment": "other", "name": "other-L4", "model": "/elsewhere/m.yaml", "data": "other",
         "teacher": "other-L2", "keep": "first", "judge": "9" * 16,
         "method": [MethodConfig("renamed", "confidence", 0.5, 0.2),
                    dataclasses.replace(RUN.method, after="soft")]}
"""What is only called otherwise."""


def variants(changes):
    return [dataclasses.replace(RUN, **{key: value}) for key, values in changes.items()
            for value in (values if isinstance(values, list) else [values])]


def test_every_field_of_a_run_either_matters_or_is_a_name():
    assert {field.name for field in dataclasses.fields(RunConfig)} == {*MATTERS, *NAMES, "policy",
                                                                       "average"}
    assert len(MATTERS["train"]) == len(dataclasses.fields(TrainConfig))


def test_every_field_of_an_average_matters_but_its_name():
    recipe = Recipe("r", alphas=(0.3,), adaptive=Adaptive())
    run = dataclasses.replace(RUN, kind="average", average=recipe)
    changes = {"alphas": (0.2,), "blocks": 3, "embed": "first", "final_norm": 0.5,
               "lm_head": "last", "head": "refit", "adaptive": Adaptive(solver="grid")}
    assert {field.name for field in dataclasses.fields(Recipe)} == {*changes, "name"}
    identities = [dataclasses.replace(run, average=dataclasses.replace(recipe, **{key: value}))
                  .identity for key, value in changes.items()]
    assert len({run.identity, RUN.identity, *identities}) == len(changes) + 2
    renamed = dataclasses.replace(run, average=dataclasses.replace(recipe, name="other"))
    assert renamed.identity == run.identity
    with pytest.raises(UserError, match="kind student: an average has a recipe"):
        dataclasses.replace(RUN, average=recipe)


def test_every_field_of_a_policy_matters_but_what_its_labels_are_called():
    step = PolicyStep("raft", "teacher", 8)
    run = dataclasses.replace(RUN, kind="policy", policy=step)
    changes = {"step": "dpo", "max_new_tokens": 9, "pairs": 1, "beta": 0.2, "loss": "ipo",
               "label_smoothing": 0.1, "round": 1, "answers": 1, "prompts": 1, "temperature": 0.5}
    assert {field.name for field in dataclasses.fields(PolicyStep)} == {*changes, "source"}
    identities = [dataclasses.replace(run, policy=dataclasses.replace(step, **{key: value}))
                  .identity for key, value in changes.items()]
    assert len({run.identity, RUN.identity, *identities}) == len(changes) + 2
    student = dataclasses.replace(step, source="student")
    assert dataclasses.replace(run, policy=student).identity == run.identity
    with pytest.raises(UserError, match="kind student and policy .*expected both or neither"):
        dataclasses.replace(RUN, policy=step)


def test_identity_changes_with_what_changes_the_result():
    identities = [run.identity for run in (RUN, *variants(MATTERS))]
    assert len(set(identities)) == len(identities)


def test_identity_does_not_change_with_names_and_paths():
    assert {run.identity for run in variants(NAMES)} == {RUN.identity}


def test_identity_has_no_place_for_hardware_or_runtime():
    def fields(cls):
        return {field.name for field in dataclasses.fields(cls)}

    assert not fields(RuntimeConfig) & (fields(RunConfig) | fields(TrainConfig))


def test_a_run_read_back_from_its_folder_is_the_same_run(tmp_path):
    text = yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(RUN))), sort_keys=False)
    again = from_dict(RunConfig, yaml.safe_load(text), "config.yaml")
    assert again == RUN and again.identity == RUN.identity


def test_folder_names_say_what_was_run():
    assert RUN.folder_name == f"m-L4-from-m-L2-conf-s0-{RUN.identity[:8]}"
    teacher = dataclasses.replace(RUN, kind="teacher", teacher="", seed=2)
    assert teacher.display_name == "m-L4-s2" and teacher.stage == "teachers"
