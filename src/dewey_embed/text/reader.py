"""Files, folders and standard input → documents, and a reason for each that cannot be read.

Knows which files there are and what their documents are called; what is in them is for
`formats` to say. One bad file never stops the rest.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from dewey_embed.errors import ReadError
from dewey_embed.text.formats import READERS, Content, read_text
from dewey_embed.text.records import File, RecordFields, Unreadable, read_records
from dewey_embed.types import Document

__all__ = ["EXTENSIONS", "RecordFields", "Unreadable", "check_inputs", "read_documents"]

STDIN = "-"
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
EXTENSIONS = (*READERS, *JSON_LINES)
"""What is read of a folder. A file that is named itself is tried as text, whatever it is called."""


def read_documents(
    inputs: Sequence[str | Path],
    *,
    text_fields: str | Sequence[str] = (),
    id_field: str | None = None,
    title_field: str | None = None,
    stdin: BinaryIO | None = None,
    stdin_extension: str = ".txt",
) -> Iterator[Document | Unreadable]:
    """Documents in a fixed order, with an `Unreadable` in place of each that cannot be read.

    An input is a file, a folder (read to the bottom, names in order, hidden ones passed over,
    links followed once) or `-`, standard input, which is read as a file with `stdin_extension`.
    A file that is reached twice is read once.

    A file's `id` and `source` are its resolved path with forward slashes, the same from any
    working directory; `root` is the resolved input; metadata are its `extension` and its `folder`
    within the root. Each record of a JSONL file is a document: see `RecordFields`.

    Raises:
        ReadError: inputs that do not exist, all of them, before anything is read.
        TypeError: `inputs` is a single string, or an input is not a path.
    """
    check_inputs(inputs)
    fields = RecordFields(
        text_fields=(text_fields,) if isinstance(text_fields, str) else tuple(text_fields),
        id_field=id_field,
        title_field=title_field,
    )
    return _read_inputs(inputs, fields, stdin, stdin_extension)


def check_inputs(inputs: Sequence[str | Path]) -> None:
    """Nothing, if every input is there.

    Raises:
        ReadError: naming those that are not.
        TypeError: `inputs` is a single string, or an input is not a path.
    """
    if isinstance(inputs, str | os.PathLike):
        raise TypeError(f"inputs is a single path; pass a list, such as [{str(inputs)!r}]")
    for position, each in enumerate(inputs):
        if not isinstance(each, str | os.PathLike):
            raise TypeError(f"inputs[{position}] is {type(each).__name__}, not a path")
    missing = [str(each) for each in inputs if str(each) != STDIN and not _exists(each)]
    if missing:
        raise ReadError(
            f"no such file or folder: {', '.join(missing)}; check the spelling, "
            "or write - for standard input"
        )


def _exists(path: str | Path) -> bool:
    """Whether there is such a file; an impossible name (with a NUL) is not one."""
    try:
        return os.path.exists(path)
    except ValueError:
        return False


def _read_inputs(
    inputs: Sequence[str | Path],
    fields: RecordFields,
    stdin: BinaryIO | None,
    stdin_extension: str,
) -> Iterator[Document | Unreadable]:
    """What `read_documents` promises, once its inputs are known to exist."""
    seen: set[str] = set()
    for each in inputs:
        if str(each) == STDIN:
            if STDIN not in seen:
                file = File(Path("stdin"), "stdin", STDIN, "")
                yield from _read_stream(stdin or sys.stdin.buffer, file, stdin_extension, fields)
            seen.add(STDIN)
            continue
        root = Path(os.path.realpath(each))
        found = _walk(root) if root.is_dir() else [File(root, _spelled(root), _spelled(root), "")]
        for file_or_fault in found:
            if file_or_fault.source in seen:
                continue
            seen.add(file_or_fault.source)
            if isinstance(file_or_fault, Unreadable):
                yield file_or_fault
            else:
                yield from _read_file(file_or_fault, fields)


def _walk(root: Path) -> Iterator[File | Unreadable]:
    """The files under a folder that can be read, and what is passed over, in order."""
    name = _spelled(root)
    faults: list[OSError] = []
    visited = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, onerror=faults.append, followlinks=True):
        inner = []
        for each in sorted(folders):
            real = os.path.realpath(os.path.join(folder, each))
            if not each.startswith(".") and real not in visited:
                visited.add(real)
                inner.append(each)
        folders[:] = inner
        within = _spelled(Path(folder).relative_to(root))
        for each in sorted(files):
            if each.startswith("."):
                continue
            path = Path(os.path.realpath(os.path.join(folder, each)))
            file = File(path, _spelled(path), name, "" if within == "." else within)
            yield _unusable(file, each) or file
        yield from _folder_faults(faults, name)
    yield from _folder_faults(faults, name)


def _folder_faults(faults: list[OSError], root: str) -> Iterator[Unreadable]:
    """Folders that could not be entered; the list is emptied."""
    while faults:
        fault = faults.pop(0)
        reason = f"folder cannot be read: {fault.strerror}"
        yield Unreadable(source=_spelled(Path(fault.filename)), reason=reason, root=root)


def _unusable(file: File, name: str) -> Unreadable | None:
    """Why a file of a folder is not read, if so: kinds that are unknown, and what is no file."""
    if _extension(name) not in EXTENSIONS:
        reason = f"not a kind of file that is read ({', '.join(EXTENSIONS)})"
        return Unreadable(source=file.source, reason=reason, root=file.root, skipped=True)
    try:
        is_file = stat.S_ISREG(os.stat(file.path).st_mode)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        return Unreadable(source=file.source, reason=reason, root=file.root)
    if not is_file:  # a pipe in a folder would be waited for
        return Unreadable(source=file.source, reason="not a regular file", root=file.root)
    return None


def _read_file(file: File, fields: RecordFields) -> Iterator[Document | Unreadable]:
    """The documents of one file."""
    extension = _extension(file.path.name)
    try:
        with open(file.path, "rb") as stream:
            yield from _read_stream(stream, file, extension, fields)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        yield Unreadable(source=file.source, reason=reason, root=file.root)


def _read_stream(
    stream: BinaryIO | IO[bytes], file: File, extension: str, fields: RecordFields
) -> Iterator[Document | Unreadable]:
    """The documents of an open file."""
    if extension in JSON_LINES:
        zipped = extension.endswith(".gz")
        yield from read_records(gzip.GzipFile(fileobj=stream) if zipped else stream, file, fields)
        return
    try:
        text, title = _parse(stream.read(), extension)
    except ReadError as error:
        yield Unreadable(source=file.source, reason=str(error), root=file.root)
        return
    if not text or text.isspace():
        yield Unreadable(source=file.source, reason="empty", root=file.root, skipped=True)
        return
    yield Document(
        id=file.source,
        text=text,
        title=title or _spelled(Path(file.path.name)),
        source=file.source,
        root=file.root,
        metadata={"extension": extension, "folder": file.folder},
    )


def _parse(data: bytes, extension: str) -> Content:
    """Text and title, whatever the parser of that kind of file may throw."""
    try:
        return READERS.get(extension, read_text)(data)
    except ReadError:
        raise
    except Exception as error:  # foreign parsers on broken files: one must not stop the rest
        raise ReadError(f"damaged {extension} file ({type(error).__name__}: {error})") from error


def _extension(name: str) -> str:
    """A name's extension in lower case, `.jsonl.gz` as one."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    joined = "".join(suffixes)
    return joined if joined in JSON_LINES else suffixes[-1] if suffixes else ""


def _spelled(path: Path) -> str:
    r"""A path as text: forward slashes, bytes that are no UTF-8 spelled out as `\udc80`."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")
