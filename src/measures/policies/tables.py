"""Judged answers of an experiment's policies -> policy.csv, best_of.csv and comparison.csv."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from configs.schema import EvalConfig
from src.measures.cells import interval_fields
from src.measures.policies.best_of import best_of_kl, expected_best, picked
from src.measures.policies.length_control import length_controlled
from src.measures.policies.paired import Answers, Reference, means_with_intervals, paired
from src.methods.log_odds import sigmoid

REFERENCE = "sft"
"""The fine-tuned policy, which every other begins at and is held against."""
YES, NO, OPEN = "yes", "no", "not told"

Key = tuple[str, str]
"""(`dpo`, `teacher`): what made a policy, and whose labels or rewards."""


@dataclass(frozen=True)
class Judged:
    """All that policies of an experiment said, under S seeds, to the same n prompts."""

    experiment: str
    judge: str
    seeds: Sequence[int]
    prompts: np.ndarray
    """(n,)"""
    policies: dict[Key, Answers]
    """With REFERENCE under (sft, gt)."""
    proxies: dict[str, np.ndarray]
    """Every labelling model -> its rewards (S, n) for the reference's answers."""
    drawn: dict[str, np.ndarray]
    """`judge` and every labelling model -> its rewards (S, n, N) for N answers of the reference."""
    drawn_tokens: np.ndarray
    drawn_characters: np.ndarray
    drawn_finished: np.ndarray
    tau: np.ndarray
    """(S,), of the judge."""
    pairrm: dict[Key, np.ndarray] = field(default_factory=dict)
    """Of policies that PairRM compared, (S, n) log-odds of its answer against the reference's."""

    @property
    def before(self) -> Answers:
        """The reference's answers."""
        return self.policies[REFERENCE, "gt"]

    @property
    def reference(self) -> Reference:
        return Reference.of(self.before.rewards)

    @property
    def sources(self) -> list[str]:
        """Models that label."""
        return list(self.proxies)


def with_best_of(judged: Judged, size: int) -> Judged:
    """The same with best-of-`size` by each labelling model as policies of their own."""
    made = {}
    for source in judged.sources if size > 1 else ():
        place = picked(judged.drawn[source][..., :size])[..., None]

        def of(values: np.ndarray, place: np.ndarray = place) -> np.ndarray:
            return np.take_along_axis(values, place, axis=-1)[..., 0]

        made[f"best_of_{size}", source] = Answers(
            of(judged.drawn["judge"]), of(judged.drawn_tokens), of(judged.drawn_characters),
            of(judged.drawn_finished), np.full(place.shape[:-1], best_of_kl(size)),
            of(judged.drawn[source]))
    return replace(judged, policies={**judged.policies, **made})


def policy_table(judged: Judged, config: EvalConfig) -> pd.DataFrame:
    """policy.csv: one row a policy, against the reference."""
    return pd.DataFrame([_row(judged, key, config) for key in judged.policies])


def comparison_table(judged: Judged, config: EvalConfig) -> pd.DataFrame:
    """comparison.csv: the student's policy against its teacher's, one row a way to make them."""
    steps = list(dict.fromkeys(step for step, _ in judged.policies))
    rows = []
    for step in steps:
        pair = [judged.policies.get((step, source)) for source in ("teacher", "student")]
        if None in pair:
            continue
        found = _against(judged, *pair, config)
        low, high = found["difference_low"], found["difference_high"]
        rows.append({**_facts(judged), "policy": step, "labels": "student", "against": "teacher",
                     **found, "student_better": YES if low > 0 else NO if high < 0 else OPEN})
    return pd.DataFrame(rows)


def best_of_table(judged: Judged, sizes: Sequence[int], config: EvalConfig) -> pd.DataFrame:
    """best_of.csv: what the judge, and the model that picks, think of the best of n."""
    rows = []
    for source in judged.sources:
        picking, own = judged.drawn[source], Reference.of(judged.proxies[source])
        values = np.stack([judged.reference.z(judged.drawn["judge"].reshape(len(picking), -1)),
                           own.z(picking.reshape(len(picking), -1))])
        values = values.reshape(2, *picking.shape)
        expected = np.stack([expected_best(picking, each, sizes)
                             for each in (*values, judged.drawn_tokens)])  # (3, sizes, S, n)
        for place, size in enumerate(sizes):
            spans = means_with_intervals(np.moveaxis(expected[:, place], 0, 1), judged.prompts,
                                         samples=config.bootstrap_samples, level=config.level)
            rows.append({**_facts(judged), "labels": source, "answers": size,
                         **interval_fields("reward", spans[0]),
                         **interval_fields("proxy_reward", spans[1]),
                         "tokens": spans[2].estimate})
    return pd.DataFrame(rows)


def _facts(judged: Judged) -> dict:
    return {"experiment": judged.experiment, "judge": judged.judge,
            "seeds": " ".join(map(str, judged.seeds)), "n": len(judged.prompts)}


def _row(judged: Judged, key: Key, config: EvalConfig) -> dict:
    own, z = judged.policies[key], judged.reference.z(judged.policies[key].rewards)
    reward = means_with_intervals(z[:, None], judged.prompts, samples=config.bootstrap_samples,
                                  level=config.level)[0]
    proxy = float("nan")
    if own.proxy is not None:
        first = judged.proxies[key[1]]
        proxy = float(Reference.of(first).z(own.proxy).mean())
    return {**_facts(judged), "policy": key[0], "labels": key[1], "against": REFERENCE,
            **interval_fields("reward", reward), "reward_sd": float(z.std(axis=1).mean()),
            "reward_median": float(np.median(z, axis=1).mean()),
            **_against(judged, judged.before, own, config), "proxy_difference": proxy,
            "kl": float(own.log_ratio.mean()), **_by_pairrm(judged, key, config)}


def _by_pairrm(judged: Judged, key: Key, config: EvalConfig) -> dict:
    """How often PairRM takes the policy's answer, a tie counting half; nothing where it was not
    asked of any."""
    if not judged.pairrm:
        return {}
    logits = judged.pairrm.get(key)
    if logits is None:
        return {"pairrm_rate": float("nan")}
    wins = (logits > 0) + 0.5 * (logits == 0)
    return interval_fields("pairrm_rate", means_with_intervals(
        wins[:, None], judged.prompts, samples=config.bootstrap_samples, level=config.level)[0])


def _against(judged: Judged, before: Answers, after: Answers, config: EvalConfig) -> dict:
    options = {"samples": config.bootstrap_samples, "level": config.level}
    found = paired(before.rewards, after.rewards, judged.reference, judged.tau, judged.prompts,
                   **options)
    q = sigmoid((after.rewards - before.rewards) / judged.tau[:, None]).ravel()
    longer = (after.tokens - before.tokens).ravel()
    rate, phi = length_controlled(q, longer, np.tile(judged.prompts, len(judged.seeds)), **options)
    return {**interval_fields("difference", found.difference), "better": found.better,
            "worse": found.worse, "ties": found.ties,
            **interval_fields("win_rate", found.win_rate),
            **interval_fields("soft_win_rate", found.soft_win_rate),
            **interval_fields("length_controlled_rate", rate), "length_phi": phi,
            "sign_p": found.sign_p, "wilcoxon_p": found.wilcoxon_p,
            "tokens": float(after.tokens.mean()), "tokens_before": float(before.tokens.mean()),
            "characters": float(after.characters.mean()),
            "characters_before": float(before.characters.mean()),
            "finished": float(after.finished.mean()),
            "finished_before": float(before.finished.mean())}
