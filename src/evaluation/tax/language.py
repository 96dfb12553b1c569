"""A reward model and its base, cut to the same layers, as language models under the base's head."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.tokens.formatting import load_tokenizer
from model.base.language_head import head_weight, language_head
from model.base.language_model import as_language_model
from model.base.residual import compute_in
from model.base.weights import base_fingerprint, read_config
from model.reward_model import build_reward_model, saved_config
from src.common.errors import UserError
from src.evaluation.tax.harness import TaskScore, task_scores
from src.measures.bootstrap import Interval
from src.measures.tax.paired import Compared, compared
from src.runs.folders import read_run
from src.scoring.layer_states import nats_of_answers
from src.scoring.pairs import load_scorer, precision_of
from src.scoring.windows import Windows

if TYPE_CHECKING:
    from lm_eval.api.task import Task

RUNTIME = dataclasses.replace(RuntimeConfig(), last_layer_shortcut=False)
"""Every token passes every layer."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A reward model beside the layers of its base that it began with."""

    tuned: PreTrainedModel
    base: PreTrainedModel
    base_path: Path
    tokenizer: PreTrainedTokenizerBase

    @property
    def head(self) -> Tensor:
        """(V, d) of the base."""
        return head_weight(self.base_path)


def read_pair(folder: Path, base_path: Path) -> Pair:
    """The reward model in `folder`, and `base_path` cut to the layers that it keeps.

    Raises:
        UserError: not a finished reward model with its weights; not a language model; a model from
            elsewhere that does not have all of the base's layers, so that nobody knows which.
    """
    run, config = read_run(folder), saved_config(folder)
    kept = _kept(folder, run, config.num_hidden_layers, base_path)
    head_weight(base_path)  # or say now that there is none
    tuned = load_scorer(folder, RUNTIME, run)
    base = build_reward_model(base_path, kept, 0, pad_token_id=config.pad_token_id,
                              last_layer_shortcut=False)
    compute_in(base, precision_of(run))
    return Pair(tuned, base, base_path, load_tokenizer(folder))


def _kept(folder: Path, run: RunConfig | None, layers: int, base_path: Path) -> tuple[int, ...]:
    whole = read_config(base_path).num_hidden_layers
    if run is not None:
        if base_fingerprint(base_path) != run.base:
            raise UserError(f"--base {base_path}: is not what {folder} was made from, {run.model}: "
                            "name the folder of that base")
        return run.kept
    if layers != whole:
        raise UserError(f"{folder}: {layers} layers, --base {base_path}: {whole}: which of them "
                        "were kept is not known of a model from elsewhere; name a base of as many "
                        "layers")
    return tuple(range(whole))


def window_nats(model: PreTrainedModel, windows: Windows, head: Callable[[Tensor], Tensor],
                title: str = "") -> np.ndarray:
    """(R,) float64: nats of each window's tokens but the first. Under a title it shows a bar."""
    return nats_of_answers(model, windows.texts, RUNTIME, head, title)[:, 0]


def nats_of_both(pair: Pair, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each window under the base and under the tuned model, (R,) each."""
    head = language_head(pair.base_path)
    return (window_nats(pair.base, windows, head, "nats, base"),
            window_nats(pair.tuned, windows, head, "nats, tuned"))


def questions_of_both(pair: Pair, tasks: Sequence["Task"], limit: int | None) -> list[Compared]:
    """Every metric of every task under both models."""
    head, found = pair.head, []
    for model in (pair.base, pair.tuned):
        found.append(task_scores(as_language_model(model, head), pair.tokenizer, tasks, limit,
                                 model.precision))
    return [_compared(*scores) for scores in zip(*found, strict=True)]


def _compared(base: TaskScore, tuned: TaskScore) -> Compared:
    """The two on the same questions; without an interval where a metric is of all together."""
    if base.each is not None and tuned.each is not None:
        return compared(base.task, base.metric, base.each, tuned.each, chance=base.chance)
    alone = [Interval(value, float("nan"), float("nan")) for value in (
        base.estimate, tuned.estimate, tuned.estimate - base.estimate)]
    return Compared(base.task, base.metric, base.questions, *alone, base.chance)
