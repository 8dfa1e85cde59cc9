"""The process in which foreign parsers run: one file after another, until its input ends.

A request is a length of 8 bytes and as much JSON, then the file's bytes if it has no path; an
answer is the same without them. What a parser itself prints goes nowhere.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import IO, Any, BinaryIO

from dewey_embed.errors import ReadError
from dewey_embed.text.formats import read
from dewey_embed.text.limits import ReadLimits

WALL_PER_CPU_SECOND = 4
"""Seconds that the clock may show for one of processor time, before a file is given up."""


def main() -> None:
    """Answer requests on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    limits = ReadLimits(**json.loads(sys.argv[1]))
    _limit_memory(limits.file_memory_bytes)
    while (request := receive(sys.stdin.buffer)) is not None:
        _alarm(limits)
        answer = _answer(request, limits)
        _alarm(None)
        send(answers, answer)
        if answer.get("fault") == "memory":
            return  # what was taken may not all have come back


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


def _answer(request: dict[str, Any], limits: ReadLimits) -> dict[str, Any]:
    """What a file says, or why it cannot be read."""
    try:
        with _opened(request) as stream:
            return read(request["format"], stream, limits)._asdict()
    except ReadError as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"fault": "memory", "reason": limits.too_large()}
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror or error}"}


def _opened(request: dict[str, Any]) -> BinaryIO:
    """The file of a request."""
    return io.BytesIO(request["data"]) if "data" in request else open(request["path"], "rb")


def _limit_memory(max_bytes: int) -> None:
    """Let this process take no more than so much beside what it has, where systems can."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (own + max_bytes, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        pass  # the process that asks watches what is taken


def _alarm(limits: ReadLimits | None) -> None:
    """End this process when a file takes too long and nobody is left to end it."""
    if hasattr(signal, "setitimer"):
        seconds = limits.file_timeout_s * WALL_PER_CPU_SECOND + 1 if limits else 0
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
