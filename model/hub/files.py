"""huggingface.co as this repository uses it: what a model's files are, and each of them fetched.

A file that was cut goes on where it was cut, and at the end every checksum is compared with the
hub's. `snapshot_download` of the library does neither: it starts such a file again from its first
byte, and compares sizes alone (findings/hub_download_to_folder.sh). Knows nothing of what the files
hold.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, filter_repo_objects

from configs.model_schema import ModelConfig
from model.hub.errors import hub_errors
from src.common.errors import UserError
from src.common.owned import clear, require_ours

WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders hold other formats (onnx, original); consolidated files hold the weights again."""
SOURCE = "source.json"
"""Beside the files: which checkpoint, revision and commit they are of."""
ANSWER_SECONDS = 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, as the hub describes it."""

    name: str
    size: int


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
    files = tuple(HubFile(file.rfilename, file.size) for file in filter_repo_objects(
        info.siblings, allow_patterns=WANTED, ignore_patterns=UNWANTED,
        key=lambda file: file.rfilename))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise UserError(f"{model.checkpoint} at {model.revision}: has no safetensors, and other "
                        "weights are not read; name another revision or model")
    return Listing(info.sha, bool(info.gated), files)


def fetch_files(model: ModelConfig, listing: Listing, folder: Path) -> None:
    """What `folder` lacks of every file of `listing`; then all of them are compared with the hub's.

    What the folder holds of another commit is deleted first.

    Raises:
        UserError: as hub_errors; a folder that holds anything else; checksums that are not the
            hub's, after the files were deleted.
        OSError: no space left; what was fetched stays.
    """
    if _commit_in(folder) != listing.commit:
        require_ours(folder, "a download", "the unfinished download",
                     lambda place: (place / SOURCE).is_file())
        clear(folder, WANTED)
        folder.mkdir(parents=True, exist_ok=True)
        source = {"checkpoint": model.checkpoint, "revision": model.revision,
                  "commit": listing.commit}
        (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    clear(folder, [f"{name}.part" for name in WANTED])  # as unfinished files were once called
    with hub_errors(model.checkpoint, model.revision):
        for file in listing.files:
            _fetch(hf_hub_url(model.checkpoint, file.name, revision=listing.commit), file,
                   folder / file.name)
        checked = HfApi().verify_repo_checksums(model.checkpoint, revision=listing.commit,
                                                local_dir=folder)
    for wrong in checked.mismatches:
        (folder / wrong["path"]).unlink()
    if checked.mismatches:
        told = (f"{wrong['path']} with {wrong['actual'][:12]} instead of {wrong['expected'][:12]}"
                for wrong in checked.mismatches)
        raise UserError(f"{folder}: arrived with a checksum that is not the hub's: "
                        f"{', '.join(told)}: deleted; run the same command again")


def _fetch(url: str, file: HubFile, path: Path) -> None:
    """The bytes of `file` that `path` does not have yet."""
    try:
        with path.open("ab") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            http_get(url, stream, resume_size=path.stat().st_size, expected_size=file.size,
                     headers=build_hf_headers(), displayed_filename=file.name)
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the library names none


def bytes_here(listing: Listing, folder: Path) -> int:
    """How much of `listing` is in `folder`."""
    if _commit_in(folder) != listing.commit:
        return 0
    paths = (folder / file.name for file in listing.files)
    return sum(path.stat().st_size for path in paths if path.is_file())


def _commit_in(folder: Path) -> str | None:
    """The commit that the files in `folder` are of; None where it does not say."""
    try:
        return json.loads((folder / SOURCE).read_text(encoding="utf-8"))["commit"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
