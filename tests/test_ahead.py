"""Work begun in another process gives what it would have given here."""

import os
import time
from functools import partial

import pytest

from dewey_embed.cli.ahead import begun
from dewey_embed.errors import IndexMismatchError

FORKS = hasattr(os, "fork")


def raised(message):
    raise IndexMismatchError(message)


def unless_elsewhere(here):
    """This process's number; another process ends without a word."""
    if os.getpid() != here:
        os._exit(7)
    return here


def slept(seconds):
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.skipif(not FORKS, reason="this system cannot fork")
def test_it_goes_on_while_this_process_does_something_else():
    finish = begun(partial(slept, 1))
    time.sleep(1)
    started = time.perf_counter()
    assert finish() != os.getpid()
    assert time.perf_counter() - started < 0.9


def test_what_it_raises_is_raised_where_it_is_asked_for():
    finish = begun(partial(raised, "another model"))
    with pytest.raises(IndexMismatchError, match="another model"):
        finish()


def test_work_whose_process_died_is_done_here():
    assert begun(partial(unless_elsewhere, os.getpid()))() == os.getpid()
