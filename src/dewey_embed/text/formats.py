"""The formats that are read: a function for each, and which of them need a process of their own.

Every function raises `ReadError` with a reason that a person can act on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text import page
from dewey_embed.text.content import Content
from dewey_embed.text.encodings import decode
from dewey_embed.text.limits import ReadLimits
from dewey_embed.text.mail import read_mail, read_notebook, read_rich_text
from dewey_embed.text.pdf import read_pdf
from dewey_embed.text.titles import first_heading, split_front_matter
from dewey_embed.text.word import read_docx


def read_text(data: bytes) -> Content:
    """Plain text, without a title."""
    decoded = decode(data)
    return Content(decoded.text, "", decoded.unread)


def read_markdown(data: bytes) -> Content:
    """Markdown as it is written; the title is that of its front matter, else the first heading."""
    decoded = decode(data)
    title, body = split_front_matter(decoded.text)
    return Content(decoded.text, title or first_heading(body), decoded.unread)


def read_restructured(data: bytes) -> Content:
    """The text as it is written; the title is the first underlined line."""
    decoded = decode(data)
    return Content(decoded.text, first_heading(decoded.text, hashes=False), decoded.unread)


def read_html(data: bytes) -> Content:
    """A page's visible text, blocks on lines of their own, and its `<title>` or first `<h1>`."""
    decoded = page.decoded(data)
    text, title = page.visible(decoded.text)
    if not text and decoded.text.strip():
        raise ReadError(
            f"a page of {len(data):,} bytes without visible text; if scripts write its text, save "
            "it from a browser as text or .pdf"
        )
    return Content(text, title, decoded.unread)


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
