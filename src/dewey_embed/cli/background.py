"""Work begun in a process of its own while this one does something else.

Importing torch and importing LanceDB take over a second each, of the interpreter's own time, which
two threads of one process cannot spend at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def begun(work: Callable[[], T]) -> Callable[[], T]:
    """A function that gives what `work`, begun now beside this process, returns or raises.

    Only for work that imports what it needs. Where processes cannot be forked, or this one already
    has threads, or the one that was forked ends without an answer, the work is done here, when it
    is asked for.
    """
    # macOS has fork, but its own libraries may fail in a process made by it.
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        return work
    if _num_threads() > 1:  # a lock that another thread holds would be held in the fork for ever
        return work
    context = multiprocessing.get_context("fork")
    pipe, far_end = context.Pipe(duplex=False)
    context.Process(target=_answer, args=(far_end, work), daemon=True).start()
    far_end.close()

    def finish() -> T:
        try:
            returned, outcome = pipe.recv()
        except Exception:  # it ended without an answer, or with one that cannot be sent
            return work()
        if returned:
            result: T = outcome
            return result
        raise outcome

    return finish


def _num_threads() -> int:
    """The number of this process's threads; those that libraries made are only counted on Linux."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()


def _answer(pipe: Connection, work: Callable[[], T]) -> None:
    """Send what the work returned, or what it raised."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # ends quietly; the other process tells the user
    try:
        answer: tuple[bool, T | Exception] = (True, work())
    except Exception as error:
        answer = (False, error)  # raised again where the answer is read
    with contextlib.suppress(Exception):  # the other process may be gone, or do the work itself
        pipe.send(answer)
