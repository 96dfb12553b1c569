"""What identifies a value, and the code that made a figure."""

import hashlib
import json
import subprocess
from pathlib import Path

from src.common.files import REPO_ROOT

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(value: object, digits: int = 16) -> str:
    """The first `digits` hex digits of the SHA-256 of a JSON-serialisable value."""
    text = _ENCODER.encode(value)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def file_sha256(path: Path) -> str:
    """64 hex digits of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit(root: Path = REPO_ROOT) -> str:
    """The commit of a checkout, with `+` where files other than results differ; or `unknown`."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "-uno", "--", ":!results")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
