"""What a base model makes of answers before anything of it is trained: a control without a reward
head, and without a label.

    runs/zero_shot/<base>-<split>-<hash8>.parquet     pair_id, reward_chosen, reward_rejected

The reward of a response is the mean log-probability of its tokens given the prompt, in nats, under
the whole base model and its own head. The tokens are those that reward models read, the template's
end of a turn with them; the mean is what keeps longer answers from losing by their length alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from data.tokens.tokenised import TokenisedSplit
from model.base.language_head import head_name, language_head
from model.base.residual import compute_in
from model.reward_model import build_reward_model
from src.common.hashing import content_hash
from src.common.precision import used, weights_to_score
from src.common.table_files import made_once
from src.measures.run_scores import RunScores
from src.runs.bases import BaseModel
from src.runs.plan import Plan
from src.scoring.layer_states import nats_of_answers
from src.scoring.pairs import margins
from src.scoring.texts import Responses

ZERO_SHOT = "zero_shot"


def zero_shot_scores(plan: Plan, split: str, runs_dir: Path) -> list[RunScores]:
    """A baseline of each of the students' bases, `zero_shot_<base>`, on a split, where methods are
    compared; none of a checkpoint without a language model's head, nor of pointwise records, whose
    absent side has no tokens to be likely."""
    bases = {rung.base.key: rung.base for rung in plan.students}
    if len(plan.experiment.methods) < 2 or any(
            (plan.prepared.split(base.tokenizer_key, split).lengths()[:, 1:] == 0).any()
            for base in bases.values()):
        return []
    tables = {base.config.name: mean_log_probabilities(base, plan, split, runs_dir)
              for base in bases.values() if head_name(base.path) is not None}
    return [RunScores("baseline", f"{ZERO_SHOT}_{name}", None, "", "", None,
                      table.pair_id.to_numpy(str), margins(table))
            for name, table in tables.items()]


def mean_log_probabilities(base: BaseModel, plan: Plan, split: str,
                           runs_dir: Path) -> pd.DataFrame:
    """`pair_id, reward_chosen, reward_rejected` of a split, computed where it is not there yet.

    Raises:
        UserError: the base has no head of its own.
    """
    pairs = plan.prepared.split(base.tokenizer_key, split)
    precision = used(plan.experiment.train.precision)
    made_from = {"base": base.fingerprint, "tokenizer": base.tokenizer_key,
                 "data": pairs.data_hash, "split": split, "precision": precision}
    name = f"{base.config.name}-{split}-{content_hash(made_from, 8)}.parquet"
    path = runs_dir / ZERO_SHOT / name

    def made() -> pd.DataFrame:
        title = f"{base.config.name} without training on {split}"
        rewards = _rewards(base, pairs, plan, precision, title)
        return pd.DataFrame({"pair_id": pairs.pair_ids, "reward_chosen": rewards[:, 0],
                             "reward_rejected": rewards[:, 1]})

    return made_once(path, made_from, made)


def _rewards(base: BaseModel, pairs: TokenisedSplit, plan: Plan, precision: str,
             title: str) -> np.ndarray:
    """(n, 2) float64, in nats a token; `title`: of its bar."""
    model = build_reward_model(
        base.path, tuple(range(base.layers)), 0, pad_token_id=base.tokenizer.pad_token_id,
        dtype=weights_to_score(precision), attention=plan.experiment.runtime.attention,
        last_layer_shortcut=False)
    compute_in(model, precision)
    rows = np.arange(len(pairs))
    prompts, chosen, rejected = (pairs.ids(rows, np.full(len(rows), column)) for column in range(3))
    texts = Responses(prompts, [*chosen, *rejected], [*rows, *rows])
    nats, tokens = nats_of_answers(model, texts, plan.experiment.runtime,
                                   language_head(base.path), title).T
    return (-nats / np.maximum(tokens, 1)).reshape(2, -1).T  # of no token, 0
