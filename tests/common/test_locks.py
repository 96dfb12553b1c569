"""One launch at a time at a folder or file: the second waits, and nothing is left over."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.common.files import atomic_path
from src.common.lock import clear_partials, lock, quiet


def test_a_lock_that_was_let_go_leaves_no_file(tmp_path):
    with lock(tmp_path / "run", quiet):
        assert (tmp_path / ".run.lock").is_file()
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), lock(tmp_path / "run", quiet):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_many_that_come_and_go_are_never_at_work_together(tmp_path, monkeypatch):
    """The file of the lock is removed and made anew all the time."""
    monkeypatch.setattr("src.common.lock.time.sleep", lambda seconds: None)
    at_work, most, count = [], [], [0]

    def work(_):
        for _ in range(30):
            with lock(tmp_path / "run", quiet):
                at_work.append(1)
                most.append(len(at_work))
                count[0] += 1
                at_work.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert set(most) == {1} and count == [120] and not list(tmp_path.iterdir())


def test_what_a_killed_holder_had_half_written_is_removed_and_nothing_else(tmp_path):
    ours = tmp_path / "scores.csv"
    strangers = [".scores.csv.partial", ".scores.csv.old.partial", "scores.csv.1.partial",
                 ".scores.csv.gz.1-abcdef01.partial"]
    for name in strangers:
        (tmp_path / name).write_text("mine")
    killed = os.fork()
    if killed == 0:
        with atomic_path(ours) as partial:
            partial.write_text("half")
            os._exit(9)
    os.waitpid(killed, 0)
    assert len(list(tmp_path.iterdir())) == 5
    with lock(ours, quiet):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(strangers)


def test_a_folder_s_partial_files_are_removed_by_who_fills_it(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in (".meta.json.12-abcdef01.partial", "figures/.scores.png.7-abcdef01.partial",
                 ".scores.csv.12.partial", "meta.json"):
        (tmp_path / name).write_text("half")
    clear_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["figures", "meta.json"]


def test_two_writers_of_one_file_never_share_a_temporary_name(tmp_path):
    """Two machines with one disk may give one number to two processes."""
    both = threading.Barrier(2)

    def write(text):
        with atomic_path(tmp_path / "table.csv") as partial:
            partial.write_text(text)
            both.wait(10)
            assert partial.read_text() == text

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["first", "second"]))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
