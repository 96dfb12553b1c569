"""Fixtures that any test may use."""

import functools
import os
import signal
import unittest.mock
from collections.abc import Callable
from pathlib import Path

import pytest
import tqdm

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads only get in the way of tiny models

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.families import save_base
from tests.tiny_experiment import TinyExperiment, make_experiment


def pytest_configure(config: pytest.Config) -> None:
    """Everything but the tests of GPUs is about CPUs, on a box with GPUs too."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def _no_bf16():
    """What `auto` takes on a CPU depends on the machine; a test's figures must not."""
    with unittest.mock.patch("src.common.precision.cpu_has_bf16", lambda: False):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_late_bars():
    """A bar that shows where work takes a second must not show on a machine that stalls."""
    begin = tqdm.std.tqdm.__init__

    def late(self, *args, delay=0, **options):
        begin(self, *args, delay=delay and 1e9, **options)

    with unittest.mock.patch.object(tqdm.std.tqdm, "__init__", late):
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family -> folder of its tiny base model, made once. Read only: copy it to change it."""
    @functools.cache
    def folder(family: str) -> Path:
        return save_base(tmp_path_factory.mktemp("base") / family, family)

    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TinyExperiment:
    """An experiment with every stage trained, in this process: two teachers, two students, two
    seeds. Read only: what changes it takes a copy."""
    from tests.tiny_experiment_parts import prepare_data, train_all

    tiny = make_experiment(tmp_path_factory.mktemp("finished"), rows=130, train_pairs=32,
                           test_pairs=40, seeds=[0, 1])
    prepare_data(tiny)
    train_all(tiny)
    return tiny
