"""A process knows whether the script that it belongs to is still there."""

import os

import psutil

from src.common.distributed import _has_ancestor


def test_a_script_is_there_as_long_as_it_is_an_ancestor():
    assert _has_ancestor(os.getppid()) and not _has_ancestor(os.getpid())


def test_an_ancestor_that_ends_while_they_are_listed_is_no_end_of_the_watch(monkeypatch):
    """psutil 7.2 raises that: the parent was there, and its own parent is asked for."""
    def parents(self):
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "parents", parents)
    assert _has_ancestor(os.getppid())
