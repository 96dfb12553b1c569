"""Which folders are ours: only what carries our mark is ever cleared, replaced or written into.

A command that fills a folder claims it first, so that one that was killed half-way is known by its
mark. Standard library only.
"""

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path

from src.common.errors import UserError
from src.common.files import REPO_ROOT

MARK = ".weak_to_strong"
"""A file in every folder that a command of this repository fills; it holds what is in there."""
CHECKPOINT = ("config.json", "generation_config.json", "model*.safetensors",
              "model.safetensors.index.json", "tokenizer*.json", "tokenizer.model",
              "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
              "merges.txt", "chat_template.jinja", "README.md")
"""What a saved model and its tokenizer consist of."""


def require_ours(folder: Path, kind: str, option: str,
                 known: Callable[[Path], bool] = lambda folder: False) -> None:
    """Raise unless `folder` is new, empty or ours.

    Args:
        kind: what we put there, such as "prepared data"; a folder of another kind is not ours.
        option: how a person named the folder, for the message: `--output_dir`.
        known: whether a folder without a mark is one that a version before the mark made.
    Raises:
        UserError: a file; the repository or a folder that holds it; anything that is not ours.
    """
    if _is_no_place(folder):
        raise UserError(f"{option} {str(folder)!r}: the working folder, the repository or one that "
                        "holds it: name a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {folder}: is a file: name a new or empty folder")
    names = _names(folder)  # before the mark, which another launch puts there first
    held = kind_of(folder)
    if held == kind:
        return
    if not held:  # nor is an empty mark one: its disk was full
        names &= _names(folder)  # another launch may have removed what it had made
        if not names or known(folder):
            return
    what = f"holds {held}" if held else f"holds {_listed(names)}, which is not ours"
    raise UserError(f"{option} {folder}: {what}, and nothing of that is touched: name a new or "
                    "empty folder")


def claim(folder: Path, kind: str, option: str,
          known: Callable[[Path], bool] = lambda folder: False) -> None:
    """`require_ours`, and put our mark into the folder, which is made where there is none."""
    require_ours(folder, kind, option, known)
    if not kind_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(f"{kind}\n", encoding="utf-8")


def disclaim(folder: Path) -> None:
    """Remove a folder that holds nothing, or nothing but the mark."""
    if folder.is_dir() and not {path.name for path in folder.iterdir()} - {MARK}:
        (folder / MARK).unlink(missing_ok=True)
        folder.rmdir()


def kind_of(folder: Path) -> str | None:
    """What the mark in `folder` says; None where there is none."""
    try:
        return (folder / MARK).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def clear(folder: Path, patterns: Sequence[str], keep: Sequence[str] = ()) -> None:
    """Remove what we write in a folder of ours, and folders that are empty then; the rest stays.

    Args:
        patterns: paths in the folder that we write; `*` also stands for `/`.
        keep: sub-folders that are left alone.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside comes before its folder
        if path.relative_to(folder).parts[0] in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), each) for each in patterns):
            path.unlink(missing_ok=True)  # another launch may have removed it
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_no_place(folder: Path) -> bool:
    """Whether a path names nothing that one command may have for itself."""
    place = folder.resolve()
    return str(folder) in ("", ".") or place in (Path.home(), REPO_ROOT, *REPO_ROOT.parents) or (
        place == place.parent)


def _names(folder: Path) -> set[str]:
    """What lies in a folder beside the mark; nothing where there is no folder."""
    try:
        return {path.name for path in folder.iterdir()} - {MARK}
    except FileNotFoundError:
        return set()


def _listed(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
