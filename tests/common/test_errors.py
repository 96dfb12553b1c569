"""How a command ends: one line of its own, and a reader that has gone is no error."""

import subprocess
import sys

import pytest

from src.common.files import REPO_ROOT

BROKEN = """
import tqdm
import tqdm.auto
from src.common.errors import UserError, run_command

def main():
    {loop}

def work():
    raise {error}

run_command(main)
"""
LOOPS = ["for _ in tqdm.tqdm(range(4)): work()",
         "bar = tqdm.tqdm(total=4); bar.update(); work()",
         "bar = tqdm.auto.tqdm(total=4); bar.update(); work()"]
"""The last is how transformers has them."""


def run(code: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {shell}', sys.executable, code]
    return subprocess.run(words, cwd=REPO_ROOT, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("error", "code", "line"), [
    ("UserError('rows 0: more than 0')", 2, "error: rows 0: more than 0"),
    ("OSError(28, 'full', 'a.csv')", 2, "error: no space left writing a.csv: free some and run "
     "the same command again, finished work is kept"),
    ("KeyboardInterrupt", 130, "stopped: run the same command again to go on from here")])
def test_an_error_below_an_unfinished_bar_has_its_own_line(loop, error, code, line):
    ended = run(BROKEN.format(loop=loop, error=error))
    *bars, last = ended.stderr.splitlines()
    assert (ended.returncode, last) == (code, line)
    assert bars and all("/4 [" in bar for bar in bars if bar)


def test_ctrl_c_while_a_module_is_half_imported_is_told_in_one_line():
    ended = run("""
import sys, types
from src.common.errors import run_command
def main():
    sys.modules["tqdm"] = types.ModuleType("tqdm")
    raise KeyboardInterrupt
run_command(main)
""")
    line = "stopped: run the same command again to go on from here\n"
    assert (ended.returncode, ended.stderr) == (130, line)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(lines, unbuffered, monkeypatch):
    """Whether it is missed in the middle or when what is left is flushed."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    ended = run(f"""
import select
from src.common.errors import run_command
look = select.poll()
look.register(1, select.POLLOUT)
while not look.poll(0)[0][1] & select.POLLERR:
    pass  # until it has gone
run_command(lambda: [print("line") for _ in range({lines})] and 0)
""", "| true")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


def test_a_broken_pipe_to_another_process_is_not_taken_for_it():
    ended = run("""
from src.common.errors import run_command
def main():
    raise BrokenPipeError(32, "a worker has gone")
run_command(main)
""", "| cat")
    assert ended.returncode == 1 and "BrokenPipeError" in ended.stderr
