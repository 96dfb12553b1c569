"""`train.freeze_embeddings`: the tables stay to the bit, all else trains, and a run is a run."""

import pytest
import torch
from safetensors.torch import load_file

from configs.identity import facts
from configs.schema import TrainConfig
from model.base.memory import size_of
from model.reward_model import build_reward_model
from src.runs.cards import model_card
from src.runs.folders import WEIGHTS, read_run_config
from src.train import train_stage
from tests.tiny_experiment import TinyExperiment, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of

TABLE = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> TinyExperiment:
    tiny = make_experiment(tmp_path_factory.mktemp("frozen"), rows=120, train_pairs=32,
                           layers=([1], [2]), train={"freeze_embeddings": True, "epochs": 2})
    prepare_data(tiny)
    return tiny


def train(tiny: TinyExperiment) -> dict[str, torch.Tensor]:
    """The weights of the one ceiling; its folder has passed the reload check."""
    assert train_stage(sweep_of(tiny), "ceilings", tiny.runs_dir, 0, 1) == []
    folder, = tiny.finished("ceilings")
    return load_file(folder / WEIGHTS)


def test_the_tables_stay_to_the_bit_and_everything_else_moves(prepared):
    tiny = prepared.copy("moves")
    found = train(tiny)
    run = read_run_config(tiny.finished("ceilings")[0])
    start = build_reward_model(tiny.model, run.kept, run.seed, pad_token_id=0).state_dict()
    assert found.keys() == start.keys()
    assert {name for name in found if torch.equal(found[name], start[name])} == {TABLE}
    assert "| embeddings | the base model's, not trained |" in model_card(
        tiny.finished("ceilings")[0])


def test_the_optimiser_holds_nothing_for_them(prepared, monkeypatch):
    from src.training.trainer import PairTrainer

    held, release = [], PairTrainer.release

    def look(trainer: PairTrainer) -> None:
        shapes = [parameter.shape for group in trainer.optimizer.param_groups
                  for parameter in group["params"]]
        table = trainer.model.get_input_embeddings().weight
        held.append((table.shape in shapes, table.grad, len(trainer.optimizer.state)))
        held.append(sum(p.requires_grad for p in trainer.model.parameters()))
        release(trainer)

    monkeypatch.setattr(PairTrainer, "release", look)
    train(prepared.copy("optimiser"))
    (in_groups, gradient, states), trained = held
    assert not in_groups and gradient is None and states == trained


def test_checkpointed_gradients_train_the_same(prepared):
    plain = train(prepared.copy("plain"))
    checkpointed = train(prepared.copy("checkpointed", runtime={"gradient_checkpointing": True}))
    torch.testing.assert_close(checkpointed, plain, rtol=0, atol=1e-6)


def test_it_is_another_run_only_where_it_is_switched_on(prepared):
    frozen, plain = (sweep_of(prepared.copy(name, train={"freeze_embeddings": switched}))
                     .stage("ceilings")[0] for name, switched in (("on", True), ("off", False)))
    assert frozen.identity != plain.identity
    assert "freeze_embeddings" in facts(frozen.train)
    assert "freeze_embeddings" not in facts(plain.train) | facts(TrainConfig())


@pytest.mark.parametrize("top", [1, 2])
def test_top_layers_alone_train_also_where_a_cut_keeps_no_others(prepared, top):
    """Else what tells two cuts of a ladder apart is not depth alone."""
    tiny = prepared.copy(f"top-{top}", train={"freeze_embeddings": False, "trainable_layers": top},
                         teachers=[prepared.settings()["teachers"][0] | {"layers": [2]}])
    sweep = sweep_of(tiny)
    ceiling, = sweep.stage("ceilings")  # of two layers
    found, start = train(tiny), build_reward_model(tiny.model, ceiling.kept, ceiling.seed,
                                                   pad_token_id=0).state_dict()
    moved = {name for name in found if not torch.equal(found[name], start[name])}
    assert TABLE not in moved
    assert {name for name in found if ".layers." in name} & moved == {
        name for name in found if f".layers.{2 - top}." in name or ".layers.1." in name}
    trained = sum(found[name].numel() for name in moved)
    assert trained == size_of(sweep.bases[ceiling.model].hf_config, ceiling.kept,
                              ceiling.train).trained
