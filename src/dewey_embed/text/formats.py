"""The table of formats: their extensions, first bytes and readers; which format a file is in.

A new format is a function that yields `Content` and one row of `FORMATS`. A reader raises
`ReadError` with a reason that a person can act on.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import IO, NamedTuple

from dewey_embed.errors import MissingDependencyError, ReadError
from dewey_embed.text import code
from dewey_embed.text.books import read_epub
from dewey_embed.text.html import read_html
from dewey_embed.text.inputs import Content, ReadOptions
from dewey_embed.text.jsonl import read_jsonl, read_packed_jsonl
from dewey_embed.text.latex import read_latex
from dewey_embed.text.mail import read_mail, read_mailbox, read_rich_text
from dewey_embed.text.markup import read_markdown, read_restructured, read_text
from dewey_embed.text.notebooks import read_notebook
from dewey_embed.text.opendocument import read_opendocument
from dewey_embed.text.packages import packed_format
from dewey_embed.text.pdf import read_pdf
from dewey_embed.text.slides import read_slides
from dewey_embed.text.tables import read_delimited, read_workbook
from dewey_embed.text.word import read_docx
from dewey_embed.types import Unreadable

Reader = Callable[[IO[bytes], ReadOptions], Iterable[Content | Unreadable]]
"""An open file → its documents, and an `Unreadable` in place of each that cannot be read."""


class Format(NamedTuple):
    """A format: its file name extensions in lower case, and its reader.

    `magic` matches the first bytes of files that can be in no other format, which count more than
    a name. A reader runs in a process of its own, within limits of time and memory, unless
    `in_child` is false: only for what no file can make slow or large. `in_folders` says whether
    files are read that were not named themselves, but a folder that they lie in.
    """

    extensions: tuple[str, ...]
    read: Reader
    magic: re.Pattern[bytes] | None = None
    in_child: bool = True
    in_folders: bool = True


def from_bytes(read: Callable[[bytes], Content]) -> Reader:
    """A reader that makes one document of all the bytes of a file.

    Raises:
        ReadError: while it reads, where the file is longer than the limit.

    """
    return from_bytes_within(lambda data, _: read(data))


def from_bytes_within(read: Callable[[bytes, ReadOptions], Content]) -> Reader:
    """The same for a function that is given the options, too.

    Raises:
        ReadError: while it reads, where the file is longer than the limit.

    """

    def reader(stream: IO[bytes], options: ReadOptions) -> Iterator[Content]:
        limit = options.limits.max_text_bytes
        if (size := _size(stream)) is not None and size > limit:
            raise ReadError(options.limits.too_long(size))
        data = stream.read(limit + 1)
        if len(data) > limit:
            raise ReadError(options.limits.too_long())
        yield read(data, options)

    return reader


def _size(stream: IO[bytes]) -> int | None:
    """The size of a file on disk, without reading it."""
    try:
        return os.fstat(stream.fileno()).st_size
    except OSError:  # a pipe's bytes in memory
        return None


# Some programs put lines of their own before a PDF.
_PDF = re.compile(rb"%PDF-\d|(?s:.*?\n)%PDF-\d\.\d(?s:.*?)\n\d+ \d+ obj\b")
_ZIP = re.compile(rb"PK\x03\x04|PK\x05\x06")
_OLD = re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")


def _refuse_old_office(stream: IO[bytes]) -> Iterator[Content]:
    """Say why a file in the container of Office before 2007 is not read."""
    name = "EncryptedPackage".encode("utf-16-le")
    before = b""
    while piece := stream.read(1_000_000):
        if name in before[-len(name) :] + piece:
            raise ReadError("protected by a password; save a copy without it")
        before = piece
    raise ReadError(f"an Office file of before 2007; {_AS_DOCX}")
    yield  # a reader is an iterator


FORMATS: Mapping[str, Format] = {
    "text": Format((".txt", ".text"), from_bytes(read_text), in_child=False),
    "markdown": Format((".md", ".markdown"), from_bytes(read_markdown)),
    "rst": Format((".rst",), from_bytes(read_restructured), in_child=False),
    "html": Format((".html", ".htm", ".xhtml"), from_bytes(read_html)),
    "pdf": Format((".pdf",), lambda stream, _: [read_pdf(stream)], _PDF),
    "docx": Format(
        (".docx", ".docm", ".dotx"),
        lambda stream, options: [read_docx(stream, options.limits)],
        _ZIP,
    ),
    "pptx": Format(
        (".pptx", ".pptm", ".ppsx", ".potx"),
        lambda stream, options: [read_slides(stream, options.limits)],
        _ZIP,
    ),
    "xlsx": Format(
        (".xlsx", ".xlsm", ".xltx"),
        lambda stream, options: [read_workbook(stream, options.limits)],
        _ZIP,
    ),
    "opendocument": Format(
        (".odt", ".ott", ".ods", ".odp"),
        lambda stream, options: [read_opendocument(stream, options.limits)],
        _ZIP,
    ),
    "epub": Format((".epub",), lambda stream, options: [read_epub(stream, options.limits)], _ZIP),
    "office": Format((), lambda stream, _: _refuse_old_office(stream), _OLD),
    "csv": Format((".csv",), from_bytes_within(partial(read_delimited, usual=","))),
    "tsv": Format((".tsv", ".tab"), from_bytes_within(partial(read_delimited, usual="\t"))),
    "rtf": Format((".rtf",), from_bytes(read_rich_text), re.compile(rb"\{\\rtf")),
    "mail": Format((".eml", ".mht", ".mhtml"), from_bytes(read_mail)),
    "mailbox": Format(
        (".mbox", ".mbx"),
        lambda stream, options: read_mailbox(stream, options.limits),
        re.compile(rb"From [^\n]{1,200}\d:\d\d[^\n]{0,40}\d{4}\s*\n[!-9;-~]+:\s"),
    ),
    "notebook": Format((".ipynb",), from_bytes_within(read_notebook)),
    "latex": Format((".tex", ".ltx", ".latex"), from_bytes_within(read_latex)),
    "code": Format(code.EXTENSIONS, from_bytes(code.read_code), in_child=False, in_folders=False),
    "jsonl": Format((".jsonl", ".ndjson"), read_jsonl, in_child=False),
    "jsonl.gz": Format((".jsonl.gz", ".ndjson.gz"), read_packed_jsonl, in_child=False),
}
"""Every format that is read, by its name in messages."""

BY_EXTENSION: Mapping[str, str] = {
    extension: name for name, each in FORMATS.items() for extension in each.extensions
}
EXTENSIONS = tuple(
    extension for extension, name in BY_EXTENSION.items() if FORMATS[name].in_folders
)
"""The extensions read in a folder. A file given by its own name is tried as text if unknown."""

HEAD_BYTES = 1024
"""The number of first bytes that `format_of` needs."""

_AS_PDF = "save it as .pdf to have it read"
_AS_DOCX = "save it as .docx, .pptx, .xlsx or .pdf to have it read"
_AS_ODT = "save it as .odt, .ods or .odp to have it read"
_UNPACK = "an archive; unpack it and give the folder"
_PICTURE = "a picture; run OCR over it to have its text read"
_SOUND = "sound or film, which holds no text"
_FOREIGN: Mapping[str, str] = {
    **dict.fromkeys((".doc", ".dot"), f"a Word file of before 2007; {_AS_DOCX}"),
    **dict.fromkeys((".fodt", ".fods", ".fodp"), f"a flat OpenDocument file; {_AS_ODT}"),
    **dict.fromkeys((".pages", ".wpd", ".wps"), f"another word processor's file; {_AS_DOCX}"),
    **dict.fromkeys((".ppt", ".pps", ".key"), f"a presentation; {_AS_DOCX}"),
    **dict.fromkeys((".xls", ".xlsb", ".numbers"), f"a workbook; {_AS_DOCX}"),
    **dict.fromkeys((".mobi", ".azw3"), "an electronic book; save it as .epub to have it read"),
    **dict.fromkeys((".msg", ".pst"), "mail; save its letters as .eml or .mbox to have them read"),
    **dict.fromkeys((".ps", ".eps", ".djvu", ".xps", ".dvi"), f"a page description; {_AS_PDF}"),
    **dict.fromkeys(
        (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar"), _UNPACK
    ),
    **dict.fromkeys(
        (".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic"), _PICTURE
    ),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".mp4", ".mov", ".avi", ".mkv"), _SOUND),
}
"""What a file of no format in `FORMATS` is, by its extension, and what to do about it."""

_GZIP = b"\x1f\x8b"
_PAGE = re.compile(rb"(?:<\?xml[^<>]*>\s*)?(?:<!--[^<>]*>\s*)?<(?:!doctype\s+html|html)\b", re.I)
_REFUSED_BY_BYTES = (
    (re.compile(rb"\x1f\x8b|BZh\d1AY&SY|\xfd7zXZ|7z\xbc\xaf|Rar!\x1a|\x28\xb5\x2f\xfd"), _UNPACK),
    (
        re.compile(rb"\x89PNG|GIF8[79]a.{0,12}\0|\xff\xd8\xff|II\*\0|MM\0\*|RIFF.{4}WEBP", re.S),
        _PICTURE,
    ),
    (re.compile(rb"%!PS"), f"PostScript; {_AS_PDF}"),
    (re.compile(rb"\x7fELF|MZ.{0,60}?\0|\xca\xfe\xba\xbe", re.S), "a program"),
)


def extension_of(name: str) -> str:
    """A name's extension in lower case, `.jsonl.gz` as one."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes[-2:]]
    joined = "".join(suffixes)
    return joined if joined in BY_EXTENSION else suffixes[-1] if suffixes else ""


def known_extension(names: Sequence[str]) -> str | None:
    """The first extension among a file's names that is of a format in the table."""
    return next((each for each in map(extension_of, names) if each in BY_EXTENSION), None)


def format_of(names: Sequence[str], head: bytes) -> tuple[str, str]:
    """The format of a file that begins with `head`, and its extension, by the first known name.

    Bytes that can only be of one format count more than a name; without either it is text.

    Raises:
        ReadError: it is in a format that is not read; says what can be done about it.

    """
    extension = known_extension(names)
    by_name = BY_EXTENSION.get(extension or "")
    own = extension or extension_of(names[0])
    head = head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n\0")
    if by_name == "jsonl" and head.startswith(_GZIP):
        return "jsonl.gz", own
    by_bytes = [name for name, each in FORMATS.items() if each.magic and each.magic.match(head)]
    if by_bytes:
        if by_name is None and own in _FOREIGN and FORMATS[by_bytes[0]].magic in (_ZIP, _OLD):
            raise ReadError(_FOREIGN[own])
        return (by_name if by_name in by_bytes else by_bytes[0]), own
    if by_name in (None, "text", "markdown", "rst", "pdf", "docx") and _PAGE.match(head):
        return "html", own
    if reason := _refusal(by_name, own, head):
        raise ReadError(reason)
    return by_name or "text", own


def _refusal(by_name: str | None, extension: str, head: bytes) -> str:
    """The reason for not reading a file, by its first bytes or a foreign extension, or nothing."""
    if by_name not in (None, "text", "markdown", "rst", "html"):
        return ""
    reason = next((reason for pattern, reason in _REFUSED_BY_BYTES if pattern.match(head)), "")
    if by_name is None:
        reason = _FOREIGN.get(extension, reason)
    return reason


def _in_archive(by_name: str, stream: IO[bytes]) -> str:
    """The format that an archive holds, which counts more than the name."""
    found = packed_format(stream)
    if found and found not in FORMATS:
        raise ReadError(f"in a packed format that is not read ({found})")
    return found or by_name


def read(
    format_name: str, stream: IO[bytes], options: ReadOptions
) -> Iterator[Content | Unreadable]:
    """The documents of an open file, whatever the parser of its format may raise.

    Raises:
        ReadError: the file cannot be read, or a text is longer than the limit.

    """
    limits = options.limits
    try:
        if FORMATS[format_name].magic is _ZIP:
            format_name = _in_archive(format_name, stream)
        for item in FORMATS[format_name].read(stream, options):
            if isinstance(item, Content) and len(item.text) > limits.max_text_bytes:
                raise ReadError(f"its text is {limits.too_long(len(item.text))}")
            yield item
    except (ReadError, MemoryError, OSError):
        raise
    except MissingDependencyError as error:
        raise ReadError(str(error)) from None
    except Exception as error:  # foreign parsers on broken files: one must not stop the rest
        raise ReadError(
            f"a damaged {format_name} file ({type(error).__name__}: {error})"
        ) from error
