"""The trainer: one result however a batch is cut up, fixed by the seed, and never past a NaN."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import UserError
from configs.schema import MethodConfig, RunConfig, RuntimeConfig, TrainConfig
from model.reward_model import build_reward_model
from src.batching import PairDataset
from src.losses import pair_loss, soft_bradley_terry
from src.runs import newest_checkpoint
from src.trainer import (
    NonFiniteLossError,
    build_trainer,
    micro_batch,
    optimiser_steps,
    training_arguments,
)
from tests.families import PAD
from tests.tiny_pairs import MemorySplit, random_pairs

KEPT = (1, 3, 5)
PAIRS = 37  # two steps of 16 and a ragged one of 5 in an epoch
RUN = RunConfig(
    experiment="e", role="student", name="m-L3", model="m", base="0" * 16, kept=KEPT, data="d",
    data_hash="1" * 16, tokenizer="2" * 12, split="train_2", labels="3" * 16, teacher="m-L2",
    method=MethodConfig("soft"), seed=0,
    train=TrainConfig(epochs=2, batch_pairs=16, learning_rate=1e-3, lr_warmup_frac=0.0))
RUNTIME = RuntimeConfig(micro_batch_pairs=16, score_batch_pairs=8, logging_steps=1,
                        report_to="none")
CONFIDENCE = MethodConfig("confidence", "confidence", aux_coef=0.8, warmup_frac=0.5)


def run_with(method=RUN.method, seed=0, **train):
    return dataclasses.replace(RUN, method=method, seed=seed,
                               train=dataclasses.replace(RUN.train, **train))


@pytest.fixture
def make(base, tmp_path):
    """A trainer on a tiny Llama, in a folder of its own."""
    def trainer(run=RUN, split=None, labels=None, val=None, **runtime):
        split = split or random_pairs(PAIRS)
        labels = np.random.default_rng(5).random(len(split)) if labels is None else labels
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        runtime = dataclasses.replace(RUNTIME, **runtime)
        return build_trainer(
            run, lambda: build_reward_model(base("llama"), KEPT, run.seed, pad_token_id=PAD),
            training_arguments(run, runtime, folder, len(split)), PairDataset(split, labels), val,
            PAD, runtime.share_prompt)
    return trainer


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def trained(trainer):
    trainer.train()
    return weights(trainer)


def gap(first, second):
    """The largest difference between two sets of weights."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def logged(trainer, key="loss"):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def seen_pairs(trainer):
    """Record the rows of every micro batch that the trainer takes from now on."""
    rows, collate = [], trainer.data_collator

    def record(examples):
        rows.append([example["row"] for example in examples])
        return collate(examples)

    trainer.data_collator = record
    return rows


@pytest.mark.parametrize(("method", "micros"), [(RUN.method, (4, 1)), (CONFIDENCE, (2,))])
def test_gradient_accumulation_does_not_change_the_result(make, method, micros):
    run = run_with(method, center_coef=0.01)
    whole = make(run)
    start, end = weights(whole), trained(whole)
    assert whole.state.global_step == 6 and gap(start, end) > 1e-3
    for micro in micros:
        parts = make(run, micro_batch_pairs=micro)
        assert parts.args.gradient_accumulation_steps == 16 // micro
        assert gap(trained(parts), end) < 1e-5
        np.testing.assert_allclose(logged(parts), logged(whole), atol=1e-5)


def test_a_micro_batch_that_does_not_divide_the_batch_does_not_change_the_result(make):
    odd = make(micro_batch_pairs=6)  # the largest divisor of 16 below 6 is 4
    assert odd.args.per_device_train_batch_size == 4
    assert gap(trained(odd), trained(make())) < 1e-5


def test_layout_checkpointing_and_logging_do_not_change_the_result(make):
    plain = trained(make())
    assert gap(trained(make(share_prompt=False)), plain) < 1e-5
    assert gap(trained(make(gradient_checkpointing=True)), plain) < 1e-5
    assert gap(trained(make(save_steps=1, logging_steps=3)), plain) == 0


def test_the_logged_losses_and_the_steps_are_those_of_plain_torch(make):
    """An independent loop: AdamW by hand over the trainer's own batches."""
    run = run_with(weight_decay=0.0, schedule="linear", max_grad_norm=0.1)
    trainer = make(run)
    model = copy.deepcopy(trainer.model).train()
    batches = list(epoch_batches(trainer, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / len(batches))
        batch = trainer.data_collator(trainer.train_dataset.__getitems__(rows))
        labels, _ = batch.pop("labels"), batch.pop("row")
        rewards = model(**batch)
        loss = pair_loss(run.method, rewards[:, 0] - rewards[:, 1], labels, 0.0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    end = trained(trainer)
    np.testing.assert_allclose(logged(trainer), losses, atol=1e-4)  # the log rounds
    assert gap(end, dict(model.state_dict())) < 1e-5


def epoch_batches(trainer, epochs):
    """The rows of every optimiser step, by the trainer's own loader."""
    for epoch in range(epochs):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        for batch in loader:
            yield batch["row"].tolist()


def test_every_parameter_changes(make):
    trainer = make(run_with(weight_decay=0.0))
    start, end = weights(trainer), trained(trainer)
    still = [name for name in start if torch.equal(start[name], end[name])]
    assert not still


def test_training_lowers_the_loss_on_labels_that_can_be_learned(make):
    trainer = make(run_with(epochs=20, learning_rate=3e-3), labels=np.ones(PAIRS))
    trainer.train()
    losses = logged(trainer)
    assert np.mean(losses[-3:]) < 0.2 < 0.5 < losses[0]


def test_two_trainings_with_one_seed_are_bit_identical_and_another_seed_differs(make):
    first = trained(make())
    torch.manual_seed(99)  # whatever the process did before
    assert gap(trained(make()), first) == 0
    assert gap(trained(make(run_with(seed=1))), first) > 1e-4


def test_teacher_ceiling_and_student_read_batches_in_one_order(make):
    orders = []
    for labels, method in ((np.ones(PAIRS), MethodConfig("ground_truth", "hard_bt")),
                           (None, CONFIDENCE)):
        trainer = make(run_with(method), labels=labels)
        rows = seen_pairs(trainer)
        trainer.train()
        orders.append(rows)
    assert orders[0] == orders[1]
    assert [len(rows) for rows in orders[0]] == [16, 16, 5] * 2
    assert sorted(sum(orders[0][:3], [])) == list(range(PAIRS))
    assert orders[0][:3] != orders[0][3:]


def test_turning_truth_and_weak_label_around_leaves_the_training(make):
    """Only the sides that the answers stand on differ, so only rounding may."""
    split, weak = random_pairs(PAIRS), np.random.default_rng(5).random(PAIRS)
    turned = MemorySplit([{**row, "chosen_ids": row["rejected_ids"],
                           "rejected_ids": row["chosen_ids"]} for row in split.rows(range(PAIRS))])
    for method in (RUN.method, CONFIDENCE):
        run = run_with(method)
        there, back = make(run, split, weak), make(run, turned, 1 - weak)
        assert gap(trained(there), trained(back)) < 1e-4
        np.testing.assert_allclose(logged(there), logged(back), atol=2e-4)


def test_the_confidence_ramp_follows_the_optimiser_s_steps(make, monkeypatch):
    seen = []
    monkeypatch.setattr("src.trainer.pair_loss", lambda method, margin, label, progress: (
        seen.append(progress) or pair_loss(method, margin, label, progress)))
    make(run_with(CONFIDENCE), micro_batch_pairs=8).train()
    steps = np.repeat(np.arange(6), [2, 2, 1, 2, 2, 1])
    assert seen == pytest.approx((steps / 6).tolist())


def test_centering_pulls_rewards_towards_0(make):
    def size(coef):
        trainer = make(run_with(epochs=10, center_coef=coef))
        trainer.train()
        batch = trainer.data_collator(trainer.train_dataset.__getitems__(range(PAIRS)))
        with torch.no_grad():
            return trainer.model(**{k: v for k, v in batch.items()
                                    if k not in ("labels", "row")}).square().mean().item()
    assert size(0.5) < 0.5 * size(0.0)


class TestEarlyStopping:
    """On weak labels of val: training stops when they get worse, and the best is kept."""

    RUN = run_with(epochs=20, learning_rate=5e-3, early_stopping_evals=2, eval_frac=0.05)

    def evaluations(self, trainer):
        return {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history
                if "eval_loss" in entry}

    def test_it_stops_and_keeps_the_best_weights(self, make):
        val = PairDataset(random_pairs(20, seed=9), np.zeros(20))  # the opposite of what is learned
        trainer = make(self.RUN, labels=np.ones(PAIRS), val=val)
        trainer.train()
        losses = self.evaluations(trainer)
        best = min(losses, key=losses.get)
        assert trainer.state.global_step == best + 2 * 3 < 60  # two evaluations of 3 steps
        assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], abs=1e-6)

    def test_it_goes_on_while_val_gets_better(self, make):
        val = PairDataset(random_pairs(PAIRS), np.ones(PAIRS))
        trainer = make(dataclasses.replace(self.RUN, train=dataclasses.replace(
            self.RUN.train, epochs=2, eval_frac=0.5, learning_rate=1e-3)),
            labels=np.ones(PAIRS), val=val)
        trainer.train()
        assert trainer.state.global_step == 6 and len(self.evaluations(trainer)) == 2

    def test_its_loss_is_the_cross_entropy_against_weak_labels_of_every_pair_once(self, make):
        weak = np.random.default_rng(1).random(21)  # 21: the last batch of 8 is ragged
        val = PairDataset(random_pairs(21, seed=9), weak)
        trainer = make(self.RUN, val=val)
        batch = trainer.data_collator(val.__getitems__(range(21)))
        labels, _ = batch.pop("labels"), batch.pop("row")
        with torch.no_grad():
            rewards = trainer.model.eval()(**batch)
        expected = soft_bradley_terry(rewards[:, 0] - rewards[:, 1], labels).mean().item()
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)

    def test_without_it_nothing_is_evaluated(self, make):
        trainer = make()
        trainer.train()
        assert not self.evaluations(trainer)


def test_a_nan_loss_stops_before_the_step_and_names_step_and_pairs(make):
    labels = np.full(PAIRS, 0.5)
    split = random_pairs(PAIRS)
    third = list(epoch_batches(make(), 1))[2]
    labels[third[0]] = np.nan
    trainer = make(split=split, labels=labels, save_steps=1)
    with pytest.raises(NonFiniteLossError) as stopped:
        trainer.train()
    message = str(stopped.value)
    assert "step 3" in message and split.pair_ids[third[0]] in message
    assert sum(pair in message for pair in split.pair_ids) == 1
    assert trainer.state.global_step == 2
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert newest_checkpoint(Path(trainer.args.output_dir).parent, 1).name == "checkpoint-2"


def test_a_nan_among_val_pairs_names_the_val_pair(make):
    val_labels = np.full(20, 0.5)
    val_labels[7] = np.nan
    val_split = random_pairs(20, seed=9)
    trainer = make(TestEarlyStopping.RUN, val=PairDataset(val_split, val_labels))
    with pytest.raises(NonFiniteLossError, match=val_split.pair_ids[7]):
        trainer.train()


@pytest.mark.parametrize(("batch", "limit", "world", "expected"), [
    (16, 16, 1, (16, 1)), (16, 100, 1, (16, 1)), (16, 6, 1, (4, 4)), (16, 1, 1, (1, 16)),
    (15, 4, 1, (3, 5)), (7, 4, 1, (1, 7)), (32, 8, 4, (8, 1)), (24, 16, 2, (12, 1)),
    (30, 8, 2, (5, 3)),
])
def test_a_micro_batch_is_the_largest_divisor_of_a_device_s_share(batch, limit, world, expected):
    runtime = dataclasses.replace(RUNTIME, micro_batch_pairs=limit)
    assert micro_batch(batch, runtime, world) == expected
    assert expected[0] * expected[1] * world == batch


def test_a_batch_that_the_devices_cannot_share_is_refused():
    with pytest.raises(UserError, match="batch_pairs 16 cannot be shared by 3 processes"):
        micro_batch(16, RUNTIME, 3)


@pytest.mark.parametrize(("pairs", "epochs", "steps"), [
    (37, 1, 3), (37, 2, 6), (32, 1, 2), (5, 1, 1), (5, 0.1, 1), (160, 0.25, 3), (160, 2.5, 25)])
def test_the_number_of_steps_is_known_before_training(make, pairs, epochs, steps):
    run = run_with(epochs=epochs)
    assert optimiser_steps(run, pairs) == steps


@pytest.mark.parametrize(("pairs", "epochs"), [(37, 1.5), (5, 0.1), (16, 1)])
def test_the_trainer_takes_that_number_of_steps(make, pairs, epochs):
    run = run_with(epochs=epochs)
    trainer = make(run, random_pairs(pairs))
    trainer.train()
    assert trainer.state.global_step == optimiser_steps(run, pairs)


def test_the_schedule_warms_up_over_its_share_of_the_steps(make):
    trainer = make(run_with(lr_warmup_frac=0.5, schedule="constant"))
    assert trainer.args.warmup_steps == 3
