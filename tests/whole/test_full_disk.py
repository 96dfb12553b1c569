"""A disk that fills up under any stage: one line, exit code 2, and the same command goes on later.

The disk is real: a small tmpfs that a child of this process mounts where nobody else sees it.
"""

import contextlib
import ctypes
import io
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from model import pretraining
from src.common.errors import run_command
from src.common.files import REPO_ROOT
from src.common.lock import SUFFIXES
from tests.tiny_experiment import TinyExperiment, main_of, make_experiment

NO_MOUNTS = 77
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
"""CLONE_NEWNS and CLONE_NEWUSER of Linux."""


def mount_small_disk(folder: Path) -> None:
    """A tmpfs of 64 MiB at `folder`, for this process alone; ends it where that is not allowed."""
    user, group = os.geteuid(), os.getegid()
    flags = NEW_MOUNTS | (NEW_USER if user else 0)
    if ctypes.CDLL(None).unshare(flags):
        os._exit(NO_MOUNTS)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    for words in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]):
        if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
            os._exit(NO_MOUNTS)


def in_child(action: Callable[[], None]) -> None:
    """Run `action` in a fork of this process; what it raises fails the test."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == NO_MOUNTS:
        pytest.skip("this system lets nobody mount a disk of their own")
    assert code == 0


def call(module: str, arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    sys.argv, errors = [module, *arguments], io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_command(main_of(module))
        except SystemExit as end:
            return end.code, errors.getvalue()
    return 0, errors.getvalue()


def fill(disk: Path, free: int) -> Path:
    """A file that leaves `free` bytes of the disk."""
    filler, room = disk / "filler", shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room - free, 1))
    return filler


def pretrain_options(tiny: TinyExperiment) -> list[str]:
    """Arguments of a pre-training that writes where the experiment does."""
    pretraining.REPO_ROOT = tiny.config.parent
    (tiny.root / "text.txt").write_text("where does ada live ? rome .\n" * 24)
    (tiny.root / "small.yaml").write_text(yaml.safe_dump({
        "output_dir": "model/small", "max_length": 12, "documents": [str(tiny.root / "text.txt")],
        "tokenizer": "words", "vocab_size": 300, "chat_template": "words.jinja",
        "hidden_size": 16, "intermediate_size": 24, "layers": 2, "heads": 2, "epochs": 1,
        "batch_rows": 8}))
    return ["--config", str(tiny.root / "small.yaml")]


def commands(tiny: TinyExperiment) -> list[tuple[str, list[str], tuple[int, ...]]]:
    """(module, arguments, bytes left when it begins) of every command that writes, in the order
    that they build on each other."""
    out, few = tiny.config.parent, (0, 60_000)
    benchmark = REPO_ROOT / "data" / "fixtures" / "reward_bench.jsonl"
    return [
        ("data.demo", ["--output_dir", str(out / "demo")], few),
        ("model.pretrain", pretrain_options(tiny), few),
        ("data.preprocess", tiny.preprocess, few),
        ("src.train", tiny.train("teachers"), (*few, 340_000)),  # the frozen layers' cache, a run
        ("src.train", tiny.train("ceilings"), few),
        ("src.train", tiny.train("students"), few),
        ("eval", tiny.evaluate(), (*few, 380_000, 450_000)),  # scores, then tables, then figures
        ("eval", [*tiny.evaluate(), "--transfer", str(tiny.raw)], few),
        ("eval", ["--model", "TEACHER", "--look", *tiny.folders, "--output_dir", str(out / "look")],
         few),
        ("eval", ["--model", "TEACHER", "--data", f"reward_bench={benchmark}", "--output_dir",
                  str(out / "benchmark")], (0,)),
        ("src.scoring", ["--model", "TEACHER", "--data", str(tiny.raw), "--out",
                               str(out / "scores.parquet"), "--best", str(out / "best.jsonl")],
         (0, 10_000)),
    ]


def outcome(tiny: TinyExperiment) -> dict[str, bytes]:
    """Every file of weights, tables, pairs, tokens and figures."""
    found = [path for pattern in ("*.safetensors", "*.parquet", "*.csv", "*.png", "*.jsonl",
                                  "*.arrow") for path in tiny.config.parent.rglob(pattern)]
    return {str(path.relative_to(tiny.config.parent)): path.read_bytes() for path in found}


def leftovers(tiny: TinyExperiment) -> list[Path]:
    return [path for path in tiny.config.parent.rglob(".*")
            if path.suffix in (*SUFFIXES, ".partial")]


def run_all(tiny: TinyExperiment, with_full_disks: bool) -> dict[str, bytes]:
    """Run every command to its end; before that, where it is asked for, into full disks."""
    for module, words, levels in commands(tiny):
        words = [str(tiny.finished("teachers")[0]) if word == "TEACHER" else word for word in words]
        for free in levels if with_full_disks else ():
            filler = fill(tiny.config.parent, free)
            code, errors = call(module, words)
            filler.unlink()
            said = errors.strip().splitlines()[-1:]
            print(module, free, code, said, file=sys.stderr)
            assert code == 2 and "Traceback" not in errors, (module, free, code, errors)
            assert said[0].startswith("error: no space left writing "), said
            assert not leftovers(tiny), (module, free, leftovers(tiny))
        code, errors = call(module, words)
        assert code == 0, (module, words, errors)
    return outcome(tiny)


def test_a_full_disk_is_one_line_under_every_stage_and_changes_no_byte_of_what_is_made_later(
        tmp_path):
    tiny = make_experiment(tmp_path, rows=130, train_pairs=32, layers=([2], [2]),
                           train={"epochs": 2, "trainable_layers": 1},
                           runtime={"save_steps": 2}, eval={"bootstrap_samples": 100})
    disk = tmp_path / "disk"
    disk.mkdir()

    def compare():
        mount_small_disk(disk)
        plain, full = TinyExperiment(tmp_path, "disk/plain"), TinyExperiment(tmp_path, "disk/full")
        for each in (plain, full):
            each.write_config(tiny.settings())
        expected, found = run_all(plain, False), run_all(full, True)
        assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
        assert not [name for name in found if found[name] != expected[name]]

    in_child(compare)
