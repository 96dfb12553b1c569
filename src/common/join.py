"""The one join: values of pairs come together by pair_id, one to one, or not at all."""

import numpy as np
import pandas as pd

from src.common.errors import UserError


def in_order(values: np.ndarray, ids: np.ndarray, wanted: np.ndarray, what: str,
             remedy: str) -> np.ndarray:
    """`values`, which belong to the pairs `ids`, in the order of the pairs `wanted`.

    Args:
        values, ids: (n, ...) and (n,).
        wanted: (n,) the same pairs in any order.
        what: names the values, for the message: `file.parquet: weak labels`.
    Raises:
        UserError: a pair is missing, left over or there twice.
    """
    index = pd.Index(ids)
    repeated = index[index.duplicated()]
    rows = np.full(len(wanted), -1) if len(repeated) else index.get_indexer(wanted)
    missing = [] if len(repeated) else list(np.asarray(wanted)[rows < 0])
    if (len(repeated) or missing or len(values) != len(wanted)
            or len(np.unique(rows)) != len(wanted)):
        facts = [f"{len(missing)} missing, such as {missing[0]}" if missing else "",
                 f"{len(repeated)} repeated, such as {repeated[0]}" if len(repeated) else ""]
        raise UserError(f"{what}: {len(values)} for {len(wanted)} pairs, each of which needs one"
                        + "".join(f"; {fact}" for fact in facts if fact) + f": {remedy}")
    return np.asarray(values)[rows]
