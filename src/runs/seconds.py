"""What finished runs cost: the seconds of their manifests, with those of what came before them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.run import RunConfig
from src.common.files import read_json


def training_seconds(found: Sequence[tuple[RunConfig, Path]]) -> dict[str, float | None]:
    """Identity -> seconds of training of each run and of all students that it needs, each once.

    Teachers and ceilings do not count: every method shares them. None where a manifest has no
    seconds, or where a run that is needed is not among those found.
    """
    runs = {run.identity: run for run, _ in found}
    own = {run.identity: (read_json(folder / "manifest.json") or {}).get("seconds")
           for run, folder in found}
    totals = {}
    for identity in runs:
        parts = _students_of(identity, runs)
        known = parts is not None and all(own[part] is not None for part in parts)
        totals[identity] = sum(own[part] for part in parts) if known else None
    return totals


def _students_of(identity: str, runs: Mapping[str, RunConfig]) -> set[str] | None:
    """A run, and the students before it; None where one of them is not there."""
    before = set()
    for needed in runs[identity].needs:
        if needed not in runs:
            return None
        if runs[needed].kind == "student":
            upstream = _students_of(needed, runs)
            if upstream is None:
                return None
            before |= upstream
    return {identity} | before
