"""A finished run beside the model that it began with, and the held-out texts that both read."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from model.base.residual import compute_in
from model.base.trunk import equal_layers
from model.reward_model import HEAD, build_reward_model
from src.evaluation.experiment import finished_runs
from src.measures.comparisons.methods import BASELINE
from src.runs.plan import Plan
from src.scoring.layer_states import Entering
from src.scoring.pairs import load_scorer, precision_of
from src.scoring.texts import Responses

SPLIT = "test"
Runs = Sequence[tuple[RunConfig, Path]]


@dataclass(frozen=True)
class BeforeAfter:
    """A run's model, the same layers untrained, and what was read of either."""

    run: RunConfig
    cut: PreTrainedModel
    tuned: PreTrainedModel
    equal: int
    """Layers, the lowest, that are as they were."""
    before: Any
    after: Any
    """Above the equal layers, where it is of single layers."""


def before_and_after(runs: Runs, plan: Plan, title: str,
                     read: Callable[[PreTrainedModel, RunConfig, Entering], Any],
                     ) -> Iterator[BeforeAfter]:
    """Each run beside its layers untrained, in the order of their layers.

    Layers that are as they were give what they gave: they run once for all runs of the same cut,
    and the untrained cut itself is read once.
    """
    def of_cut(each: tuple[RunConfig, Path]) -> tuple:
        return each[0].model, each[0].kept, precision_of(each[0])

    with tqdm(total=len(runs), desc=title, unit="run") as bar:
        for _, alike in groupby(sorted(runs, key=of_cut), of_cut):
            cut, entering = None, None
            for run, folder in alike:
                cut, tuned = cut or before(run, plan), after(run, folder, plan)
                equal = equal_layers(cut, tuned)
                if entering is None or entering.below != equal:
                    entering = Entering(equal)
                    untrained = read(cut, run, entering)
                yield BeforeAfter(run, cut, tuned, equal, untrained, read(tuned, run, entering))
                bar.update()


def runtime_of(plan: Plan) -> RuntimeConfig:
    """The experiment's, so that every token passes every layer."""
    return dataclasses.replace(plan.experiment.runtime, last_layer_shortcut=False)


def before(run: RunConfig, plan: Plan) -> PreTrainedModel:
    """The run's layers of its base model, untrained, in the run's precision."""
    base = plan.bases[run.model]
    model = build_reward_model(base.path, run.kept, run.seed, attention=runtime_of(plan).attention,
                               pad_token_id=base.tokenizer.pad_token_id, last_layer_shortcut=False)
    compute_in(model, precision_of(run))
    return model


def after(run: RunConfig, folder: Path, plan: Plan) -> PreTrainedModel:
    """The finished run's model; UserError where its weights were freed."""
    return load_scorer(folder, runtime_of(plan), run)


def trunk_weights(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Name -> tensor of everything but the head, which no base model has."""
    return {name: tensor.detach().to(torch.float32).cpu().numpy()
            for name, tensor in model.state_dict().items() if name != HEAD}


def baseline_runs(plan: Plan, runs_dir: Path) -> dict[tuple[str, str, str], Runs]:
    """(role, rung, teacher) -> finished runs by seed: teachers, ceilings and students of BASELINE.

    Raises:
        UserError: none is finished.
    """
    groups: dict[tuple[str, str, str], list[tuple[RunConfig, Path]]] = {}
    for run, folder in finished_runs(plan, runs_dir)[0]:
        if run.role != "student" or run.method.name == BASELINE:
            groups.setdefault((run.kind, run.name, run.teacher), []).append((run, folder))
    return groups


def held_out_texts(plan: Plan, run: RunConfig, most: int, seed: int = 0) -> Responses:
    """`most` answers to prompts of the test pairs, half of them chosen, under the run's tokenizer.

    Pairs are drawn from `seed`; both answers of each are there, chosen first.
    """
    split = plan.split(run, SPLIT)
    rows = sampled_rows(len(split), most // 2, seed)
    prompts = split.ids(rows, [0] * len(rows))
    answers = [side for column in (1, 2) for side in split.ids(rows, [column] * len(rows))]
    return Responses(prompts, answers, [*range(len(rows))] * 2)


def sampled_rows(pairs: int, most: int, seed: int) -> Sequence[int]:
    """At most `most` different numbers below `pairs`, ascending."""
    drawn = np.random.default_rng(seed).permutation(pairs)[:most]
    return np.sort(drawn)
