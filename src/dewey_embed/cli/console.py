"""What the commands print, and the state of the streams they print on.

All output of the command line goes through here: text of users is made harmless (`printable`), a
reader that has stopped reading ends the run quietly, and a message that nobody can see stops no
work.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer

from dewey_embed.printable import one_line, printable


class ReaderGoneError(Exception):
    """Whatever reads our standard output has stopped, as `head` does; there is no more to do."""


def prepare_streams() -> None:
    """Open the standard streams that are closed, and let all of them take any character.

    A file opened later must not get the number of a standard stream: what a library prints on
    standard error would land in it. Writing to a standard output that was closed fails.
    """
    for number, access in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, access)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of other packages, as ours
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(text: str = "", *, bold: bool = False, end: str = "\n") -> None:
    """Print text on standard output.

    Raises:
        ReaderGoneError: nobody reads it any more.
        OSError: it cannot be written; named as standard output.

    """
    shown = printable(text)
    if bold and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        shown = typer.style(shown, bold=True)  # taken off again where it is no terminal
    with _writing():
        typer.echo(shown + end, nl=False)


def print_json(value: Any) -> None:
    """Print one line of JSON; a number that JSON does not have is null."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    echo(json.dumps(_finite(value), ensure_ascii=not unicode, allow_nan=False))


def say(message: str) -> None:
    """Say something in one line on standard error, where it is in nobody's way."""
    complain(f"dewey: {one_line(message)}")


def complain(text: str) -> None:
    """Print text on standard error; that nobody can read it stops no work."""
    with contextlib.suppress(OSError):
        typer.echo(printable(text), err=True)


def finish_streams() -> None:
    """Write out what standard output still holds; raises as `echo` does."""
    with _writing():
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Give what goes wrong with standard output its name."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def silence_stdout() -> None:
    """Drop what standard output still holds: it cannot be written, nor again at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with contextlib.suppress(OSError):
        sys.stdout.flush()


def _finite(value: Any) -> Any:
    """The value with `None` for every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
