"""The output of the commands, and the end of a run: every error as one line, and an exit code.

All output of the command line goes through this module: users' text is made harmless
(`printable`), a reader that has stopped reading ends the run quietly, and a message that cannot be
shown does not stop the work. `DEWEY_TRACEBACK=1` shows where an error came from.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import typer

from dewey_embed.errors import DeweyError
from dewey_embed.extras import explained
from dewey_embed.files import without_draft
from dewey_embed.printable import one_line, printable


class ReaderGoneError(Exception):
    """The reader of standard output has stopped, as `head` does, so the run can end."""


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
        os.environ.setdefault("TQDM_DISABLE", "1")  # for the bars of other packages
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(text: str = "", *, bold: bool = False, end: str = "\n") -> None:
    """Print text on standard output.

    Raises:
        ReaderGoneError: its reader has stopped.
        OSError: it cannot be written; named as standard output.

    """
    shown = printable(text)
    if bold and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        shown = typer.style(shown, bold=True)  # typer removes it where there is no terminal
    with _writing():
        typer.echo(shown + end, nl=False)


class Styled(NamedTuple):
    """Text for a terminal: in bold, or with the address that it leads to."""

    text: str
    bold: bool = False
    link: str = ""


def echo_styled(*parts: Styled) -> None:
    """Print parts of one line on standard output; only a terminal sees their styles.

    Raises:
        ReaderGoneError: its reader has stopped.
        OSError: it cannot be written; named as standard output.

    """
    has_styles = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    shown = ""
    for part in parts:
        text = printable(part.text)
        if part.bold and text and has_styles and not os.environ.get("NO_COLOR"):
            text = typer.style(text, bold=True)
        if part.link and text and has_styles:
            text = f"\x1b]8;;{part.link}\x1b\\{text}\x1b]8;;\x1b\\"
        shown += text
    with _writing():
        typer.echo(shown, color=has_styles)


def print_json(value: Any) -> None:
    """Print one line of JSON, with null for NaN and infinity."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    echo(json.dumps(_finite(value), ensure_ascii=not unicode, allow_nan=False))


def say(message: str) -> None:
    """Print a message in one line on standard error."""
    complain(f"dewey: {one_line(message)}")


def complain(text: str) -> None:
    """Print text on standard error, if that can be written."""
    with contextlib.suppress(OSError):
        typer.echo(printable(text), err=True)


def finish_streams() -> None:
    """Flush standard output; raises as `echo` does."""
    with _writing():
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Name standard output in its errors."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def silence_stdout() -> None:
    """Drop the rest of standard output, which cannot be written, now or at the very end."""
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


INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class TerminatedError(BaseException):
    """SIGTERM came: drafts and locks are removed, as for Ctrl-C."""


def run(command: Callable[[], int | None]) -> int:
    """The exit code of a command, whose error is printed in one line."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command() or 0
        finish_streams()
    except BaseException as error:
        if _reader_is_gone(error):
            silence_stdout()
            return 0
        return _ended(error)
    # typer turns Ctrl-C into an exit code
    return _ended(KeyboardInterrupt()) if code == INTERRUPTED else code


def _reader_is_gone(error: BaseException) -> bool:
    """Whether standard output has lost its reader; what prints the help exits then.

    rich does so itself; typer turns a broken pipe into an exit, wherever it was, so that only the
    place where it was raised tells that the help was being written.
    """
    if not isinstance(error, SystemExit):
        return isinstance(error, ReaderGoneError)
    if "on_broken_pipe" in _functions(error):
        return True
    return isinstance(error.__context__, BrokenPipeError) and (
        "show_help" in _functions(error.__context__)
    )


def _functions(error: BaseException) -> list[str]:
    """Names of the functions through which an error came."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def _terminate(_: int, __: FrameType | None) -> None:
    """Raise the end of the run."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise TerminatedError


def _ended(error: BaseException) -> int:
    """The exit code for an error; prints its line. SIGTERM then ends the process at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if isinstance(error, SystemExit) and isinstance(error.__context__, OSError):
        error = error.__context__  # typer turns a broken pipe into an exit, wherever it was
    if isinstance(error, SystemExit | typer.Exit):
        code = error.code if isinstance(error, SystemExit) else error.exit_code
        return code if isinstance(code, int) else int(bool(code))
    if os.environ.get("DEWEY_TRACEBACK") not in (None, "", "0"):
        complain("".join(traceback.format_exception(error)).rstrip())
    message, code = _described(error)
    if message and _has_the_word(error):
        say(message)
    try:
        finish_streams()
    except (OSError, ValueError, ReaderGoneError):
        silence_stdout()
    return code


LATER_S = 10.0
"""Seconds after the first of several processes in which the others say what is wrong."""


def _has_the_word(error: BaseException) -> bool:
    """Whether this process is to say its error: of several that a launcher started, one is enough.

    Ctrl-C comes to all of them. Most errors do so, too, and the launcher ends those that wait when
    the first has said its own; what is wrong with another alone is said after the wait. SIGTERM may
    come because the first was killed and has said nothing.
    """
    first = os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ
    if first or isinstance(error, TerminatedError):
        return True
    if isinstance(error, KeyboardInterrupt):
        return False
    time.sleep(LATER_S)
    return True


def _described(error: BaseException) -> tuple[str, int]:
    """The message for an error, and the exit code."""
    for kind, message_of, code in ENDINGS:
        if isinstance(error, kind) and (message := message_of(error)) is not None:
            return message, getattr(error, "exit_code", code)
    return _bug(error), 1


def _usage(error: Any) -> str:
    """The fault in the command's words, and where the right ones are listed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""  # the help was printed when this was made
    message = error.format_message().split(", unable to parse")[0].rstrip(". \n")
    for theirs, ours in (("Input should be", "it must be"), ("Value error, ", "")):
        message = message.replace(theirs, ours)
    if extra := re.fullmatch(r"Got unexpected extra argument\S* \((.*)\)", message):
        message = f"unexpected argument: {extra[1]} (quote an argument that has blanks)"
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "dewey"
    return f"error: {message[:1].lower()}{message[1:]}; see {where} --help"


def _of_the_system(error: OSError) -> str:
    """The file of an error, and the system's message."""
    names = [
        without_draft(os.fsdecode(name))
        for name in (error.filename, error.filename2)
        if not isinstance(name, int | None)
    ]
    said = error.strerror or str(error) or type(error).__name__
    return ": ".join([" -> ".join(names), said] if names else [said])


def _noted(message: str, error: BaseException) -> str:
    """The message, with what was noted on its error on the way."""
    return "; ".join((message, *getattr(error, "__notes__", ())))


def _bug(error: BaseException) -> str:
    """The message for an unforeseen error, for a report of it."""
    where = traceback.extract_tb(error.__traceback__)
    last = f" in {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
    return (
        f"error: a bug in dewey{last}: {type(error).__name__}: {error}; please report it, with "
        "what DEWEY_TRACEBACK=1 shows"
    )


def _of_an_extra(error: ImportError) -> str | None:
    """The missing package of an extra, and its remedy; `None` for any other package."""
    said = explained(error)
    return said and f"error: {said}"


ENDINGS: tuple[tuple[type[BaseException], Callable[[Any], str | None], int], ...] = (
    (KeyboardInterrupt, lambda _: "stopped by Ctrl-C", INTERRUPTED),
    (TerminatedError, lambda error: _noted("stopped by SIGTERM", error), TERMINATED),
    (typer.TyperException, _usage, 2),
    (typer.Abort, lambda _: "stopped: there is no more input", 1),
    (EOFError, lambda _: "stopped: there is no more input", 1),
    (DeweyError, lambda error: f"error: {error}", 1),
    (ImportError, _of_an_extra, 1),
    (OSError, lambda error: f"error: {_of_the_system(error)}", 1),
    (MemoryError, lambda _: "error: there is not enough memory for this", 1),
)
"""Kinds of errors, the message for each (`None` where it does not fit), and the exit code."""
