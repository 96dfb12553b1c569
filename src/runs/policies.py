"""Policies of an experiment -> runs: a language model that is fine-tuned, then aligned.

    sft     on train_1, the answers that people chose; every other policy begins at it
    dpo     on train_2, the preferences of people, of the teacher, or of its weak-to-strong student
    raft    on answers of its own to prompts of train_2, the best by the teacher or by its student;
            round 1 begins at sft, round k at round k - 1 (Dong et al. 2023)

Of one seed are a policy, the reward model that labels for it, and its judge. No policy of teacher
or student sees a human label of train_2. Opens no pairs and trains nothing.
"""

from collections.abc import Sequence
from typing import Any

from configs.policy_schema import DpoConfig, PolicyStep, SftConfig
from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, RunConfig
from configs.schema import ExperimentConfig, TrainConfig
from src.common.errors import UserError
from src.common.precision import products, used


def policy_runs(experiment: ExperimentConfig, runs: Sequence[RunConfig],
                shared: dict[str, Any]) -> tuple[RunConfig, ...]:
    """The policies over all seeds, each after those that it needs.

    Args:
        runs: the experiment's reward models.
        shared: what all of them have in common, as RunConfig names it.
    Raises:
        UserError: several reward models could label or judge, or none.
    """
    grown = [_of_seed(experiment, runs, seed, shared) for seed in experiment.seeds]
    return tuple(run for step in zip(*grown, strict=True) for run in step)


def _of_seed(experiment: ExperimentConfig, runs: Sequence[RunConfig], seed: int,
             shared: dict[str, Any]) -> list[RunConfig]:
    config = experiment.policies
    sources = [source for source in config.labels if source != "gt"]
    found = {kind: _only(runs, kind, seed, experiment.name) for kind in {*sources, config.judge}}
    asked = {"kind": "policy", "method": GROUND_TRUTH_METHOD, "seed": seed,
             "judge": found[config.judge].identity, **shared}

    def run(source: str, train: SftConfig | DpoConfig, earlier: RunConfig | None,
            **step) -> RunConfig:
        labeller = found.get(source)
        return RunConfig(
            labels=labeller.identity if labeller else GROUND_TRUTH,
            teacher=labeller.display_name.rpartition("-")[0] if labeller else "",
            earlier=earlier.identity if earlier else "", split="train_2" if earlier else "train_1",
            train=_budget(train, experiment.train), policy=PolicyStep(
                source=source, max_new_tokens=config.max_new_tokens, **step), **asked)

    dpo, pairs = config.dpo, config.pairs or 0
    first = run("gt", config.sft, None, step="sft", pairs=pairs)
    made = [first, *(run(source, dpo, first, step="dpo", pairs=pairs, beta=dpo.beta, loss=dpo.loss,
                         label_smoothing=dpo.label_smoothing) for source in config.labels)]
    for source in sources:
        last = first
        for number in range(1, config.raft_rounds + 1):
            last = run(source, config.sft, last, step="raft", round=number,
                       answers=config.raft_answers, prompts=config.prompts,
                       temperature=config.temperature)
            made.append(last)
    return made


def _budget(own: SftConfig | DpoConfig, shared: TrainConfig) -> TrainConfig:
    """The policy's own budget; of that of reward models only what it has no word on."""
    batch = own.batch_pairs if isinstance(own, DpoConfig) else own.batch_answers
    return TrainConfig(epochs=own.epochs, batch_pairs=batch, learning_rate=own.learning_rate,
                       lora=own.lora, schedule=shared.schedule, weight_decay=0.0,
                       precision=products(used(shared.precision)))


def _only(runs: Sequence[RunConfig], kind: str, seed: int, experiment: str) -> RunConfig:
    found = [run for run in runs if run.kind == kind and run.seed == seed]
    if len(found) != 1:
        names = ", ".join(run.display_name for run in found) or "none"
        raise UserError(f"experiments/{experiment}: policies need one {kind} a seed, found "
                        f"{names}: give an experiment of policies one teacher, one student and "
                        "one method")
    return found[0]
