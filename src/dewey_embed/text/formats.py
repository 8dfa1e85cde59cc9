"""The formats that are read: which a file is in, the function of each, where that function runs.

A file's format is told by its names, corrected by the bytes that it begins with. Every function
raises `ReadError` with a reason that a person can act on.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import IO, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text.html import read_html
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.mail import read_mail, read_notebook, read_rich_text
from dewey_embed.text.markup import read_markdown, read_restructured, read_text
from dewey_embed.text.pdf import read_pdf
from dewey_embed.text.word import read_docx

JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BY_EXTENSION: Mapping[str, str] = {
    **dict.fromkeys((".txt", ".text"), "text"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".rst": "rst",
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".pdf": "pdf",
    **dict.fromkeys((".docx", ".docm", ".dotx"), "docx"),
    ".rtf": "rtf",
    **dict.fromkeys((".eml", ".mht", ".mhtml"), "mail"),
    ".ipynb": "notebook",
    **dict.fromkeys(JSON_LINES, "jsonl"),
}
"""The format of each extension, in lower case."""

EXTENSIONS = tuple(BY_EXTENSION)
"""What is read of a folder. A file that is named itself is tried as text, whatever it is called."""

HEAD_BYTES = 1024
"""How many bytes of a file `format_of` asks for."""

_AS_PDF = "save it as .pdf to have it read"
_AS_DOCX = "save it as .docx or .pdf to have it read"
_UNPACK = "an archive; unpack it and give the folder"
_PICTURE = "a picture; run OCR over it to have its text read"
_SOUND = "sound or film, which holds no text"
_FOREIGN: Mapping[str, str] = {
    **dict.fromkeys((".doc", ".dot"), f"a Word file of before 2007; {_AS_DOCX}"),
    **dict.fromkeys((".odt", ".ott", ".fodt"), f"an OpenDocument text; {_AS_DOCX}"),
    **dict.fromkeys((".pages", ".wpd", ".wps"), f"another word processor's file; {_AS_DOCX}"),
    **dict.fromkeys(
        (".ppt", ".pptx", ".pptm", ".pps", ".ppsx", ".odp", ".key"), f"a presentation; {_AS_PDF}"
    ),
    **dict.fromkeys(
        (".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers"),
        "a workbook; save its sheets as text or .jsonl to have them read",
    ),
    **dict.fromkeys((".epub", ".mobi", ".azw3"), f"an electronic book; {_AS_PDF}"),
    **dict.fromkeys((".msg", ".pst", ".mbox"), "mail; save its letters as .eml to have them read"),
    **dict.fromkeys((".ps", ".eps", ".djvu", ".xps", ".dvi"), f"a page description; {_AS_PDF}"),
    **dict.fromkeys(
        (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar"), _UNPACK
    ),
    **dict.fromkeys(
        (".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic"), _PICTURE
    ),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".mp4", ".mov", ".avi", ".mkv"), _SOUND),
}
"""What a file is that is named itself and in no format that is read, and what to do about it."""

_OTHER_ZIPS = set(_FOREIGN) - {".doc", ".dot"}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_READ_BY_BYTES = (
    # some programs put lines of their own before a PDF
    (re.compile(rb"%PDF-\d|(?s:.*?\n)%PDF-\d\.\d(?s:.*?)\n\d+ \d+ obj\b"), "pdf"),
    (re.compile(rb"\{\\rtf"), "rtf"),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "docx"),
)
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


class Kind(NamedTuple):
    """A file's format, and the extension that its documents are filed under."""

    format: str
    extension: str


def extension_of(name: str) -> str:
    """A name's extension in lower case, `.jsonl.gz` as one."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes[-2:]]
    joined = "".join(suffixes)
    return joined if joined in JSON_LINES else suffixes[-1] if suffixes else ""


def known_extension(names: Sequence[str]) -> str | None:
    """The first extension among a file's names that is of a format that is read."""
    return next((each for each in map(extension_of, names) if each in BY_EXTENSION), None)


def kind_of(names: Sequence[str], head: bytes) -> Kind:
    """The kind of a file that begins with `head`; the first of its names counts before the others.

    Bytes that can only be of one format count more than a name; what neither tells is text.

    Raises:
        ReadError: it is in a format that is not read, with what can be done about it.

    """
    extension = known_extension(names)
    by_name = BY_EXTENSION.get(extension or "")
    own = extension or extension_of(names[0])
    head = head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n\0")
    if by_name == "jsonl" and head[:2] == b"\x1f\x8b":
        return Kind("jsonl", own)
    for pattern, found in _READ_BY_BYTES:
        if pattern.match(head):
            if found == "docx" and by_name is None and own in _OTHER_ZIPS:
                raise ReadError(_FOREIGN[own])
            return Kind(found, own)
    if by_name in (None, "text", "markdown", "rst", "pdf", "docx") and _PAGE.match(head):
        return Kind("html", own)
    if by_name in ("docx", "rtf") and head.startswith(_OLE):
        raise ReadError(
            "not a Word file (.docx) but one of before 2007, or protected by a password; "
            "save it as .docx without one"
        )
    if by_name in (None, "text", "markdown", "rst", "html"):
        reason = next((reason for pattern, reason in _REFUSED_BY_BYTES if pattern.match(head)), "")
        reason = reason if by_name else _FOREIGN.get(own, reason)
        if head.startswith(_OLE):
            reason = reason or f"an Office file of before 2007; {_AS_DOCX}"
        if reason:
            raise ReadError(reason)
    return Kind(by_name or "text", own)


def _from_bytes(read: Callable[[bytes], Content], stream: IO[bytes], limits: ReadLimits) -> Content:
    """What a function makes of all the bytes of a stream, if they are not too many."""
    data = stream.read(limits.max_text_bytes + 1)
    if len(data) > limits.max_text_bytes:
        raise ReadError(limits.too_long())
    return read(data)


class Format(NamedTuple):
    """How a format is read, and whether in a process of its own: where a foreign parser does it."""

    read: Callable[[IO[bytes], ReadLimits], Content]
    is_foreign: bool = True


FORMATS: Mapping[str, Format] = {
    "text": Format(partial(_from_bytes, read_text), is_foreign=False),
    "markdown": Format(partial(_from_bytes, read_markdown), is_foreign=False),
    "rst": Format(partial(_from_bytes, read_restructured), is_foreign=False),
    "html": Format(partial(_from_bytes, read_html)),
    "pdf": Format(lambda stream, _: read_pdf(stream)),
    "docx": Format(read_docx),
    "rtf": Format(partial(_from_bytes, read_rich_text)),
    "mail": Format(partial(_from_bytes, read_mail)),
    "notebook": Format(partial(_from_bytes, read_notebook)),
}
"""How each format is read, by its name."""


def read(format_name: str, stream: IO[bytes], limits: ReadLimits) -> Content:
    """What a file says, whatever the parser of its format may throw.

    Raises:
        ReadError: it cannot be read, or its text is longer than the limit.

    """
    try:
        content = FORMATS[format_name].read(stream, limits)
    except (ReadError, MemoryError, OSError):
        raise
    except Exception as error:  # foreign parsers on broken files: one must not stop the rest
        raise ReadError(
            f"a damaged {format_name} file ({type(error).__name__}: {error})"
        ) from error
    if len(content.text) > limits.max_text_bytes:
        raise ReadError(f"its text is {limits.too_long(len(content.text))}")
    return content
