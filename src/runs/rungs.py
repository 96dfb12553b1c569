"""The rungs of an experiment's ladders: which sizes of which base models teach and learn."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from configs.schema import ExperimentConfig, LadderConfig, TrainConfig
from data.tokens.tokenised import PreparedData
from model.base.adapters import adapter_parameters
from model.base.influence import block_influence
from model.base.truncate import check_length, kept_layers
from model.base.trunk import frozen_layers
from src.common import distributed
from src.common.errors import UserError
from src.runs.bases import BaseModel

INFLUENCE_TEXTS = 256
"""Of train_1, that layers are judged on: the means of their tokens hardly change with more."""
LETTERS = {"evenly_spaced": "L", "first": "F", "first_and_last": "B", "block_influence": "I"}
"""How a rung's name tells its rule."""


@dataclass(frozen=True)
class Rung:
    """One size of teacher or student."""

    name: str
    base: BaseModel
    kept: tuple[int, ...]
    parameters: int
    """Without embeddings: what a forward costs, and what makes a student bigger than a teacher."""
    keep: str
    """The rule that chose the layers."""
    learning_rate: float
    """Peak."""
    train_share: float
    """Of train_1's prompts, for teachers."""
    trainable_layers: int | None
    """Top layers that train; None for all."""

    def trained(self, train: TrainConfig) -> TrainConfig:
        """`train` for this rung. Where the top layers are all that it keeps, embeddings stay as
        they are, as they do below any other cut."""
        if self.trainable_layers == len(self.kept) and train.lora is None:
            return dataclasses.replace(train, trainable_layers=None, freeze_embeddings=True)
        return dataclasses.replace(train, trainable_layers=self.trainable_layers)


def rungs_of(ladders: Iterable[LadderConfig], experiment: ExperimentConfig, max_length: int,
             bases: Mapping[str, BaseModel], prepared: PreparedData,
             data_hash: str) -> list[Rung]:
    """Every rung of the ladders, in their order.

    Args:
        max_length: tokens of the longest text of the data.
        bases: by the name that a ladder gives its model.
    Raises:
        UserError: a model is too short for the data, or has not the layers to keep or to train;
            two rungs are one.
    """
    where, rungs = f"experiments/{experiment.name}", []
    for ladder in ladders:
        base = bases[ladder.model]
        check_length(base.hf_config, max_length, where)
        for count in ladder.layers or (None,):
            influence = _influence(ladder, base, prepared, data_hash)
            kept = kept_layers(base.layers, count, ladder.keep, influence)
            rungs.append(_rung(ladder, kept, experiment, base))
    names = [rung.name for rung in rungs]
    if len(set(names)) != len(names):
        raise UserError(f"{where}: rungs {', '.join(names)} repeat; python -m src.search "
                        "compares the learning rates of one")
    return rungs


def rung_name(base: BaseModel, ladder: LadderConfig, kept: tuple[int, ...]) -> str:
    """`demo-L4` evenly spaced, `demo-F4` first, `demo-B4` both ends, `demo-I4` by influence,
    `demo-K1_5` listed; the whole model is L. `demo-L4-p2.5` learns from 2.5% of the prompts."""
    share = "" if ladder.train_share == 1 else f"-p{100 * ladder.train_share:.12g}"
    if len(kept) == base.layers:
        return f"{base.config.name}-L{len(kept)}{share}"
    if isinstance(ladder.keep, str):
        return f"{base.config.name}-{LETTERS[ladder.keep]}{len(kept)}{share}"
    return f"{base.config.name}-K{'_'.join(map(str, kept))}{share}"


def _rung(ladder: LadderConfig, kept: tuple[int, ...], experiment: ExperimentConfig,
          base: BaseModel) -> Rung:
    train = experiment.train
    trainable = ladder.trainable_layers or train.trainable_layers
    place = f"experiments/{experiment.name}, {base.config.name}"
    frozen_layers(len(kept), trainable, place)
    if train.lora is not None:
        adapter_parameters(base.hf_config, kept[-1:], train.lora, place)
    rule = ladder.keep if isinstance(ladder.keep, str) else "listed"
    return Rung(rung_name(base, ladder, kept), base, kept, base.parameters(kept),
                "all" if len(kept) == base.layers else rule,
                ladder.learning_rate or train.learning_rate or base.config.learning_rate,
                ladder.train_share, trainable)


def _influence(ladder: LadderConfig, base: BaseModel, prepared: PreparedData,
               data_hash: str) -> list[float]:
    """Of each layer of the ladder's base model on texts of train_1, where its rule asks."""
    if ladder.keep != "block_influence":
        return []
    split = prepared.split(base.tokenizer_key, "train_1")
    rows = np.unique(np.linspace(0, len(split) - 1, INFLUENCE_TEXTS).astype(int)).tolist()
    texts = [[*split[row]["prompt_ids"], *split[row]["chosen_ids"]] for row in rows]
    facts = {"base": base.fingerprint, "data": data_hash, "texts": str(len(texts))}
    return distributed.on_main(lambda: block_influence(base.path, facts, texts))
