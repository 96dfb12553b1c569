"""A round of RAFT: a policy answers prompts, a reward model keeps the best answer to each.

Reward ranked fine-tuning (Dong et al. 2023, algorithm 1), with the policy of the round before as
the one that answers. Of equal rewards the first stays.
"""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from configs.run import RunConfig
from data.tokens.formatting import answer_end
from src.common.table_files import made_once
from src.runs.plan import Plan
from src.scoring.answers import rewards_of
from src.scoring.generations import Sampling, answer, answer_inputs, prompts_of
from src.scoring.texts import TextScorer
from src.training.policy.rows import Rows, labeller_of, supervised


def best_answers(run: RunConfig, plan: Plan, runs_dir: Path, model: PreTrainedModel,
                 begins_at: Path) -> Rows:
    """Of the answers that `model` gives, the best to each prompt by the run's labeller.

    The first round of every labeller has the same answers: they stay in the folder that the model
    is of, `begins_at`, and are given once.

    Answers that did not come to an end are kept out: fine-tuning on them would teach that none
    has to.
    """
    step, tokenizer = run.policy, plan.bases[run.model].tokenizer
    prompts = prompts_of(plan, run, run.split, step.prompts, seed=(run.seed, step.round))
    sampling = Sampling(step.answers, step.max_new_tokens, step.temperature, run.seed)
    path = begins_at / "answers" / f"{run.split}-{step.answers}.parquet"
    table = made_once(path, answer_inputs(begins_at, prompts, sampling, tokenizer), lambda: answer(
        model, tokenizer, prompts, sampling, plan.experiment.runtime))
    _, folder = labeller_of(run, plan, runs_dir)
    rewards = rewards_of(TextScorer(folder), prompts, table).reshape(-1, step.answers)
    finished = table.finished.to_numpy().reshape(rewards.shape)
    best = np.where(finished, rewards, -np.inf).argmax(axis=1)
    end, ids = answer_end(tokenizer), table.ids.to_list()
    rows = [supervised(prompt, [*map(int, ids[place * step.answers + pick]), end])
            for place, (prompt, pick) in enumerate(zip(prompts.tokens, best, strict=True))
            if finished[place, pick]]
    lost = len(best) - len(rows)
    return Rows(rows, {"prompts without a finished answer": lost} if lost else {})
