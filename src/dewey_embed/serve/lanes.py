"""Lanes by size of request, and which of them runs: one at a time, each with its share.

A short request never waits for a long one. Its lane takes the device at once, and a long pass
stands still meanwhile; lanes that all have work share the time. This is fair queueing by virtual
clocks: a lane's clock goes on by the seconds that it ran, divided by its share, and the lane whose
clock is behind runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dewey_embed.model.control import PassControl

TICK_S = 0.01
BURST_S = 0.2
"""How far behind all others a lane's clock is set when it gets work: it runs first, for a while."""

SLICE_S = 0.1
"""How far clocks come apart, in virtual seconds, before a lane that runs gives way to another."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Requests of one kind of size.

    `request_tokens` and `text_tokens` are the most that a request, and each text of it, may have
    here; `share` is this lane's part of the time when all lanes have work; `patience` is what part
    of the longest wait (`ServeSettings.max_wait_s`) its requests may have.
    """

    name: str
    request_tokens: float
    text_tokens: float
    share: float
    patience: float


NO_LIMIT = float("inf")
LANES = (
    Lane("short", request_tokens=4_096, text_tokens=4_096, share=0.7, patience=1 / 15),
    Lane("batch", request_tokens=NO_LIMIT, text_tokens=16_384, share=0.15, patience=1),
    Lane("long", request_tokens=NO_LIMIT, text_tokens=NO_LIMIT, share=0.15, patience=1),
)
"""The lanes; a request takes the first that it fits into."""


def lane_of(sizes: Sequence[int], lanes: Sequence[Lane] = LANES) -> Lane:
    """The lane of a request whose texts have so many tokens each."""
    total, longest = sum(sizes), max(sizes)
    return next(
        lane for lane in lanes if total <= lane.request_tokens and longest <= lane.text_tokens
    )


class Turns:
    """The device, which the pass of one lane at a time has; those of others are paused.

    >>> turns = Turns()
    >>> control = PassControl()
    >>> with turns.turn(LANES[0], control):
    ...     control.check()  # returns once it is this lane's turn
    >>> turns.close()
    """

    def __init__(self, lanes: Sequence[Lane] = LANES) -> None:
        self._clocks = dict.fromkeys(lanes, 0.0)
        self._passes: dict[Lane, PassControl] = {}
        self._now = 0.0  # the clock of the lane that ran last
        self._running: Lane | None = None
        self._since = 0.0
        self._changed = threading.Condition()
        self._is_closed = False
        threading.Thread(target=self._tick, name="dewey-turns", daemon=True).start()

    @contextmanager
    def turn(self, lane: Lane, control: PassControl) -> Iterator[None]:
        """Rule a lane's pass by its control: it is paused until it is the lane's turn."""
        with self._changed:
            self._account()
            # Time that a lane did not need is not saved up, nor held against another.
            self._clocks[lane] = max(self._clocks[lane], self._now - BURST_S)
            control.pause()
            self._passes[lane] = control
            self._choose(lead=0.0)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._account()
                del self._passes[lane]
                if self._running is lane:
                    self._running = None
                self._choose(lead=0.0)

    def close(self) -> None:
        """End the thread that ends turns."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _tick(self) -> None:
        """End the turn of a lane that has had its share, while others wait."""
        while not self._is_closed:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or len(self._passes) > 1)
                self._account()
                self._choose(lead=SLICE_S)
            time.sleep(TICK_S)

    def _account(self) -> None:
        """Put forward the clock of the lane that runs."""
        now = time.perf_counter()
        if self._running is not None:
            self._clocks[self._running] += (now - self._since) / self._running.share
            self._now = self._clocks[self._running]
        self._since = now

    def _choose(self, lead: float) -> None:
        """Let the lane run whose clock is behind that of the running one by more than `lead`."""
        if not self._passes:
            return
        best = min(self._passes, key=lambda lane: self._clocks[lane])
        running = self._running
        if running is not None:
            if self._clocks[best] + lead >= self._clocks[running]:
                return
            self._passes[running].pause()
        self._running = best
        self._passes[best].resume()
