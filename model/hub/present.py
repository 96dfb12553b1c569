"""The folder of a model that is already here: whether it is whole, and what it is of."""

import json
from pathlib import Path

from configs.model_schema import ModelConfig
from model.hub.files import SOURCE
from src.common.errors import UserError, reading
from src.common.files import read_json
from src.common.hashing import file_sha256


def check_checkpoint(model: ModelConfig, folder: Path) -> None:
    """UserError unless the folder holds a config of the right family, and whole safetensors."""
    from model.base.truncate import check_family  # torch: seconds that --help need not take
    from model.base.weights import read_config, tensor_files

    check_family(read_config(folder), str(folder), model.family)
    tensor_files(folder)


def check_present(model: ModelConfig, wanted: str | None) -> None:
    """UserError unless the folder that is there is whole, and of what the config names.

    Args:
        wanted: hub or package, where it has to be from; None for either.
    """
    again = f"delete the folder {model.path} and run the same command again"
    try:
        check_checkpoint(model, model.path)
    except UserError as error:
        if not (model.path / SOURCE).is_file():  # not made by us: not ours to advise away
            raise UserError(f"{error}; or correct `checkpoint` of models/{model.name}") from None
        raise UserError(f"{error}; or {again}") from None
    source = model.path / SOURCE
    if not source.is_file():
        return
    with reading(source, again):
        held = json.loads(source.read_text(encoding="utf-8"))
        checkpoint, revision = held["checkpoint"], held["revision"]
        sha256, kind = held.get("sha256"), "package" if "packages" in held else "hub"
    if (checkpoint, revision) != (model.checkpoint, model.revision):
        raise UserError(f"{model.path}: holds {checkpoint} at {revision}, but the config names "
                        f"{model.checkpoint} at {model.revision}: {again}")
    if wanted not in (None, kind):
        raise UserError(f"{model.path}: is there already, from the {kind}: {again}")
    if sha256 is not None and sha256 != _named_sha256(model, sha256):
        raise UserError(f"{model.path}: was made of a GGUF file with sha256 {sha256[:12]}, which "
                        f"is not the one that the config names now: {again}")


def dequantised_from(model: ModelConfig) -> str:
    """The GGUF file that the folder's weights are from; empty where they are from none."""
    held = read_json(model.path / SOURCE) or {}
    if "sha256" not in held:
        return ""
    if model.is_gguf:
        return model.gguf.name
    packages = ", ".join(map(str, held.get("packages", [])))
    return f"{model.package.file if model.package else 'a GGUF file'} ({packages})"


def _named_sha256(model: ModelConfig, default: str) -> str:
    """Of the GGUF file that the config names; `default` where that is no longer on the disk."""
    if model.is_gguf:
        return file_sha256(model.gguf) if model.gguf.is_file() else default
    return model.package.sha256 if model.package else ""
