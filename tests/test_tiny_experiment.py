"""A program that hangs takes one test with it, and not those that follow."""

import subprocess

import psutil
import pytest

from tests.tiny_experiment import command


def test_of_a_command_that_is_out_of_time_nothing_is_left(tmp_path):
    child = tmp_path / "child"
    with pytest.raises(subprocess.TimeoutExpired):
        command("bash", "-c", f"setsid sleep 600 & echo $! > {child}; wait", timeout=15)
    left = [process for process in psutil.process_iter() if process.pid == int(child.read_text())]
    assert psutil.wait_procs(left, timeout=60)[1] == []
