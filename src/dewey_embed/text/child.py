"""Foreign parsers in a child process, which is ended when one of them goes wrong.

A file may be made to take all of a machine, or be damaged so that its parser crashes; then that
file is named, and the next one goes to a new process. A message is its length in 8 bytes, then
JSON, then the bytes of a file that has no path. The output of parsers is dropped.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.spawn import get_executable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from dewey_embed.errors import ReadError
from dewey_embed.text.formats import read
from dewey_embed.text.inputs import Content, ReadLimits, ReadOptions, RecordFields
from dewey_embed.types import Landmark, Unreadable

WALL_PER_CPU_SECOND = 4
"""Seconds on the clock for each of processor time, before a file is given up."""

_START = "import sys; sys.path[:] = sys.argv[2:]; from dewey_embed.text.child import main; main()"
_POLL_S = 0.05
_OWN_MEMORY = 200_000_000
"""Bytes of memory for Python and the code of the parsers."""


class Parsers:
    """Reads files in a process of its own, which is started by the first of them."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._worker: _Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._worker:
            self._worker.end()
            self._worker = None

    def read(
        self, format_name: str, path: Path | None, data: bytes | None = None
    ) -> Iterator[Content | Unreadable]:
        """The documents of a file at a path, or of one given as bytes.

        Raises:
            ReadError: it cannot be read, or takes more than the limits.

        """
        file = {"path": str(path)} if data is None else {"data": data}
        request = {"format": format_name, **file}
        is_fresh = self._worker is None
        answer = self._answer(request)
        if answer.get("fault") in ("memory", "crash") and not is_fresh:
            answer = self._answer(request)  # earlier files may have had their share in it
        while "item" in answer:
            yield _item(answer)
            answer = self._answer({})
        if "reason" in answer:
            raise ReadError(" ".join(answer["reason"].split()))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; the process is ended where there is a fault in it."""
        try:
            if self._worker is None:
                self._worker = _Worker(self._options)
            answer = self._worker.ask(request)
        except OSError as error:
            raise ReadError(f"the process that parses files cannot be started ({error})") from None
        except BaseException:  # Ctrl-C among them: an answer may still be on its way
            self.close()
            raise
        if "fault" in answer:
            self.close()
        return answer


def _item(answer: dict[str, Any]) -> Content | Unreadable:
    """The document, or the reason for its lack, in an answer."""
    if not answer["is_content"]:
        return Unreadable(**answer["item"])
    content = Content(**answer["item"])
    return content._replace(landmarks=[Landmark(*each) for each in content.landmarks])


class _Worker:
    """One process, and the thread that watches it."""

    def __init__(self, options: ReadOptions) -> None:
        import psutil

        self._limits = options.limits
        settings = json.dumps([asdict(each) for each in options])
        command = [get_executable(), "-c", _START, settings, *sys.path]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._stats = psutil.Process(self._process.pid)
        self._broken: str | None = None  # the limit that it passed
        self._peak = 0
        self._busy = threading.Event()
        self._ended = False
        self._until = (0.0, 0.0)
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer, or a `fault` with its reason where the process has died."""
        limit = self._limits.file_timeout_s
        self._until = (self._cpu_seconds() + limit, time.monotonic() + limit * WALL_PER_CPU_SECOND)
        self._busy.set()
        try:
            send(self._process.stdin, request)  # type: ignore[arg-type]
            max_bytes = 12 * self._limits.max_text_bytes + 10_000_000
            answer = receive(self._process.stdout, max_bytes)  # type: ignore[arg-type]
        except (BrokenPipeError, ValueError):
            answer = None
        self._busy.clear()
        return answer if answer is not None else self._post_mortem()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._ended = True
        self._busy.set()
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()

    def _post_mortem(self) -> dict[str, Any]:
        """The fault of a process that has died."""
        self._process.kill()
        status = self._process.wait()
        if self._broken == "time":
            return {"fault": "time", "reason": self._limits.too_slow()}
        # parsers that are refused memory mostly crash
        if self._broken == "memory" or self._peak > self._limits.file_memory_bytes / 2:
            return {"fault": "memory", "reason": self._limits.too_large()}
        try:
            how = signal.Signals(-status).name
        except ValueError:
            how = f"exit status {status}"
        if how == "SIGALRM":  # its own clock was faster
            return {"fault": "time", "reason": self._limits.too_slow()}
        killed = " or the machine ran out of memory" if how == "SIGKILL" else ""
        reason = f"its parser crashed{killed} ({how}); the file may be damaged"
        return {"fault": "crash", "reason": reason}

    def _watch(self) -> None:
        """End the process when it has taken too much for the file in hand."""
        while self._busy.wait() and not self._ended:
            cpu_until, clock_until = until = self._until
            broken = None
            if self._cpu_seconds() > cpu_until or time.monotonic() > clock_until:
                broken = "time"
            self._peak = max(self._peak, self._memory())
            if self._peak > self._limits.file_memory_bytes + _OWN_MEMORY:
                broken = "memory"
            if broken and self._busy.is_set() and self._until is until:  # still the same file
                self._broken = broken
                self._process.kill()
                return
            time.sleep(_POLL_S)

    def _cpu_seconds(self) -> float:
        import psutil

        try:
            times = self._stats.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def _memory(self) -> int:
        import psutil

        try:
            return int(self._stats.memory_info().rss)
        except psutil.Error:
            return 0


# In the process itself


def main() -> None:
    """Answer requests on standard input.

    A request that names a format begins a file; every other one asks for its next document.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    limits, fields = json.loads(sys.argv[1])
    options = ReadOptions(ReadLimits(**limits), RecordFields(**fields))
    _limit_memory(options.limits.file_memory_bytes)
    items: Iterator[Content | Unreadable] = iter(())
    while (request := receive(sys.stdin.buffer)) is not None:
        _alarm(options.limits)
        if "format" in request:
            items = _items(request, options)
        answer = _next(items, options.limits)
        _alarm(None)
        send(answers, answer)
        if answer.get("fault") == "memory":
            return  # some of the memory may not have come back


def _items(request: dict[str, Any], options: ReadOptions) -> Iterator[Content | Unreadable]:
    """The documents of the file in a request."""
    with io.BytesIO(request["data"]) if "data" in request else open(request["path"], "rb") as file:
        yield from read(request["format"], file, options)


def _next(items: Iterator[Content | Unreadable], limits: ReadLimits) -> dict[str, Any]:
    """The next document as a message, or why there is none."""
    try:
        item = next(items, None)
    except ReadError as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"fault": "memory", "reason": limits.too_large()}
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror or error}"}
    if item is None:
        return {}
    if isinstance(item, Content):
        return {"is_content": True, "item": item._asdict()}
    return {"is_content": False, "item": asdict(item)}


def receive(stream: IO[bytes], max_bytes: int | None = None) -> dict[str, Any] | None:
    """The next message of a stream, `None` at its end.

    Raises:
        ValueError: it is longer than `max_bytes`.

    """
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "big")
    if max_bytes is not None and size > max_bytes:
        raise ValueError(f"a message of {size:,} bytes")
    body = stream.read(size)
    message: dict[str, Any] | None = json.loads(body) if len(body) == size else None
    if message is not None and "size" in message:
        message["data"] = stream.read(message["size"])
    return message


def send(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write a message; bytes under `data` follow it."""
    data = message.pop("data", None)
    if data is not None:
        message["size"] = len(data)
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for part in (len(body).to_bytes(8, "big"), body, data or b""):
        stream.write(part)
    stream.flush()


def _limit_memory(max_bytes: int) -> None:
    """Limit this process to `max_bytes` beside its present memory, where the system can."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (own + max_bytes, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        pass  # the parent watches the memory, too


def _alarm(limits: ReadLimits | None) -> None:
    """End this process when a file takes too long and nobody is left to end it."""
    if hasattr(signal, "setitimer"):
        seconds = limits.file_timeout_s * WALL_PER_CPU_SECOND + 1 if limits else 0
        signal.setitimer(signal.ITIMER_REAL, seconds)
