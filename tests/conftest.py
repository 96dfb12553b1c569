"""Fixtures that any test may use."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from tests.families import save_base  # noqa: E402


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family -> folder of its tiny base model, made once. Read only: copy it to change it."""
    @functools.cache
    def folder(family: str) -> Path:
        return save_base(tmp_path_factory.mktemp("base") / family, family)

    return folder
