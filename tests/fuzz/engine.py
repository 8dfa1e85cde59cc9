"""One target under libFuzzer in a process of its own, which a native crash or a hang may end.

What it has done stands in a small file that outlives it: libFuzzer ends the process without a word
to Python.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<QQdQ")
HANG_S = 10
INTERRUPTED_STATUS = 72
"""With which a process ends that is interrupted; what it tried until then counts."""
MAX_MB = 3072
"""The most memory of the process in megabytes, past which a case counts as a crash."""


class Progress(NamedTuple):
    """Cases so far, those that broke a promise, and the slowest: processor seconds, bytes."""

    cases: int = 0
    broken: int = 0
    slowest_s: float = 0.0
    slowest_bytes: int = 0


def read_progress(folder: Path) -> Progress:
    """The progress that a process left in its folder."""
    path = folder / "progress"
    return Progress(*_RECORD.unpack(path.read_bytes())) if path.exists() else Progress()


class _Recorder:
    """A check that counts and times its cases, and keeps those that break the promise."""

    def __init__(self, check, folder: Path) -> None:
        (folder / "progress").write_bytes(_RECORD.pack(*Progress()))
        self._file = open(folder / "progress", "r+b")  # noqa: SIM115
        self._record = mmap.mmap(self._file.fileno(), _RECORD.size)
        self._check, self._folder = check, folder
        self._cases = self._broken = self._bytes = 0
        self._slowest = 0.0
        self._kinds: set[str] = set()

    def __call__(self, data: bytes) -> None:
        start = time.process_time()  # not the clock's: other work beside it is not a case's
        try:
            self._check(data)
        except Exception as error:
            self._keep(data, error)
        seconds = time.process_time() - start
        self._cases += 1
        if seconds > self._slowest:
            self._slowest, self._bytes = seconds, len(data)
            (self._folder / "slowest").write_bytes(data)
        _RECORD.pack_into(
            self._record, 0, self._cases, self._broken, self._slowest, self._bytes
        )  # fmt: skip

    def _keep(self, data: bytes, error: Exception) -> None:
        """Write a case that is the first of its kind, and what it raised."""
        self._broken += 1
        frames = traceback.extract_tb(error.__traceback__)
        kind = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
        if kind in self._kinds or len(self._kinds) >= 50:
            return
        self._kinds.add(kind)
        name = hashlib.sha256(data).hexdigest()[:12]
        (self._folder / f"broken-{name}").write_bytes(data)
        words = "".join(traceback.format_exception(error))
        (self._folder / f"broken-{name}.txt").write_text(words, "utf-8", "backslashreplace")


def fuzz(name: str, folder: Path, corpus: Path, *, cases: int, seed: int, seconds: int) -> None:
    """Run a target until its cases or seconds are over; it does not return."""
    import atheris

    with atheris.instrument_imports(include=["dewey_embed"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]
        check = target.make()
    found = folder / "found"
    found.mkdir(exist_ok=True)
    arguments = [
        *(sys.argv[0], str(found), str(corpus), f"-runs={cases}", f"-max_total_time={seconds}"),
        *(f"-seed={seed}", f"-timeout={HANG_S}", f"-rss_limit_mb={MAX_MB}", "-len_control=20"),
        *(f"-max_len={target.max_bytes}", f"-artifact_prefix={folder}/native-"),
    ]
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED_STATUS))
    atheris.Setup(arguments, _Recorder(check, folder))
    atheris.Fuzz()
