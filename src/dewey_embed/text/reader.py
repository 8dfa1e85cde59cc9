"""Files, folders and standard input → documents, and a reason for each that cannot be read.

Knows what is read and what its documents are called; which files a folder holds is for `folders`
to say, what is in them for `formats`. One bad file never stops the rest.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from dewey_embed.errors import ReadError
from dewey_embed.text.child import Parsers
from dewey_embed.text.folders import is_clutter, named_file, spelled, walk
from dewey_embed.text.formats import EXTENSIONS, FORMATS, HEAD_BYTES, kind_of, read
from dewey_embed.text.inputs import (
    DEFAULT_LIMITS,
    STDIN,
    Content,
    File,
    ReadLimits,
    RecordFields,
    content_id,
)
from dewey_embed.text.jsonl import read_records, rejoined, unpacked
from dewey_embed.types import Document, Unreadable

__all__ = ["EXTENSIONS", "STDIN", "RecordFields", "Unreadable", "check_inputs", "read_documents"]


def read_documents(
    inputs: Sequence[str | Path],
    *,
    text_fields: str | Sequence[str] = (),
    id_field: str | None = None,
    title_field: str | None = None,
    stdin: BinaryIO | None = None,
    stdin_extension: str = ".txt",
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Iterator[Document | Unreadable]:
    """Documents in a fixed order, with an `Unreadable` in place of each that cannot be read.

    An input is a file, a folder (read to the bottom, names in order, hidden ones and Dewey's own
    indexes passed over, links followed) or `-`, standard input, which is read as a file with
    `stdin_extension`, as a pipe is. A file that is reached twice is read once.

    A file's `id` and `source` are its resolved path with forward slashes, the same from any
    working directory; `root` is the resolved input; metadata are its `extension` and its `folder`
    within the root. Each record of a JSONL file is a document: see `RecordFields`. What comes from
    a pipe has no place of its own: its id is made from its text.

    Formats that are more than text are parsed in a process of their own, within `limits`.

    Raises:
        ReadError: none of the inputs exists.
        TypeError: `inputs` is a single string, or an input is not a path.

    """
    check_inputs(inputs)
    fields = RecordFields(
        text_fields=(text_fields,) if isinstance(text_fields, str) else tuple(text_fields),
        id_field=id_field,
        title_field=title_field,
    )
    return _Reading(fields, stdin_extension, limits).read(inputs, stdin)


def check_inputs(inputs: Sequence[str | Path]) -> None:
    """Refuse inputs none of which is there.

    Raises:
        ReadError: naming them.
        TypeError: `inputs` is a single string, or an input is not a path.

    """
    if isinstance(inputs, str | os.PathLike):
        raise TypeError(f"inputs is a single path; pass a list, such as [{str(inputs)!r}]")
    for position, each in enumerate(inputs):
        if not isinstance(each, str | os.PathLike):
            raise TypeError(f"inputs[{position}] is {type(each).__name__}, not a path")
    if inputs and not any(str(each) == STDIN or _is_there(each) for each in inputs):
        raise ReadError(
            f"no such file or folder: {', '.join(map(str, inputs))}; check the spelling, "
            "or write - for standard input"
        )


def _is_there(path: str | Path) -> bool:
    """Whether there is such a file, if only one that may not be looked at."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # an impossible name, with a NUL
        return False
    except OSError:
        pass
    return True


class _Reading:
    """One run over inputs: what was seen already, and how everything is read."""

    def __init__(self, fields: RecordFields, stdin_extension: str, limits: ReadLimits) -> None:
        self._fields = fields
        self._stdin_extension = stdin_extension
        self._limits = limits
        self._parsers = Parsers(limits)
        self._seen: set[str] = set()

    def read(
        self, inputs: Sequence[str | Path], stdin: BinaryIO | None
    ) -> Iterator[Document | Unreadable]:
        """What `read_documents` promises."""
        with self._parsers:
            for each in inputs:
                if str(each) != STDIN:
                    yield from self._input(Path(os.path.join(os.getcwd(), each)))
                elif STDIN not in self._seen:
                    self._seen.add(STDIN)
                    yield from self._pipe(stdin or sys.stdin.buffer, "stdin")

    def _input(self, path: Path) -> Iterator[Document | Unreadable]:
        """The documents of one input."""
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            yield self._missing(path, error)
            return
        if stat.S_ISDIR(mode):
            for found in walk(Path(os.path.realpath(path))):
                yield from self._once(found)
        elif stat.S_ISREG(mode):
            yield from self._once(named_file(path, spelled(os.path.realpath(path))))
        elif stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
            reason = "a socket or device, not a file"
            yield Unreadable(source=spelled(path), reason=reason, root=spelled(path))
        elif spelled(path) not in self._seen:  # a pipe that is opened again is waited for
            self._seen.add(spelled(path))
            try:
                with open(path, "rb") as stream:
                    yield from self._pipe(stream, spelled(path))
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
                yield Unreadable(source=spelled(path), reason=reason, root=STDIN)

    def _missing(self, path: Path, error: OSError | ValueError) -> Unreadable:
        """Why an input cannot be looked at."""
        if _is_there(path):
            strerror = error.strerror if isinstance(error, OSError) else error
            is_link = os.path.islink(path)
            reason = "a broken link" if is_link else f"cannot be read: {strerror}"
        else:
            reason = "no such file or folder"
        place = spelled(os.path.abspath(path))
        return Unreadable(source=place, reason=reason, root=place)

    def _once(self, found: File | Unreadable) -> Iterator[Document | Unreadable]:
        """The documents of a file, unless it was read before."""
        if found.source in self._seen:
            return
        if isinstance(found, Unreadable):
            if not found.skipped:  # another name may still show what it is
                self._seen.add(found.source)
            yield found
            return
        self._seen.add(found.source)
        if clutter := is_clutter(found.path.name):
            yield _unreadable(found, f"a {clutter} file, which nobody wrote to be read", clutter)
            return
        try:
            with open(found.path, "rb") as stream:
                yield from self._file(stream, found)
        except OSError as error:
            yield _unreadable(found, f"cannot be read: {error.strerror or error}")

    def _file(self, stream: BinaryIO, file: File) -> Iterator[Document | Unreadable]:
        """The documents of an open file."""
        head = stream.read(HEAD_BYTES)
        if not head:
            yield _unreadable(file, "empty", "empty")
            return
        stream.seek(0)
        try:
            kind = kind_of(file.names, head)
            if kind.format == "jsonl":
                yield from self._records(stream, file, head)
                return
            content = self._content(stream, file, kind.format)
        except ReadError as error:
            yield _unreadable(file, str(error))
            return
        if not content.text or content.text.isspace():
            yield _unreadable(file, "empty", "empty")
            return
        yield Document(
            id=file.source,
            text=content.text,
            title=content.title or file.names[0],
            source=file.source,
            root=file.root,
            metadata={"extension": kind.extension, "folder": file.folder},
            unread=content.unread,
        )

    def _content(self, stream: BinaryIO, file: File, format_name: str) -> Content:
        """The text of an open file.

        Raises:
            ReadError: it cannot be read, or not within the limits.

        """
        if FORMATS[format_name].is_foreign:
            return self._parsers.read(format_name, file.path)
        size = os.fstat(stream.fileno()).st_size
        if size > self._limits.max_text_bytes:
            raise ReadError(self._limits.too_long(size))
        return read(format_name, stream, self._limits)

    def _pipe(self, stream: IO[bytes], name: str) -> Iterator[Document | Unreadable]:
        """The documents of a stream that is read once, from beginning to end."""
        extension = self._stdin_extension.lower()
        names = (name, f"stdin{extension}")
        file = File(Path(name), name, STDIN, "", names)
        head = stream.read(HEAD_BYTES)
        joined = rejoined(head, stream)
        try:
            kind = kind_of(names[1:], head)
            if kind.format == "jsonl":
                yield from self._records(joined, file, head)
                return
            data = joined.read(self._limits.max_text_bytes + 1)
            if len(data) > self._limits.max_text_bytes:
                raise ReadError(self._limits.too_long())
            if FORMATS[kind.format].is_foreign:
                content = self._parsers.read(kind.format, None, data)
            else:
                content = read(kind.format, io.BytesIO(data), self._limits)
        except (ReadError, OSError) as error:
            yield _unreadable(file, str(error))
            return
        if not content.text or content.text.isspace():
            yield _unreadable(file, "empty", "empty")
            return
        yield Document(
            id=content_id("stdin", content.text),
            text=content.text,
            title=content.title or name,
            source=name,
            root=STDIN,
            metadata={"extension": extension, "folder": ""},
            unread=content.unread,
        )

    def _records(
        self, stream: IO[bytes], file: File, head: bytes
    ) -> Iterator[Document | Unreadable]:
        """The documents of a JSONL file, which may be compressed."""
        zipped = head.startswith(b"\x1f\x8b") or file.names[-1].lower().endswith(".gz")
        lines = unpacked(stream) if zipped else stream
        yield from read_records(lines, file, self._fields, self._limits)


def _unreadable(file: File, reason: str, kind: str = "") -> Unreadable:
    """A file that gave no document; of a `kind` that nobody would call a failure, if it has one."""
    return Unreadable(
        source=file.source, reason=reason, root=file.root, skipped=bool(kind), kind=kind
    )
