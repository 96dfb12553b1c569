"""The trainer: one result however a batch is cut up, fixed by the seed, and never past a NaN."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.run import RunConfig
from configs.schema import MethodConfig, RuntimeConfig, TrainConfig
from model.reload_check import check_reload, plain_rewards
from model.reward_model import build_reward_model
from src.batches.collate import FILLER, MODEL_INPUTS, PairDataset
from src.batches.finite import NonFiniteLossError
from src.batches.packing import micro_batches
from src.batches.steps import Step, epoch_steps, optimiser_steps
from src.methods.losses import pair_loss, soft_bradley_terry
from src.runs.folders import newest_checkpoint
from src.training.arguments import training_arguments
from src.training.probe import few_responses, probe_of
from src.training.trainer import build_trainer
from tests.families import PAD
from tests.tiny_pairs import MemorySplit, random_pairs, tree_pairs

KEPT = (1, 3, 5)
PAIRS = 37  # two steps of 16 and a ragged one of 5 in an epoch
RUN = RunConfig(
    experiment="e", kind="student", name="m-L3", model="m", base="0" * 16, kept=KEPT, data="d",
    data_hash="1" * 16, tokenizer="2" * 12, split="train_2", labels="3" * 16, teacher="m-L2",
    method=MethodConfig("soft"), seed=0,
    train=TrainConfig(epochs=2, batch_pairs=16, learning_rate=1e-3, lr_warmup_frac=0.0))
RUNTIME = RuntimeConfig(micro_batch_tokens=4096, score_batch_tokens=60, logging_steps=1,
                        report_to="none")
ROUNDING = 5e-5
"""Between weights after six steps: Adam takes steps of one size, also where a gradient is all
rounding. Gradients themselves are compared to 1e-5."""
TREES = MemorySplit(tree_pairs(6, 4).rows(range(36)) + random_pairs(1).rows(range(1)))
"""As many pairs, six of them a prompt."""
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
            run, runtime,
            lambda: build_reward_model(base("llama"), KEPT, run.seed, pad_token_id=PAD),
            training_arguments(run, runtime, folder, len(split)),
            PairDataset(split, labels, runtime.share_prompt), val, PAD)
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
    """Record the pairs of every step that the trainer takes from now on."""
    rows, read = [], trainer.train_dataset.__getitems__

    def record(step):
        rows.append(sorted(np.concatenate([micro.pairs for micro in step.micro_batches]).tolist()))
        return read(step)

    trainer.train_dataset.__class__ = type("Recorded", (PairDataset,), {
        "__getitems__": lambda self, step: record(step)})
    return rows


def rewards_of(model, micro):
    """(P, 2) of a collated micro batch: left, right."""
    rewards = model(**{name: micro[name] for name in MODEL_INPUTS}).flatten()
    return torch.stack([rewards[micro["left"]], rewards[micro["right"]]], dim=1)


def all_pairs(trainer, data):
    """All pairs of a data set in one micro batch."""
    budget = trainer.budgets[0]._replace(tokens=10**6)
    micro, = micro_batches(data.trees, np.arange(len(data)), budget, 0, 1)
    return trainer.data_collator(data.__getitems__(Step(len(data), [micro])))["micro_batches"][0]


@pytest.mark.parametrize("split", [random_pairs(PAIRS), TREES], ids=["pairs", "trees"])
@pytest.mark.parametrize(("method", "budgets"), [(RUN.method, (60, 1)), (CONFIDENCE, (60,))])
def test_gradient_accumulation_does_not_change_the_result(make, method, budgets, split):
    run = run_with(method, center_coef=0.01)
    whole = make(run, split)
    start, end = weights(whole), trained(whole)
    assert whole.state.global_step == 6 and gap(start, end) > 1e-3
    for budget in budgets:
        parts = make(run, split, micro_batch_tokens=budget)
        step = next(iter(parts.get_train_dataloader()))
        count = len(step["micro_batches"])
        assert count == step["pairs"] if budget == 1 else 1 < count < step["pairs"]
        assert gap(trained(parts), end) < ROUNDING
        np.testing.assert_allclose(logged(parts), logged(whole), atol=1e-5)


def test_a_bf16_run_is_proved_by_fp32_rewards_of_the_weights_that_it_saves(make, tmp_path):
    trainer = make(run_with(precision="bf16"))
    trainer.train()
    probe = probe_of(trainer)
    trainer.save_model(tmp_path / "saved")
    plain = plain_rewards(tmp_path / "saved", probe.sequences)
    torch.testing.assert_close(probe.stored, plain, atol=1e-5, rtol=0)
    assert (probe.trained - plain).abs().max() > 1e-3  # as it was trained: in bf16
    check_reload(tmp_path / "saved", probe)


def test_a_saved_model_is_proved_on_short_pairs_of_several_lengths(make):
    split = random_pairs(64)
    trainer = make(RUN, split)
    *_, sequences = few_responses(trainer.train_dataset, trainer.data_collator)
    lengths = split.lengths()
    shortest = np.argsort(lengths.sum(axis=1), kind="stable")[:8]
    prompt, chosen, rejected = lengths[shortest[[0, 2, 4, 7]]].T
    expected = np.stack([prompt + chosen, prompt + rejected], axis=1).flatten()
    assert [*map(len, sequences)] == expected.tolist() and len({*expected}) > 2


@pytest.mark.parametrize("together", ["prompts", "pairs"])
def test_layout_checkpointing_and_logging_do_not_change_the_result(make, together):
    run = run_with(shuffle=together)
    plain = trained(make(run, TREES))
    for changes in ({"share_prompt": False}, {"pack": False}, {"gradient_checkpointing": True},
                    {"share_prompt": False, "pack": False, "micro_batch_tokens": 100}):
        assert gap(trained(make(run, TREES, **changes)), plain) < ROUNDING
    assert gap(trained(make(run, TREES, save_steps=1, logging_steps=3)), plain) == 0


@pytest.mark.parametrize("runtime", [{}, {"pack": False}, {"share_prompt": False},
                                     {"micro_batch_tokens": 1}], ids=str)
def test_six_pairs_over_four_responses_give_the_gradient_of_six_separate_pairs(make, runtime):
    """In plain torch: each pair a forward of its own."""
    split, labels = tree_pairs(1, 4), np.random.default_rng(5).random(6)
    run = run_with(max_grad_norm=1e9, center_coef=0.01)
    trainer, single = make(run, split, labels, **runtime), make(run, split, labels)
    model, data, expected = single.model.train(), single.train_dataset, 0
    for i in range(6):
        micro = single.data_collator.collate(data.read(np.array([i]), np.zeros(1, int)))
        rewards = rewards_of(model, micro)
        loss = soft_bradley_terry(rewards[:, 0] - rewards[:, 1], micro["labels"])
        loss = (loss + 0.01 * rewards.square().mean(dim=1)).sum() / 6
        loss.backward()
        expected += loss.item()
    step, = trainer.get_train_dataloader()
    assert trainer.training_step(trainer.model, step).item() == pytest.approx(expected, abs=1e-6)
    for (name, found), wanted in zip(trainer.model.named_parameters(), model.parameters(),
                                     strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_rank_without_pairs_has_a_loss_and_gradients_of_0(make):
    trainer = make()
    step = trainer.data_collator((16, [FILLER]))
    assert trainer.training_step(trainer.model, step).item() == 0
    assert all(not parameter.grad.any() for parameter in trainer.model.parameters())


def test_the_logged_losses_and_the_steps_are_those_of_plain_torch(make):
    """An independent loop: AdamW by hand over the trainer's own batches."""
    run = run_with(weight_decay=0.0, schedule="linear", max_grad_norm=0.1)
    trainer = make(run)
    model = copy.deepcopy(trainer.model).train()
    batches = list(epoch_batches(trainer, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for step, micro in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / len(batches))
        rewards = rewards_of(model, micro)
        loss = pair_loss(run.method, rewards[:, 0] - rewards[:, 1], micro["labels"], 0.0).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    end = trained(trainer)
    np.testing.assert_allclose(logged(trainer), losses, atol=1e-4)  # the log rounds
    assert gap(end, dict(model.state_dict())) < 1e-5


def epoch_batches(trainer, epochs):
    """The only micro batch of every optimiser step, by the trainer's own loader."""
    for epoch in range(epochs):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        for step in loader:
            micro, = step["micro_batches"]
            assert len(micro["row"]) == step["pairs"]
            yield micro


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
    assert [len(rows) for rows in orders[0]] == [
        len(step) for epoch in range(2)
        for step in epoch_steps(trainer.train_dataset.trees, 16, 0, epoch, True)]
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
    monkeypatch.setattr("src.training.trainer.pair_loss", lambda method, margin, label, progress: (
        seen.append(progress) or pair_loss(method, margin, label, progress)))
    trainer = make(run_with(CONFIDENCE), micro_batch_tokens=100)
    counts = [len(step["micro_batches"]) for _ in range(2) for step in
              trainer.get_train_dataloader()]
    trainer.train()
    steps = np.sort(np.round(np.array(seen) * 6))
    assert len(seen) > 6 and set(steps) == set(range(6)) and len(counts) == 6
    assert seen == pytest.approx((steps / 6).tolist())


def test_centering_pulls_rewards_towards_0(make):
    def size(coef):
        trainer = make(run_with(epochs=10, center_coef=coef))
        trainer.train()
        with torch.no_grad():
            return rewards_of(trainer.model, all_pairs(trainer, trainer.train_dataset)
                              ).square().mean().item()
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
        weak = np.random.default_rng(1).random(21)
        val = PairDataset(random_pairs(21, seed=9), weak)
        trainer = make(self.RUN, val=val)
        batch = all_pairs(trainer, val)
        with torch.no_grad():
            rewards = rewards_of(trainer.model.eval(), batch)
        expected = soft_bradley_terry(rewards[:, 0] - rewards[:, 1], batch["labels"]).mean().item()
        assert len(trainer.get_eval_dataloader()) > 3
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)

    def test_without_it_nothing_is_evaluated(self, make):
        trainer = make()
        trainer.train()
        assert not self.evaluations(trainer)


@pytest.mark.parametrize(("logging_steps", "save_steps"), [(1, 1), (100, 1), (2, 2), (100, 100)])
def test_a_nan_loss_stops_before_anything_is_saved_and_names_step_and_pairs(make, logging_steps,
                                                                            save_steps):
    labels = np.full(PAIRS, 0.5)
    split = random_pairs(PAIRS)
    third = list(epoch_batches(make(), 1))[2]["row"].tolist()
    labels[third[0]] = np.nan
    trainer = make(split=split, labels=labels, save_steps=save_steps, logging_steps=logging_steps)
    with pytest.raises(NonFiniteLossError) as stopped:
        trainer.train()
    message = str(stopped.value)
    assert "step 3" in message and split.pair_ids[third[0]] in message
    assert sum(pair in message for pair in split.pair_ids) == 1
    saved = newest_checkpoint(Path(trainer.args.output_dir).parent, 1)
    assert saved is None if save_steps == 100 else saved.name == "checkpoint-2"
    assert all(np.isfinite(loss) for loss in logged(trainer))


def test_a_nan_among_val_pairs_names_the_val_pair(make):
    val_labels = np.full(20, 0.5)
    val_labels[7] = np.nan
    val_split = random_pairs(20, seed=9)
    trainer = make(TestEarlyStopping.RUN, val=PairDataset(val_split, val_labels))
    with pytest.raises(NonFiniteLossError, match=val_split.pair_ids[7]):
        trainer.train()


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


@pytest.mark.parametrize(("pairs", "steps"), [(5, 1), (20, 2)])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_run_of_few_steps_reaches_its_peak_learning_rate(make, schedule, pairs, steps):
    """The warm-up begins at 0: a run of one step that is all warm-up would end untrained."""
    run = run_with(epochs=1, lr_warmup_frac=0.9, schedule=schedule)
    trainer = make(run, random_pairs(pairs))
    start, end = weights(trainer), trained(trainer)
    rates = logged(trainer, "learning_rate")
    assert len(rates) == steps and max(rates) == 1e-3 and gap(start, end) > 1e-4
