"""Bytes of a file → its text and title, one function for each kind of file.

Knows nothing of paths or folders. Every function raises `ReadError` with a reason that a person
can act on; the kinds are a table at the end.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text import page

if TYPE_CHECKING:
    from docx.oxml.xmlchemy import BaseOxmlElement


class Content(NamedTuple):
    """What a file says: its text, and its title if it names one."""

    text: str
    title: str = ""


# UTF-32's mark begins with UTF-16's, so it is asked for first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
MAX_WESTERN_SHARE = 0.25
"""The share of bytes past ASCII up to which old Western text is believed. In German and French it
is under 0.1; in 8-bit Cyrillic or Greek, and in compressed data, around a half or more."""


def decode(data: bytes) -> str:
    """The text of some bytes, line ends as they are.

    With a byte order mark: what it says (UTF-8, UTF-16, UTF-32). Without: UTF-8. Where that fails,
    Windows-1252 (which holds Latin-1's letters), but only for what looks like it: no control
    characters, no valid multi-byte UTF-8 anywhere (else it is damaged UTF-8), and few bytes past
    ASCII. NUL bytes mean a binary file.

    Raises:
        ReadError: none of these, with the byte where it goes wrong.

    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise ReadError(
                    f"marked as {encoding.upper()}, but byte {error.start + len(mark)} is not; "
                    "the file is damaged or cut short"
                ) from None
    nul = data.find(0)
    if nul >= 0:
        raise ReadError(
            f"binary: a NUL at byte {nul}; if it is UTF-16 text, save it with a byte order mark"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        western = _western(data)
        if western is None:
            raise ReadError(
                f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}; "
                "if it is text in another encoding, convert it to UTF-8"
            ) from None
        return western


def _western(data: bytes) -> str | None:
    """Windows-1252 text, where the bytes look like it."""
    if _CONTROL.search(data) or not data.decode("utf-8", "ignore").isascii():
        return None
    if len(_NOT_ASCII.findall(data)) > MAX_WESTERN_SHARE * len(data):
        return None
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return None


def read_text(data: bytes) -> Content:
    """Plain text, without a title."""
    return Content(decode(data))


_FENCED = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_HASH_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?P<title>[^\r\n]*?)[ \t#]*\r?$", re.MULTILINE)
_UNDERLINED = re.compile(
    r"^(?P<title>\S[^\r\n]*?)[ \t]*\r?\n(?P<line>[=\-~^\"*#+])(?P=line){2,}[ \t]*\r?$", re.MULTILINE
)


def read_markdown(data: bytes) -> Content:
    """Markdown as it is written; the title is the first heading outside fenced code."""
    text = decode(data)
    prose = _FENCED.sub("", text)
    found = [match for heading in (_HASH_HEADING, _UNDERLINED) if (match := heading.search(prose))]
    return Content(text, min(found, key=re.Match.start)["title"] if found else "")


def read_restructured(data: bytes) -> Content:
    """The text as it is written; the title is the first underlined line."""
    text = decode(data)
    found = _UNDERLINED.search(text)
    return Content(text, found["title"] if found else "")


def read_html(data: bytes) -> Content:
    """A page's visible text, blocks on lines of their own, and its `<title>` or first `<h1>`."""
    encoding = page.declared_encoding(data)
    if encoding and 0 not in data and not data.startswith(codecs.BOM_UTF8):
        try:
            return Content(*page.visible(data.decode(encoding)))
        except (LookupError, UnicodeError):
            pass  # it declares what it is not
    return Content(*page.visible(decode(data)))


def read_pdf(data: bytes) -> Content:
    """A PDF's text, pages apart by a blank line, and the title in its properties."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ReadError("protected by a password; save a copy without it") from None
        raise ReadError(f"not a PDF that can be opened, or damaged ({error})") from None
    try:
        title = pdf.get_metadata_value("Title").strip("\0 \t\r\n")
        pages = [page.get_textpage().get_text_range() for page in pdf]
    except pypdfium2.PdfiumError as error:
        raise ReadError(f"damaged PDF ({error})") from None
    finally:
        pdf.close()
    # U+FFFE is PDFium's mark for a hyphen that only ends a line.
    text = re.sub("\ufffe(\r\n)?|\0", "", "\n\n".join(page.strip() for page in pages))
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise ReadError("its pages hold no text; if it is a scan, run OCR over it first")
    return Content(text, title)


_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
# An older program's copy of what stands beside it, moved text at its old place, and tab stops.
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_NOT_READ = (_FALLBACK, _WORD + "moveFrom", _WORD + "tabs")
_WORD_CHARACTERS = {
    _WORD + "tab": "\t",
    _WORD + "br": "\n",
    _WORD + "cr": "\n",
    _WORD + "noBreakHyphen": "\u2011",
}


def read_docx(data: bytes) -> Content:
    """A Word file's paragraphs and tables in order, and the title in its properties.

    Insertions and text boxes are read, deletions and headers are not; a table's row is a line
    with its cells apart by tabs.
    """
    import docx

    try:
        document = docx.Document(io.BytesIO(data))
    except Exception as error:  # a broken package can fail in zipfile, lxml or docx
        raise ReadError(
            f"not a Word file (.docx) that can be opened, or protected by a password ({error})"
        ) from None
    title = (document.core_properties.title or "").strip()
    # What python-docx says of a file without properties.
    title = "" if title == "Word Document" else title
    return Content("\n".join(_word_blocks(document.element.body)), title)


def _word_blocks(container: BaseOxmlElement) -> Iterator[str]:
    """The paragraphs and table rows of a part of a Word file, through whatever wraps them."""
    for child in container:
        if child.tag == _WORD + "p":
            yield _word_paragraph(child)
        elif child.tag == _WORD + "tr":
            cells = child.iter(_WORD + "tc")
            own = (cell for cell in cells if next(cell.iterancestors(_WORD + "tr")) is child)
            yield "\t".join(" ".join(filter(None, _word_blocks(cell))) for cell in own)
        elif child.tag not in (*_NOT_READ, _WORD + "del"):
            yield from _word_blocks(child)


def _word_paragraph(paragraph: BaseOxmlElement) -> str:
    """The characters of one paragraph."""
    parts = []
    for node in paragraph.iter(_WORD + "t", *_WORD_CHARACTERS):
        if next(node.iterancestors(_NOT_READ), None) is None:
            parts.append(_WORD_CHARACTERS.get(node.tag, node.text or ""))
    return "".join(parts)


READERS: Mapping[str, Callable[[bytes], Content]] = {
    ".txt": read_text,
    ".text": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".rst": read_restructured,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
}
"""What reads a file with each extension, in lower case."""
