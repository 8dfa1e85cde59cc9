"""Work in a second process gives the result that it would have given in this one.

Each case has a process of its own: a process with threads, such as one that runs tests, is not to
be forked.
"""

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import os
import threading
import time
from functools import partial

from dewey_embed.cli.background import in_background
from dewey_embed.errors import IndexMismatchError


def slept(seconds):
    time.sleep(seconds)
    return os.getpid()


def raised(message):
    raise IndexMismatchError(message)


def unless_elsewhere(here):
    if os.getpid() != here:
        os._exit(7)
    return here

"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def check(script):
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@needs_fork
def test_work_runs_while_this_process_does_something_else():
    check("""
finish = in_background(partial(slept, 1))
time.sleep(1)
started = time.perf_counter()
assert finish() != os.getpid()
assert time.perf_counter() - started < 0.9
""")


def test_an_error_is_raised_where_the_result_is_wanted():
    check("""
finish = in_background(partial(raised, "another model"))
try:
    finish()
except IndexMismatchError as error:
    assert str(error) == "another model"
else:
    raise AssertionError("nothing raised")
""")


def test_work_whose_process_died_is_done_in_this_one():
    check("""
assert in_background(partial(unless_elsewhere, os.getpid()))() == os.getpid()
""")


def test_a_process_with_threads_is_not_forked():
    check("""
end = threading.Event()
threading.Thread(target=end.wait).start()
finish = in_background(partial(slept, 0))
end.set()
assert finish() == os.getpid()
""")
