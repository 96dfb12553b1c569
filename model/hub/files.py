"""huggingface.co as this repository uses it: what a model's files are, and each of them fetched.

A file is fetched under `<name>.part`, goes on there where it was cut, and gets its name when its
checksum is that of the hub. (`snapshot_download` of the library starts a file that was cut again
from its first byte, and checks its size alone.) Knows nothing of what the files hold.
"""

import fcntl
import fnmatch
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from configs.schema import ModelConfig
from model.hub.errors import hub_errors
from src.common.errors import UserError
from src.common.owned import clear, require_ours

WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders hold other formats (onnx, original); consolidated files hold the weights again."""
PART = ".part"
SOURCE = "source.json"
"""Beside the files: which checkpoint, revision and commit they are of."""
ANSWER_SECONDS = 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, as the hub describes it."""

    name: str
    size: int
    sha256: str
    """Of the content; empty for a small file, which git keeps itself."""
    git_id: str
    """SHA-1 of git's header and the content, for a file without sha256."""


@dataclass(frozen=True)
class Listing:
    """What there is to fetch of a model."""

    commit: str
    gated: bool
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def list_files(model: ModelConfig) -> Listing:
    """The files of `model` at its revision that are worth fetching.

    Raises:
        UserError: as hub_errors; no safetensors.
    """
    with hub_errors(model.checkpoint, model.revision):
        info = HfApi().model_info(model.checkpoint, revision=model.revision, files_metadata=True,
                                  timeout=ANSWER_SECONDS)
    files = tuple(HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else "",
                          file.blob_id) for file in info.siblings if _is_wanted(file.rfilename))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise UserError(f"{model.checkpoint} at {model.revision}: has no safetensors, and other "
                        "weights are not read; name another revision or model")
    return Listing(info.sha, bool(info.gated), files)


def _is_wanted(name: str) -> bool:
    return (any(fnmatch.fnmatch(name, pattern) for pattern in WANTED)
            and not any(fnmatch.fnmatch(name, pattern) for pattern in UNWANTED))


def fetch_files(model: ModelConfig, listing: Listing, folder: Path) -> None:
    """Every file of `listing` into `folder`; those that are there under their names are left.

    What the folder holds of another commit is deleted first.

    Raises:
        UserError: as hub_errors; a folder that holds anything else; a checksum that is not the
            hub's, after the file was deleted.
        OSError: no space left; what was fetched stays.
    """
    if _commit_in(folder) != listing.commit:
        require_ours(folder, "a download", "the unfinished download",
                     lambda place: (place / SOURCE).is_file())
        clear(folder, (*WANTED, *(f"{name}{PART}" for name in WANTED)))
        folder.mkdir(parents=True, exist_ok=True)
        source = {"checkpoint": model.checkpoint, "revision": model.revision,
                  "commit": listing.commit}
        (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    for file in listing.files:
        if not (folder / file.name).is_file():
            part = folder / (file.name + PART)
            with hub_errors(model.checkpoint, model.revision):
                _fetch(hf_hub_url(model.checkpoint, file.name, revision=listing.commit), file, part)
            _check(file, part)
            os.replace(part, folder / file.name)


def _fetch(url: str, file: HubFile, part: Path) -> None:
    """The bytes of `file` that `part` does not have yet."""
    try:
        with part.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stream.tell() > file.size:
                stream.truncate(0)
            http_get(url, stream, resume_size=part.stat().st_size, expected_size=file.size,
                     headers=build_hf_headers(), displayed_filename=file.name)
    except BlockingIOError:
        raise UserError(f"{part}: another download is at work on it: wait for it") from None
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise
        raise OSError(error.errno, error.strerror, str(part)) from error  # the library names none


def _check(file: HubFile, part: Path) -> None:
    """UserError, and `part` deleted, unless its checksum is the hub's."""
    with part.open("rb") as stream:
        if file.sha256:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            digest = hashlib.sha1(b"blob %d\0" % file.size + stream.read()).hexdigest()
    expected = file.sha256 or file.git_id
    if digest != expected:
        part.unlink()
        raise UserError(f"{part.with_suffix('')}: arrived with checksum {digest[:12]}, but the "
                        f"hub's is {expected[:12]}: it was deleted; run the same command again")


def bytes_here(listing: Listing, folder: Path) -> int:
    """How much of `listing` is in `folder`, whole files and parts."""
    if _commit_in(folder) != listing.commit:
        return 0
    return sum(path.stat().st_size for file in listing.files
               for path in (folder / file.name, folder / (file.name + PART)) if path.is_file())


def _commit_in(folder: Path) -> str | None:
    """The commit that the files in `folder` are of; None where it does not say."""
    try:
        return json.loads((folder / SOURCE).read_text(encoding="utf-8"))["commit"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
