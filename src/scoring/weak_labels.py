"""Teacher's scores -> the weak labels that students learn from, written once per teacher and split.

    <teacher's run folder>/weak_labels/<split>.parquet      pair_id, weak_label

weak_label = P(chosen > rejected) = sigmoid(reward_chosen - reward_rejected), in [0, 1].
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from configs.run import RunConfig
from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from src.common import distributed
from src.common.errors import UserError
from src.common.join import in_order
from src.common.lock import lock, quiet
from src.common.table_files import write_table
from src.methods.log_odds import sigmoid
from src.scoring.pairs import made_from, margins, scores_of, stored
from src.scoring.trunk_cache import TrunkCache

WEAK_SPLITS = ("train_2", "val")
"""What a teacher labels. It was trained on train_1, and test is for nobody's training."""
TEACHER = "teacher"
"""What a table of labels calls the run that gave them, also where that is a student."""


def weak_labels_of(folder: Path, teacher: RunConfig, split: TokenisedSplit, split_name: str,
                   runtime: RuntimeConfig,
                   trunk: Callable[[], TrunkCache | None] = lambda: None) -> np.ndarray:
    """The labels (n,) that the teacher in `folder` gives the pairs of `split`, in their order.

    `trunk`: what the teacher's frozen layers make of the split, see `scores_of`.
    """
    if split_name not in WEAK_SPLITS:
        raise UserError(f"weak labels are for {' and '.join(WEAK_SPLITS)}, not for {split_name}")
    path = _path(folder, split_name)
    with lock(path, quiet) if distributed.is_main() else nullcontext():
        table = distributed.on_main(lambda: stored_labels(folder, teacher, split_name,
                                                          split.data_hash))
        if table is None:
            scores = scores_of(folder, teacher, split, split_name, runtime, trunk)
            table = pd.DataFrame({"pair_id": scores.pair_id,
                                  "weak_label": sigmoid(margins(scores))})
            distributed.on_main(lambda: write_table(
                path, table, made_from(TEACHER, folder, teacher, split_name, split.data_hash)))
    return checked(table, split.pair_ids, f"{path}")


def stored_labels(folder: Path, teacher: RunConfig, split_name: str,
                  data_hash: str = "") -> pd.DataFrame | None:
    """The labels that a teacher has written; None where there are none, or of other weights or
    data.

    Args:
        data_hash: of the pairs; empty for the data that the teacher was trained with.
    """
    return stored(_path(folder, split_name), TEACHER, folder, teacher, split_name, data_hash)


def _path(folder: Path, split_name: str) -> Path:
    return folder / "weak_labels" / f"{split_name}.parquet"


def checked(table: pd.DataFrame, pair_ids: np.ndarray, where: str) -> np.ndarray:
    """The `weak_label` of each of `pair_ids`, in their order.

    Raises:
        UserError: not one for each of them, or one outside [0, 1].
    """
    again = "prepare the data once for all models and delete the file, it is written again"
    values = in_order(table.weak_label.to_numpy(np.float64), table.pair_id.to_numpy(str), pair_ids,
                      f"{where}: weak labels", again)
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(f"{where}: weak labels must lie in [0, 1], found {values.min()} to "
                        f"{values.max()}: delete the file, it is written again")
    return values
