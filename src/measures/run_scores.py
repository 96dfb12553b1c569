"""What analysis is made from: the scored pairs, and each finished run's margins on them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.run import RunConfig
from src.common.errors import UserError
from src.common.join import in_order


@dataclass(frozen=True)
class EvalPairs:
    """The n pairs that every run was scored on."""

    experiment: str
    data: str
    split: str
    pair_ids: np.ndarray
    prompt_ids: np.ndarray
    length_chosen: np.ndarray
    """Characters of the answer."""
    length_rejected: np.ndarray

    def __post_init__(self):
        sizes = {len(self.pair_ids), len(self.prompt_ids), len(self.length_chosen),
                 len(self.length_rejected)}
        if len(sizes) != 1 or 0 in sizes or len(set(self.pair_ids)) != len(self.pair_ids):
            raise UserError(f"{self.data} {self.split}: {len(self.pair_ids)} pairs, "
                            f"{len(set(self.pair_ids))} different ids, columns of {sorted(sizes)} "
                            "rows: expected one row a pair; run data/preprocess.py again")


@dataclass(frozen=True)
class RunScores:
    """One finished run, or one baseline: what it is, and its margin on every pair."""

    role: str
    """teacher, ceiling, student or baseline."""
    name: str
    """Its rung, for example demo-L4, or the baseline."""
    layers: int | None
    """Decoder layers kept; None for a baseline."""
    teacher: str
    """The rung of a student's teacher; empty for the rest."""
    method: str
    """A student's method; empty for the rest."""
    seed: int | None
    """None for a baseline."""
    pair_ids: np.ndarray
    margins: np.ndarray
    """(n,) reward_chosen - reward_rejected, in the order of `pair_ids`."""
    curve: Sequence[tuple[int, float]] = ()
    """(step, training loss) as logged."""
    keep: str = ""
    """The rule that chose its layers; `all` for a whole model, empty for a baseline."""
    seconds: float | None = None
    """Its training took, with that of the students that it learns from; None where not known."""
    identity: str = ""
    """Of the run; empty for a baseline, and for several teachers as one."""
    commit: str = ""
    """Of its evaluation, where that was an earlier one, whose seconds are of another machine."""

    @classmethod
    def of(cls, run: RunConfig, pair_ids: np.ndarray, margins: np.ndarray,
           curve: Sequence[tuple[int, float]], commit: str = "") -> "RunScores":
        """What a run makes of the pairs (n,); the rest of the fields are facts of the run."""
        method = run.method.name if run.role == "student" else ""
        return cls(run.role, run.name, len(run.kept), run.teacher, method, run.seed, pair_ids,
                   margins, curve, run.keep, identity=run.identity, commit=commit)

    @property
    def key(self) -> tuple[str, str, str, str, int | None]:
        """What no two runs share."""
        return self.role, self.name, self.teacher, self.method, self.seed

    @property
    def column(self) -> str:
        """Its column in scores.csv, for example `student/demo-L6/demo-L2/soft/0`."""
        return "/".join(str(part) for part in self.key if part not in ("", None))


def base_of(rung: str) -> str:
    """The base model in a rung's name: `demo` of `demo-L4`, by any rule that keeps layers, and of
    `demo-L4-p10`, which learned from 10% of the prompts."""
    return re.sub(r"-([BFIL]\d+|K\d+(_\d+)*)(-p[\d.e-]+)?$", "", rung)


def align(runs: Sequence[RunScores], pairs: EvalPairs) -> np.ndarray:
    """Margins (R, n) of the runs in the order of `pairs`: joined one to one on pair_id.

    Raises:
        UserError: a run twice; pair ids missing, left over or repeated in a run.
    """
    seen = set()
    for run in runs:
        if run.key in seen:
            raise UserError(f"run {run.column} is there twice: expected one run per role, name, "
                            "teacher, method and seed; remove the run folder that is out of date")
        seen.add(run.key)
    again = "delete its scores and run eval.py again"
    aligned = [in_order(run.margins, run.pair_ids, pairs.pair_ids, f"run {run.column}: scores",
                        again) for run in runs]
    return np.array(aligned, np.float64).reshape(len(runs), len(pairs.pair_ids))
