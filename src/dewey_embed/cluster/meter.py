"""The progress of a run on a cluster: workers tell how far their groups are, a bar shows the sum.

Groups take seconds to minutes each, and a small corpus is a single one; so what is done of those in
work counts, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.printable import counted
from dewey_embed.progress import Advance, Progress

if TYPE_CHECKING:
    from dewey_embed.index.sync import Begin

TELL_S = 1.0
"""Seconds between two reports of a worker, and between two looks at them."""

ANSWER_S = 5.0
"""Seconds that a report may take; a run never waits longer for the sake of its bar."""

START_S = 15.0
"""Seconds within which a worker begins where there is room for it."""

Key = tuple[int, int]
"""The number of a piece, and that of a group in it."""


class InWork(NamedTuple):
    """The bytes that are done of each group in work, and how many workers have begun so far."""

    groups: dict[Key, int]
    num_begun: int


class Tally:
    """What workers tell of themselves; an actor, which they and the driver share."""

    def __init__(self) -> None:
        self._bytes: dict[Key, int] = {}
        self._num_begun = 0

    def begin(self) -> None:
        """Note that a worker has begun: it loads the model."""
        self._num_begun += 1

    def note(self, key: Key, num_bytes: int) -> None:
        """Note how far a group is; one that is done again begins again."""
        self._bytes[key] = num_bytes

    def in_work(self, done: Sequence[Key]) -> InWork:
        """How far the groups are, without those that are done."""
        for key in done:
            self._bytes.pop(key, None)
        return InWork(self._bytes, self._num_begun)


@contextmanager
def told(tally: Any, key: Key, num_bytes: int) -> Iterator[Begin]:
    """Tell a tally, if there is one, how far a group is, whose pass is told what is yielded."""
    if tally is None:
        yield lambda _: lambda _: None
        return
    import ray
    from ray.exceptions import RayError

    def begin(num_tokens: int) -> Advance:
        done, said = 0, 0.0

        def advance(amount: int) -> None:
            nonlocal done, said
            done += amount
            if time.monotonic() - said > TELL_S:
                said = time.monotonic()
                tally.note.remote(key, num_bytes * done // max(1, num_tokens))

        return advance

    tally.note.remote(key, 0)
    yield begin
    with suppress(RayError):  # known before the group is: nothing comes after it
        ray.get(tally.note.remote(key, num_bytes), timeout=ANSWER_S)


class Meter:
    """Moves a bar of bytes by the groups that are done, and by what is done of those in work."""

    def __init__(self, bar: Progress, workers: int) -> None:
        self._bar = bar
        self._lock = threading.Lock()
        self._bytes = self._documents = self._chunks = self._held = 0
        self._in_work: dict[Key, int] = {}
        self._done: list[Key] = []
        self._workers, self._begun, self._done_any = workers, time.monotonic(), False
        self._show()

    def finished(self, key: Key, num_bytes: int, *, documents: int, chunks: int, held: int) -> None:
        """Count a group that is done."""
        with self._lock:
            self._done.append(key)
            self._done_any = True
            self._in_work.pop(key, None)
            self._bytes += num_bytes
            self._documents += documents
            self._chunks += chunks
            self._held += held
            self._show()

    def see(self, found: InWork) -> None:
        """Show how far groups in work were, but for those that are done since."""
        with self._lock:
            done = set(self._done)
            self._in_work = {key: size for key, size in found.groups.items() if key not in done}
            late = time.monotonic() - self._begun > START_S
            self._show(in_want=late and not found.num_begun)

    @contextmanager
    def looking(self, tally: Any) -> Iterator[None]:
        """Look at a tally, if there is one, every second meanwhile."""
        if tally is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._look, args=(tally, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self, tally: Any, ended: threading.Event) -> None:
        import ray
        from ray.exceptions import RayError

        while not ended.wait(TELL_S):
            with self._lock:
                done, self._done = self._done, []
            with suppress(RayError):  # a bar that stands still ends no run
                found = ray.get(tally.in_work.remote(done), timeout=ANSWER_S)
                self.see(found)

    def _show(self, *, in_want: bool = False) -> None:
        """Move the bar, never back: a group whose worker died is done again."""
        reached = self._bytes + sum(self._in_work.values())
        self._bar(max(0, min(reached, self._bar.total or reached) - self._bar.done))
        parts = [counted(self._documents, "document"), counted(self._chunks, "chunk")]
        parts += [f"{self._held:,} there already"] if self._held else []
        parts += [f"{counted(len(self._in_work), 'group')} in work"] if self._in_work else []
        if not (self._done_any or self._in_work):
            state = "waiting for free cores or GPUs, or slow to start" if in_want else "starting"
            parts = [f"{counted(self._workers, 'worker')} {state}"]
        self._bar.say(", ".join(parts))
