"""PairRM as a second judge of policies, where a folder of it is named: what it makes of each answer
beside the fine-tuned policy's to the same prompt, kept as
    <run folder>/answers/test-pairrm.parquet
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from configs.run import RunConfig
from model.base.weights import weights_fingerprint
from model.pair_judge import PairRM
from src.common.hashing import content_hash
from src.common.table_files import made_once
from src.measures.policies.tables import REFERENCE, Key
from src.scoring.generations import Prompts


def by_pairrm(tables: Mapping[Key, Sequence[pd.DataFrame]], prompts: Prompts,
              policies: Sequence[RunConfig], found: Mapping[str, Path],
              folder: str) -> dict[Key, np.ndarray]:
    """(S, n) log-odds that an answer is better than the reference's, of every other policy; none
    where no folder is named.

    Args:
        tables: of each policy the judged answers, a table a seed, in the order of `policies`.
    Raises:
        UserError: no PairRM there.
    """
    if not folder:
        return {}
    judge, texts = PairRM(Path(folder)), [as_text(each) for each in prompts.messages]
    identity, taken, logits = weights_fingerprint(Path(folder)), {}, {}
    for run in policies:
        key = run.policy.name, run.policy.source
        seed = taken[key] = taken.get(key, -1) + 1
        if key[0] == REFERENCE:
            continue
        own, others = (tables[each][seed].response.to_list() for each in (key, (REFERENCE, "gt")))
        inputs = {"pairrm": identity, "texts": content_hash([texts, own, others])}
        path = found[run.identity] / "answers" / "test-pairrm.parquet"
        table = made_once(path, inputs, lambda run=run, own=own, others=others: pd.DataFrame({
            "prompt_id": prompts.ids,
            "logit": judge.logits(texts, own, others, run.display_name)}))
        logits.setdefault(key, []).append(table.logit.to_numpy())
    return {key: np.stack(own) for key, own in logits.items()}


def as_text(messages: Sequence[Mapping[str, str]]) -> str:
    """What was asked: a lone message as it is, several with who said them."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{each['role'].upper()}: {each['content']}" for each in messages)
