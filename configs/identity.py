"""What of a config enters the hash that results made from it are found by.

A key as old as the first results always enters. One that was added later enters only where it
differs from its default, so that everything made before there was such a key is still found. That
default is what the older results were made with: it is not changed afterwards.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

FIRST_KEYS = {name: keys.split() for name, keys in {
    "RunConfig": "kind base kept data_hash tokenizer split labels method train seed",
    "MethodConfig": "loss aux_coef warmup_frac",
    "TrainConfig": "epochs batch_pairs learning_rate schedule lr_warmup_frac weight_decay "
                   "max_grad_norm center_coef precision early_stopping_evals eval_frac shuffle "
                   "trainable_layers trunk_cache_dtype",
    "EvalConfig": "pgr_floor bootstrap_samples level",
    "PretrainConfig": "name output_dir max_length documents books pairs packed loss_after "
                      "tokenizer vocab_size chat_template hidden_size intermediate_size layers "
                      "heads epochs batch_rows learning_rate seed",
    "DataConfig": "name source path files hub_config hub_dir hub_split header encoding form keys "
                  "columns texts template compare pointwise wrong_move sources decontaminate ngram "
                  "expected limit scorer part_files fixture fraction seed test_pairs val_pairs "
                  "train_pairs max_length truncation max_bad_frac",
    "CompareConfig": "rule scores names grades threshold tie_band ties votes split_votes take "
                     "min_ratio pairs_per_prompt",
}.items()}
"""The keys that always enter, under these names: none is added, renamed or taken away."""
NAMES = {"RunConfig": ("experiment", "name", "model", "data", "teacher", "keep", "judge"),
         "MethodConfig": ("name", "after", "through"), "PolicyStep": ("source",),
         "Recipe": ("name",)}
"""What is only called otherwise, and never enters."""


def facts(config: Any) -> dict[str, Any]:
    """The keys and values of a config dataclass that enter a hash; of the dataclasses in it too."""
    return {key: _plain(value) for key, value in _entering(config)}


def written(config: Any) -> str:
    """The same as Python writes a dataclass: for hashes that are made of that."""
    parts = (f"{key}={written(value) if dataclasses.is_dataclass(value) else repr(value)}"
             for key, value in _entering(config))
    return f"{type(config).__name__}({', '.join(parts)})"


def _entering(config: Any) -> Iterator[tuple[str, Any]]:
    kinds = [cls.__name__ for cls in type(config).__mro__]
    always = {key for kind in kinds for key in FIRST_KEYS.get(kind, ())}
    never = {key for kind in kinds for key in NAMES.get(kind, ())}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in always or (field.name not in never and value != _default(field)):
            yield field.name, value


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return facts(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
