"""The one place where a library reads a model's folder: nothing in it is ever run.

A folder may name Python files of its own for its tokenizer, config or model. Unless it is told not
to, the library asks on the terminal whether to run them.
"""

from pathlib import Path
from typing import Any


def from_folder(cls: Any, folder: Path | str | None, **options: Any) -> Any:
    """`cls.from_pretrained(folder)` without code from the folder and without the network.

    Args:
        cls: an Auto class of transformers, or a model's own class.
        folder: None for a model's own class that is handed its config and weights.
    """
    return cls.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
