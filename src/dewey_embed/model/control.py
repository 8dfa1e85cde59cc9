"""A pass over a row of tokens that another thread may pause, resume or stop."""

from __future__ import annotations

import ctypes
import threading

RUNNING, PAUSED, STOPPED = 0, 1, 2
"""What a pass is to do; `native/tasks.h` has the same numbers."""


class PassStoppedError(Exception):
    """A pass was stopped: nobody waits for its vectors."""


class PassControl:
    """The control of one pass, shared by the thread that runs it and those that rule it.

    Python looks at it between slices of a row, the C++ kernels every few milliseconds of attention.

    >>> control = PassControl()
    >>> control.stop()
    >>> control.is_stopped
    True
    """

    def __init__(self) -> None:
        self._state = ctypes.c_int32(RUNNING)
        self._changed = threading.Condition()

    def pause(self) -> None:
        """Let the pass stand still where it is, its threads asleep, until `resume`."""
        self._set(PAUSED)

    def resume(self) -> None:
        """Let the pass go on."""
        self._set(RUNNING)

    def stop(self) -> None:
        """End the pass: `check` raises from now on."""
        self._set(STOPPED)

    @property
    def is_stopped(self) -> bool:
        """Whether the pass was stopped."""
        return self._state.value == STOPPED

    @property
    def address(self) -> int:
        """Where kernels read what to do, as an int32."""
        return ctypes.addressof(self._state)

    def check(self) -> None:
        """Return once the pass may go on.

        Raises:
            PassStoppedError: it was stopped.

        """
        if self._state.value == PAUSED:
            with self._changed:
                self._changed.wait_for(lambda: self._state.value != PAUSED)
        if self._state.value == STOPPED:
            raise PassStoppedError

    def _set(self, state: int) -> None:
        with self._changed:
            if self._state.value != STOPPED:
                self._state.value = state
            self._changed.notify_all()
