"""Progress on standard error: a bar with rate and time left, or a line every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from dewey_embed.printable import one_line

Advance = Callable[[int], None]

SECONDS = 10.0
"""Between two lines where standard error is no terminal."""

RATE_LINES = 6
"""A rate in a line is that since so many lines before: that of the last minute."""

_LONGEST_NAME = 40


class Progress:
    """The progress of a run, to call with each amount of finished work."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = one_line(label), total, unit
        self.done = 0
        self.name = ""
        self._times = deque([(time.monotonic(), 0)], maxlen=RATE_LINES)

    def __call__(self, amount: int) -> None:
        """Count finished work."""
        self.done += amount

    def work_on(self, name: str) -> None:
        """Name the file that is in work."""
        name = one_line(name)
        cut = len(name) > _LONGEST_NAME
        self.say("…" + name[1 - _LONGEST_NAME :] if cut else name)

    def say(self, text: str) -> None:
        """Show a text beside the numbers, until the next one."""
        self.name = text

    def line(self) -> str:
        """The progress in one line, with the rate of the last minute and the time left by it."""
        total = f" of {self.total:,.0f}" if self.total else ""
        name = f", {self.name}" if self.name else ""
        return f"dewey: {self.label}: {self.done:,.0f}{total} {self.unit}{self._rate()}{name}"

    def _rate(self) -> str:
        """The rate and the time left; nothing before anything is done."""
        (before, earlier), now = self._times[0], time.monotonic()
        self._times.append((now, self.done))
        rate = (self.done - earlier) / (now - before) if now > before else 0.0
        if not rate:
            return ""
        seconds = round((self.total - self.done) / rate) if self.total else 0
        left = f", {timedelta(seconds=seconds)} left" if seconds > 0 else ""
        return f", {rate:,.0f} {self.unit}/s{left}"


@contextmanager
def progress_bar(label: str, total: int | None, unit: str, *, show: bool) -> Iterator[Progress]:
    """A function to call with each amount of finished work; the bar disappears after the block.

    Where standard error is no terminal, a line every ten seconds stands for the bar.
    """
    if not (show and sys.stderr):
        yield Progress(label, total, unit)
    elif sys.stderr.isatty():
        with _bar(label, total, unit) as progress:
            yield progress
    else:
        with _lines(Progress(label, total, unit)) as progress:
            yield progress


@contextmanager
def _lines(progress: Progress) -> Iterator[Progress]:
    """Print a line about the progress every ten seconds, while other code works."""
    ended = Event()

    def print_lines() -> None:
        while not ended.wait(SECONDS):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it was closed
                sys.stderr.write(progress.line() + "\n")
                sys.stderr.flush()

    thread = Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()


@contextmanager
def _bar(label: str, total: int | None, unit: str) -> Iterator[Progress]:
    """Show a bar on the terminal."""
    from rich import progress as bars
    from rich.console import Console
    from rich.markup import escape

    class Bar(Progress):
        def __call__(self, amount: int) -> None:
            super().__call__(amount)
            shown.advance(task, amount)
            speed = shown.tasks[0].speed
            shown.update(task, rate=f"{speed:,.0f} {unit}/s" if speed else "")

        def say(self, text: str) -> None:
            super().say(text)
            shown.update(task, file=escape(self.name))

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit if total else unit),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[file]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(escape(one_line(label)), total=total, rate="", file="")
        yield Bar(label, total, unit)
