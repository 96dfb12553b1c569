"""What a download would fetch: each model's size, what is here of it, and whether it fits the disk.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from configs.model_schema import ModelConfig
from model.hub.errors import UnreachableError
from model.hub.files import Listing, bytes_here, list_files
from src.common.errors import UserError
from src.common.files import REPO_ROOT

COLUMNS = "{:<18} {:<38} {:<12} {:<5} {:>10} {:>8}  {}"
HEADINGS = ("model", "checkpoint", "revision", "gated", "parameters", "GB", "here")
LEGEND = "GB: as the hub lists the files now; with ~, as recorded in configs/models"


@dataclass(frozen=True)
class Plan:
    """A model that was asked for, with what the hub says of it."""

    model: ModelConfig
    listing: Listing | None = None
    """None where the model is here, is made here, or the hub did not say."""
    error: UserError | None = None
    """Why the hub did not say."""

    @property
    def is_here(self) -> bool:
        return self.model.path.is_dir()

    @property
    def partial(self) -> Path:
        """Where the model is while it is fetched."""
        return self.model.path.with_name(self.model.path.name + ".partial")

    @property
    def missing_bytes(self) -> int:
        """What is not here yet; as the config has it where the hub did not say."""
        if self.is_here:
            return 0
        if self.listing is None:
            return round(self.model.download_gb * 1e9)
        return self.listing.size - bytes_here(self.listing, self.partial)


def make_plans(models: list[ModelConfig], ask: bool = True) -> list[Plan]:
    """Ask the hub about each that is not here; once it cannot be reached, it is not asked again.

    Args:
        ask: False to leave the hub alone.
    """
    plans, silence = [], None
    for model in models:
        if model.path.is_dir() or model.is_local or not ask:
            plans.append(Plan(model))
            continue
        try:
            if silence is not None:
                raise silence
            plans.append(Plan(model, list_files(model)))
        except UserError as error:
            silence = error if isinstance(error, UnreachableError) else None
            plans.append(Plan(model, error=error))
    return plans


def table(plans: list[Plan]) -> str:
    """The plans, one a line, with their sum and the free disk, ready to print."""
    missing, (disk, free) = sum(plan.missing_bytes for plan in plans), _disk(plans)
    models = f"{len(plans)} model{'s' if len(plans) > 1 else ''}"
    return "\n".join([
        COLUMNS.format(*HEADINGS), *map(_row, plans), "",
        f"{models}, {missing / 1e9:.2f} GB to fetch; {free / 1e9:.2f} GB free on the disk of "
        f"{shown(disk)}", LEGEND])


def silences(plans: list[Plan]) -> list[str]:
    """Why the hub did not say anything of some models, each reason once."""
    return list(dict.fromkeys(f"! {plan.error}" for plan in plans if plan.error is not None))


def _row(plan: Plan) -> str:
    model, listing = plan.model, plan.listing
    here = ("yes" if plan.is_here else "to dequantise" if model.is_gguf
            else "made here" if model.is_local else "no")
    size = f"~{model.download_gb:.2f}" if model.download_gb else "?"
    if listing is not None:
        size = f"{listing.size / 1e9:.2f}"
        if plan.missing_bytes < listing.size:
            here = f"{(listing.size - plan.missing_bytes) / 1e9:.2f} GB of it"
    gated = listing.gated if listing else model.gated
    return COLUMNS.format(model.name, model.checkpoint, model.revision[:12],
                          "yes" if gated else "no",
                          f"{model.parameters:.3g}B" if model.parameters else "?", size, here)


def check_space(plans: list[Plan]) -> None:
    """UserError where the disk has no room for what is about to be fetched."""
    missing = sum(plan.missing_bytes for plan in plans if plan.listing is not None)
    disk, free = _disk(plans)
    if missing > free:
        raise UserError(f"{missing / 1e9:.2f} GB to fetch, but {free / 1e9:.2f} GB free on the "
                        f"disk of {disk}: free some, or make {disk} a link to a folder on a bigger "
                        "disk")


def _disk(plans: list[Plan]) -> tuple[Path, int]:
    """The folder of checkpoints, and the free bytes of the disk that it is on, or will be."""
    folder = plans[0].partial.parent
    present = next(path for path in (folder, *folder.parents) if path.exists())
    return folder, shutil.disk_usage(present).free


def shown(folder: Path) -> Path:
    """The path as a person at the repository's root would write it."""
    return folder.relative_to(REPO_ROOT) if folder.is_relative_to(REPO_ROOT) else folder
