"""One launch at a time at a folder or file: the second waits, and nothing is left over."""

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from src.common.files import atomic_path
from src.common.lock import clear_partials, is_held, lock, quiet


def test_a_lock_that_was_let_go_leaves_no_file(tmp_path):
    with lock(tmp_path / "run", quiet):
        assert (tmp_path / ".run.lock").is_file()
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), lock(tmp_path / "run", quiet):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_many_that_come_and_go_are_never_at_work_together(tmp_path, monkeypatch):
    """The file of the lock is removed and made anew all the time."""
    monkeypatch.setattr("src.common.lock.POLL_SECONDS", 0)
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


def given_to_all(file, how):
    """flock of a disk that gives every lock to everybody who asks."""


def refused(number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))
    return flock


@pytest.fixture(params=[given_to_all, *map(refused, (errno.ENOSYS, errno.ENOLCK,
                                                     errno.EOPNOTSUPP))])
def no_locks(request, monkeypatch):
    """The disk has no locks, as far as it can be told with flock."""
    monkeypatch.setattr("fcntl.flock", request.param)
    monkeypatch.setattr("src.common.lock._disks_without_locks", set())
    monkeypatch.setattr("src.common.lock.POLL_SECONDS", 0)


def test_a_disk_without_locks_is_named_once_and_a_file_stands_for_each(no_locks, tmp_path, capsys):
    for name in ("run", "other"):
        with lock(tmp_path / name, quiet):
            assert [path.name for path in tmp_path.iterdir()] == [f".{name}.softlock"]
            assert is_held(tmp_path / name)
        assert not is_held(tmp_path / name)
    said, = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in said and "no locks" in said and ".softlock" in said
    assert not list(tmp_path.iterdir())


def test_a_disk_with_locks_is_not_said_to_have_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("src.common.lock._disks_without_locks", set())
    with (lock(tmp_path / "run", quiet), (tmp_path / ".run.lock").open() as other,
          pytest.raises(BlockingIOError)):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert capsys.readouterr() == ("", "")


def test_many_are_never_at_work_together_on_a_disk_without_locks(no_locks, tmp_path):
    at_work, most = [], []

    def work(_):
        for _ in range(5):
            with lock(tmp_path / "run", quiet):
                at_work.append(1)
                most.append(len(at_work))
                at_work.pop()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == [1] * 15 and not list(tmp_path.iterdir())


def test_a_look_at_a_lock_leaves_no_file_that_its_holder_has_just_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: path.name == ".run.lock")  # a moment ago
    assert not is_held(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_on_a_disk_without_locks_a_file_that_was_left_is_no_launch(no_locks, tmp_path):
    (tmp_path / ".run.lock").touch()
    assert not is_held(tmp_path / "run")


def test_a_short_look_is_not_taken_for_a_launch_at_work(tmp_path, monkeypatch):
    """As `is_held` of another process, which has the lock for a moment."""
    monkeypatch.setattr("src.common.lock.LOOK_SECONDS", 5)  # a machine may stall for longer
    with (tmp_path / ".run.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.01, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        with lock(tmp_path / "run", lambda text: pytest.fail("it waited")):
            pass


def killed_while_it_holds(folder):
    """A process that ends with a lock in its hands."""
    child = os.fork()
    if child == 0:
        with lock(folder, quiet):
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_what_stands_for_the_lock_of_a_dead_process_keeps_nobody_out(no_locks, tmp_path):
    killed_while_it_holds(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == [".run.softlock"]
    with lock(tmp_path / "run", lambda text: pytest.fail("it waited")):
        pass
    assert not list(tmp_path.iterdir())


def test_the_kernel_s_lock_of_a_dead_process_keeps_nobody_out(tmp_path):
    killed_while_it_holds(tmp_path / "run")
    with lock(tmp_path / "run", lambda text: pytest.fail("it waited")):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [False, True])
def test_where_no_file_can_be_made_that_is_an_error_at_once(told, monkeypatch):
    """Not a wait for one that never comes."""
    monkeypatch.setattr("src.common.lock._disks_without_locks",
                        {os.stat("/proc").st_dev} if told else set())
    with pytest.raises(OSError, match="/proc"), lock(Path("/proc/run"), quiet):
        pass


def test_a_process_that_was_forked_neither_keeps_the_lock_nor_lets_it_go(tmp_path):
    """The child outlives its parent's hold, and leaves the block in which it was forked."""
    read, write = os.pipe()
    with lock(tmp_path / "run", quiet):
        child = os.fork()
        if child == 0:
            os.close(write)
    if child == 0:
        os._exit(0 if os.read(read, 1) == b"" else 1)  # alive until the parent is done
    os.close(read)
    with lock(tmp_path / "run", lambda text: pytest.fail("it waited")):
        pass
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_that_leaves_the_block_takes_no_lock_s_file_away(tmp_path):
    with lock(tmp_path / "run", quiet):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert (tmp_path / ".run.lock").is_file()
    if child == 0:
        os._exit(0)


def test_a_lock_on_a_file_that_a_network_disk_keeps_under_another_name_is_none(tmp_path,
                                                                              monkeypatch):
    """There a removed file that is open still has a name; the path is another's by then."""
    path, take, others = tmp_path / ".run.lock", FileLock.acquire, []

    def acquire(self, *arguments, **options):
        got = take(self, *arguments, **options)
        if not others:  # as if the last holder had removed it while we were about to lock it
            path.rename(tmp_path / ".nfs0001")
            others.append(path.open("w"))
            fcntl.flock(others[0], fcntl.LOCK_EX)
            threading.Timer(0.2, others[0].close).start()
        return got

    monkeypatch.setattr(FileLock, "acquire", acquire)
    monkeypatch.setattr("src.common.lock.POLL_SECONDS", 0.01)
    with lock(tmp_path / "run", quiet):
        assert others[0].closed
    assert [path.name for path in tmp_path.iterdir()] == [".nfs0001"]


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
            both.wait(60)
            assert partial.read_text() == text

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["first", "second"]))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
