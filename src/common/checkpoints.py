"""The checkpoints that transformers' Trainer writes: which of them can be resumed from."""

import zipfile
from pathlib import Path

from src.common.files import read_json

SAVE_SECONDS = 75.0
"""In which training that is asked to end saves: Slurm warns a job 90 seconds before its end."""


def newest_whole(checkpoints: Path, world_size: int) -> Path | None:
    """The newest of the trainer's checkpoints in a folder that is whole, or None.

    The trainer's own choice is the highest number, whole or not, and it resumes silently wrong when
    the optimiser or a rank's random state is missing. Whole means: trainer_state.json (written
    last by the main process) parses; for each of exactly `world_size` ranks there is a random
    state, and under DeepSpeed a share of the optimiser and `latest`; none of it is cut short. The
    best checkpoint that it names, which early stopping ends with, must be whole as well.
    """
    def is_whole(checkpoint: Path) -> bool:
        state = read_json(checkpoint / "trainer_state.json")
        optimizers = len(list(checkpoint.glob("global_step*/*optim_states.pt")))
        if (checkpoint / "optimizer.pt").is_file():
            sound = optimizers == 0
        else:
            sound = optimizers == world_size and (checkpoint / "latest").is_file()
        files = [*checkpoint.rglob("*.pt"), *checkpoint.glob("*.pth")]
        best = checkpoint.with_name(f"checkpoint-{(state or {}).get('best_global_step')}")
        return (sound and state is not None
                and (state.get("best_global_step") is None or best == checkpoint or is_whole(best))
                and len(list(checkpoint.glob("rng_state*.pth"))) == world_size
                and all(map(zipfile.is_zipfile, files)))  # torch.save's format, ends in an index

    found = [p for p in checkpoints.glob("checkpoint-*") if p.name[11:].isdigit()]
    whole = [p for p in sorted(found, key=lambda p: int(p.name[11:])) if is_whole(p)]
    return whole[-1] if whole else None
