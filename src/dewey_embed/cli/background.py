"""Work in a second process while this one does something else.

Importing torch and importing LanceDB take over a second each of the interpreter's own time, which
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


def in_background(work: Callable[[], T]) -> Callable[[], T]:
    """Start `work` in a second process; the function that comes back waits for its result.

    Only for work that imports what it needs. The work is done in this process, when its result is
    wanted, where processes cannot be forked, where this one already has threads, and where the
    second process dies.
    """
    # macOS has fork, but its own libraries may fail in a process made by it.
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        return work
    if _num_threads() > 1:  # a lock that another thread holds would be held in the fork for ever
        return work
    context = multiprocessing.get_context("fork")
    pipe, far_end = context.Pipe(duplex=False)
    context.Process(target=_send_result, args=(far_end, work), daemon=True).start()
    far_end.close()

    def finish() -> T:
        try:
            returned, outcome = pipe.recv()
        except Exception:  # it died, or its result cannot be sent
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


def _send_result(pipe: Connection, work: Callable[[], T]) -> None:
    """Send what the work returned, or the error that it raised."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # end quietly; the first process tells the user
    try:
        result: tuple[bool, T | Exception] = (True, work())
    except Exception as error:
        result = (False, error)  # raised again by `finish`
    with contextlib.suppress(Exception):  # the first process may be gone, or do the work itself
        pipe.send(result)
