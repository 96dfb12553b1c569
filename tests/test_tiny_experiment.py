"""A program that hangs takes one test with it, and not those that follow."""

import subprocess

import psutil
import pytest

from tests.tiny_experiment import command


def test_of_a_command_that_is_out_of_time_nothing_is_left():
    with pytest.raises(subprocess.TimeoutExpired):
        command("bash", "-c", "setsid sleep 97.5 & wait", timeout=1)
    left = [process for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"] == ["sleep", "97.5"]]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left), left
