"""Files, folders and standard input → documents, and a reason for each that cannot be read.

Which files a folder holds is decided in `folders`, what they contain in `formats`. One bad file
never stops the rest.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from dewey_embed.errors import ReadError
from dewey_embed.text.child import Parsers
from dewey_embed.text.folders import is_clutter, named_file, spelled, walk
from dewey_embed.text.formats import EXTENSIONS, FORMATS, HEAD_BYTES, format_of, read
from dewey_embed.text.inputs import (
    DEFAULT_LIMITS,
    STDIN,
    Content,
    File,
    ReadLimits,
    ReadOptions,
    RecordFields,
    check_inputs,
    content_id,
    is_there,
    rejoined,
)
from dewey_embed.types import Document, MetadataValue, Unreadable

__all__ = ["EXTENSIONS", "STDIN", "RecordFields", "Unreadable", "check_inputs", "read_documents"]

Recall = Callable[[File], Sequence[Document | Unreadable] | None]


def read_documents(
    inputs: Sequence[str | Path],
    *,
    text_fields: str | Sequence[str] = (),
    id_field: str | None = None,
    title_field: str | None = None,
    stdin: BinaryIO | None = None,
    stdin_extension: str = ".txt",
    limits: ReadLimits = DEFAULT_LIMITS,
    recall: Recall | None = None,
) -> Iterator[Document | Unreadable]:
    """Documents in a fixed order, with an `Unreadable` in place of each that cannot be read.

    An input is a file, a folder (read to the bottom, names in order, hidden ones and Dewey's own
    indexes passed over, links followed) or `-`, standard input, which is read as a file with
    `stdin_extension`, as a pipe is. A file that is reached twice is read once.

    A file's `id` and `source` are its resolved path with forward slashes, the same from any
    working directory; `root` is the resolved input; metadata are its `extension` and its `folder`
    within the root. Each record of a JSONL file is a document, whose own fields come before
    these: see `RecordFields`. A document from a pipe has no lasting place, so its id is made from
    its text.

    Formats that are more than text are parsed in a process of their own, within `limits`.
    `recall` is called with each file; what it returns, unless `None`, is taken for its documents.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "lease.txt").write_text("The tenant pays the rent.")
    ...     [document.text for document in read_documents([folder])]
    ['The tenant pays the rent.']

    Raises:
        ReadError: none of the inputs exists.
        TypeError: `inputs` is a single string, or an input is not a path.

    >>> import io
    >>> [note] = read_documents(["-"], stdin=io.BytesIO(b"# Roses"), stdin_extension=".md")
    >>> note.title, note.metadata["extension"]
    ('Roses', '.md')

    """
    check_inputs(inputs)
    options = read_options(text_fields, id_field=id_field, title_field=title_field, limits=limits)
    return _Reading(options, stdin_extension, recall).read(inputs, stdin)


def read_options(
    text_fields: str | Sequence[str] = (),
    *,
    id_field: str | None = None,
    title_field: str | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> ReadOptions:
    """The options of `read_documents`, as readers of formats take them."""
    fields = RecordFields(
        text_fields=(text_fields,) if isinstance(text_fields, str) else tuple(text_fields),
        id_field=id_field,
        title_field=title_field,
    )
    return ReadOptions(limits, fields)


def list_files(inputs: Sequence[str | Path]) -> Iterator[File | Unreadable]:
    """The files that `read_documents` would read, in its order, with what it would pass over.

    Inputs that can be read once, such as pipes, are refused.

    Raises:
        ReadError: none of the inputs exists.

    """
    check_inputs(inputs)
    reading = _Reading(ReadOptions(), "", None)
    for each in inputs:
        yield from reading.new_files(Path(os.path.join(os.getcwd(), each)))


def read_files(
    files: Iterable[File],
    options: ReadOptions,
    opened: Callable[[File], BinaryIO] | None = None,
) -> Iterator[Document | Unreadable]:
    """The documents of files on this machine, or of those that a function opens, in order."""
    reading = _Reading(options, "", None)
    with reading.parsers:
        for file in files:
            yield from reading.documents(file, opened)


class _Reading:
    """One run over inputs: the files that were seen already, and how everything is read."""

    def __init__(self, options: ReadOptions, stdin_extension: str, recall: Recall | None) -> None:
        self._options = options
        self._recall = recall or (lambda _: None)
        self._stdin_extension = stdin_extension.lower()
        self.parsers = Parsers(options)
        self._seen: set[str] = set()

    def read(
        self, inputs: Sequence[str | Path], stdin: BinaryIO | None
    ) -> Iterator[Document | Unreadable]:
        """The documents of all inputs, each file once."""
        with self.parsers:
            for each in inputs:
                if str(each) != STDIN:
                    yield from self._input(Path(os.path.join(os.getcwd(), each)))
                elif STDIN not in self._seen:
                    self._seen.add(STDIN)
                    yield from self._pipe(stdin or sys.stdin.buffer, "stdin")

    def _input(self, path: Path) -> Iterator[Document | Unreadable]:
        """The documents of one input."""
        if not _is_pipe(path):
            for found in self.new_files(path):
                yield from self._recalled(found) if isinstance(found, File) else [found]
        elif spelled(path) not in self._seen:  # opening a pipe again would wait for a writer
            self._seen.add(spelled(path))
            try:
                with open(path, "rb") as stream:
                    yield from self._pipe(stream, spelled(path))
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
                yield Unreadable(source=spelled(path), reason=reason, root=STDIN)

    def new_files(self, path: Path) -> Iterator[File | Unreadable]:
        """The files of one input that were not seen before, and what is passed over."""
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
        else:
            reason = "a pipe, a socket or a device, not a file"
            yield Unreadable(source=spelled(path), reason=reason, root=spelled(path))

    def _missing(self, path: Path, error: OSError | ValueError) -> Unreadable:
        """The fault of an input that cannot be looked at."""
        if is_there(path):
            strerror = error.strerror if isinstance(error, OSError) else error
            is_link = os.path.islink(path)
            reason = "a broken link" if is_link else f"cannot be read: {strerror}"
        else:
            reason = "no such file or folder"
        place = spelled(os.path.abspath(path))
        return Unreadable(source=place, reason=reason, root=place)

    def _once(self, found: File | Unreadable) -> Iterator[File | Unreadable]:
        """The file, unless it was seen before; a reason instead of one that nobody wrote."""
        if found.source in self._seen:
            return
        if isinstance(found, Unreadable):
            if not found.skipped:  # under another name, the file may be of a known kind
                self._seen.add(found.source)
            yield found
            return
        self._seen.add(found.source)
        if clutter := is_clutter(found.path.name):
            yield _fault(found, f"a {clutter} file, which nobody wrote to be read", clutter)
            return
        yield found

    def _recalled(self, file: File) -> Iterator[Document | Unreadable]:
        """The documents of a file, if its reader does not know them already."""
        recalled = self._recall(file)
        if recalled is not None:
            yield from recalled
            return
        yield from self.documents(file, None)

    def documents(
        self, file: File, opened: Callable[[File], BinaryIO] | None
    ) -> Iterator[Document | Unreadable]:
        """The documents of a file on this machine, or of one that a function opens."""
        try:
            with opened(file) if opened else open(file.path, "rb") as stream:
                yield from self._documents(stream, file, file.names, is_pipe=opened is not None)
        except OSError as error:
            yield _fault(file, f"cannot be read: {error.strerror or error}")

    def _pipe(self, stream: BinaryIO, name: str) -> Iterator[Document | Unreadable]:
        """The documents of a stream that can be read once, from beginning to end."""
        names = (f"stdin{self._stdin_extension}",)
        file = File(Path(name), name, STDIN, "", (name,))
        try:
            yield from self._documents(stream, file, names, is_pipe=True)
        except OSError as error:
            yield _fault(file, str(error))

    def _documents(
        self, stream: BinaryIO, file: File, names: Sequence[str], *, is_pipe: bool
    ) -> Iterator[Document | Unreadable]:
        """The documents of an open file, whose format its `names` and first bytes tell."""
        head = stream.read(HEAD_BYTES)
        if not head:
            yield _fault(file, "empty", "empty")
            return
        try:
            format_name, extension = format_of(names, head)
            items = self._items(format_name, stream, head, None if is_pipe else file.path)
        except ReadError as error:
            yield _fault(file, str(error))
            return
        yield from documents_of(items, file, extension)

    def _items(
        self, format_name: str, stream: BinaryIO, head: bytes, path: Path | None
    ) -> Iterator[Content | Unreadable]:
        """The contents of an open file, in the process where its format is to be read."""
        if path is not None:
            if FORMATS[format_name].in_child:
                return self.parsers.read(format_name, path)
            stream.seek(0)
            return read(format_name, stream, self._options)
        joined = rejoined(head, stream)
        if not FORMATS[format_name].in_child:
            return read(format_name, joined, self._options)
        limits = self._options.limits
        data = joined.read(limits.max_text_bytes + 1)
        if len(data) > limits.max_text_bytes:
            raise ReadError(limits.too_long())
        return self.parsers.read(format_name, None, data)


def documents_of(
    items: Iterable[Content | Unreadable], file: File, extension: str
) -> Iterator[Document | Unreadable]:
    """The documents of a file's contents, until its reader raises `ReadError`, which is its fault.

    Ids and places are the file's where a content has none of its own.
    """
    metadata: dict[str, MetadataValue] = {"extension": extension, "folder": file.folder}
    try:
        for item in items:
            yield _document(item, file, metadata)
    except ReadError as error:
        yield _fault(file, str(error))


def _is_pipe(path: Path) -> bool:
    """Whether a path can be read once only, from beginning to end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _document(
    item: Content | Unreadable, file: File, metadata: Mapping[str, MetadataValue]
) -> Document | Unreadable:
    """The document of a content, with its file and line as its id where it has none."""
    place = None  # a pipe has none
    if file.root != STDIN:
        place = file.source if item.line is None else f"{file.source}#{item.line}"
    if isinstance(item, Unreadable):
        document_id = place if item.document_id == "" else item.document_id
        return replace(item, source=file.source, root=file.root, document_id=document_id)
    if not item.text or item.text.isspace():
        document_id = None if item.line is None else item.id or place
        return replace(_fault(file, "empty", "empty"), line=item.line, document_id=document_id)
    return Document(
        id=item.id or place or content_id("stdin", item.text),
        text=item.text,
        title=item.title or (file.names[0] if item.line is None else ""),
        source=file.source,
        root=file.root,
        metadata={**metadata, **item.metadata},
        unread=item.unread,
        landmarks=tuple(item.landmarks),
    )


def _fault(file: File, reason: str, kind: str = "") -> Unreadable:
    """A file without a document; one with a `kind` is counted as passed over, not as a failure."""
    return Unreadable(
        source=file.source, reason=reason, root=file.root, skipped=bool(kind), kind=kind
    )
