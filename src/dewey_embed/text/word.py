"""A Word file → its text; of the archive only the parts that hold text are unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.markup import usable

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT_MATH = b"http://purl.oclc.org/ooxml/officeDocument/math"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
# An older program's copy of what stands beside it, moved and deleted text, and tab stops.
_NOT_READ = {
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    *(_W + name for name in ("moveFrom", "tabs", "del", "pPr", "rPr", "sectPr", "tblPr", "tcPr")),
}
_CHARACTERS = {
    _W + "tab": "\t",
    _W + "br": "\n",
    _W + "cr": "\n",
    _W + "noBreakHyphen": "\u2011",
    _W + "rubyBase": " ",  # between a word and its reading
    _M + "den": "/",
    _M + "sup": "^",
    _M + "sub": "_",
}
_TEXT = {_W + "t", _M + "t"}
_NOTES = {_W + "footnote", _W + "endnote"}
_MET = [*_NOT_READ, *_CHARACTERS, *_TEXT, *_NOTES, _W + "p", _W + "tc", _W + "tr"]
_MARKS_PER_TEXT = 4
"""The limit for a part's XML in bytes, for each byte of text: marks are most of it."""
MAX_INFLATION = 100
"""The limit for a part's size in packed sizes; people's texts are packed to a tenth."""
_SEPARATORS = ("separator", "continuationSeparator", "continuationNotice")
# Parts beside the body, in the order in which they are read after it.
_BESIDE = ("header", "footer", "footnotes", "endnotes", "comments")
_COUNTED = {
    "word/embeddings/": "embedded files",
    "word/charts/chart": "charts",
    "word/diagrams/data": "diagrams",
    "word/afchunk": "imported parts",
}
_OTHER_PACKAGES = {
    "ppt/": "a PowerPoint presentation; save it as .pdf to have it read",
    "xl/": "an Excel workbook; save its sheets as text or .jsonl to have them read",
    "content.xml": "an OpenDocument file; save it as .docx or .pdf to have it read",
    "META-INF/container.xml": "an EPUB book; unpack it and give the folder to have it read",
}


def read_docx(stream: IO[bytes], limits: ReadLimits) -> Content:
    """A Word file's paragraphs and tables in order, then its notes, comments, headers and footers.

    Insertions, text boxes and equations are read, deletions are not; a table's row is a line
    with tabs between its cells. The title is that of its properties, else its first paragraph in
    the style Title or Heading 1.

    Raises:
        ReadError: it is damaged, protected by a password, another kind of archive, or without text.

    """
    try:
        with zipfile.ZipFile(stream) as package:
            return _content(package, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"not a Word file (.docx) that can be opened, or protected by a password ({error})"
        ) from None
    except (NotImplementedError, RuntimeError) as error:
        raise ReadError(f"a Word file (.docx) packed in a way that is not read ({error})") from None


def _content(package: zipfile.ZipFile, limits: ReadLimits) -> Content:
    names = package.namelist()
    if "word/document.xml" not in names:
        raise ReadError(_other(names))
    body = _part(package, "word/document.xml", limits)
    lines = list(_blocks(body))
    for kind in _BESIDE:
        texts: dict[str, None] = {}  # sections often repeat each other's headers
        for name in sorted(names):
            if name.startswith(f"word/{kind}") and name.endswith(".xml") and name.count("/") == 1:
                texts.update(dict.fromkeys(filter(None, _blocks(_part(package, name, limits)))))
        lines += texts
    unread = Counter(
        kind
        for name in names
        for start, kind in _COUNTED.items()
        if name.lower().startswith(start) and not name.endswith(("/", ".rels"))
    )
    text = "\n".join(lines)
    if not text.strip():
        raise ReadError("a Word file without text; if it holds pictures of text, run OCR over it")
    return Content(text, _title(package, names, body, limits), dict(unread))


def _other(names: list[str]) -> str:
    """The reason for refusing an archive that is not a Word file, with the remedy."""
    for start, reason in _OTHER_PACKAGES.items():
        if any(name.startswith(start) for name in names):
            return reason
    return "not a Word file (.docx) but another ZIP archive; unpack it and give the folder"


def _part(package: zipfile.ZipFile, name: str, limits: ReadLimits) -> Any:
    """The root element of a part of the archive."""
    from lxml import etree

    info = package.getinfo(name)
    size = info.file_size
    is_bomb = size > MAX_INFLATION * info.compress_size
    if size > limits.max_text_bytes * (1 if is_bomb else _MARKS_PER_TEXT):
        raise ReadError(f"unpacked, its {name} is {limits.too_long(size)}")
    data = package.read(name).replace(_STRICT, _W[1:-1].encode())
    data = data.replace(_STRICT_MATH, _M[1:-1].encode())
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if not error.lineno:  # how lxml says that it was refused memory
            raise MemoryError from None
        raise ReadError(f"a damaged Word file: {name}: {error}") from None


def _blocks(root: Any) -> Iterator[str]:
    """The paragraphs and table rows below an element, in order, without recursion.

    A row's cells are joined when the row ends; a paragraph within a paragraph, as text boxes have
    them, comes after the outer one.
    """
    from lxml import etree

    writer = _Writer()
    walk = etree.iterwalk(root, events=("start", "end"), tag=_MET)
    for event, node in walk:
        tag = node.tag
        if tag in _NOT_READ or (tag in _NOTES and node.get(_W + "type") in _SEPARATORS):
            if event == "start":
                walk.skip_subtree()
        elif event == "start":
            writer.start(tag)
            if tag in _TEXT:
                writer.write(node.text or "")
            elif tag in _CHARACTERS:
                writer.write(_CHARACTERS[tag])
        else:
            writer.end(tag)
        if writer.ready:
            yield from writer.ready
            writer.ready.clear()


class _Writer:
    """Paragraphs within cells within rows within paragraphs, put together as they end."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self._paragraphs: list[list[str]] = []
        self._rows: list[list[list[str]]] = []
        self._lines = [self.ready]  # of each open paragraph or cell, the lines within it

    def start(self, tag: str) -> None:
        if tag == _W + "p":
            self._paragraphs.append([])
            self._lines.append([])
        elif tag == _W + "tr":
            self._rows.append([])
        elif tag == _W + "tc":
            self._lines.append([])

    def write(self, text: str) -> None:
        if self._paragraphs:
            self._paragraphs[-1].append(text)

    def end(self, tag: str) -> None:
        if tag == _W + "p":
            line = "".join(self._paragraphs.pop())
            inner = self._lines.pop()
            self._lines[-1] += [line, *inner] if line or not inner else inner
        elif tag == _W + "tc":
            cell = self._lines.pop()
            if self._rows:
                self._rows[-1].append(cell)
        elif tag == _W + "tr":
            cells = self._rows.pop()
            self._lines[-1].append("\t".join(" ".join(filter(None, cell)) for cell in cells))


def _title(package: zipfile.ZipFile, names: list[str], body: Any, limits: ReadLimits) -> str:
    """The title in the properties, else the first paragraph that is styled as one."""
    if "docProps/core.xml" in names:
        title = usable(_part(package, "docProps/core.xml", limits).findtext(_TITLE) or "")
        if title:
            return title
    styles = {"Title": "title", "Heading1": "heading 1"}
    used = {style.get(_W + "val") for style in body.iter(_W + "pStyle")}
    # Word in another language has other names for its styles, which only that part explains
    if used and not used & set(styles) and "word/styles.xml" in names:
        for style in _part(package, "word/styles.xml", limits).iter(_W + "style"):
            name = style.find(_W + "name")
            if name is not None:
                styles[style.get(_W + "styleId", "")] = name.get(_W + "val", "").lower()
    first: dict[str, str] = {}
    for kind, text in _styled(body, styles):
        first.setdefault(kind, text)
        if kind == "title":
            break
    return first.get("title") or first.get("heading 1") or ""


def _styled(body: Any, styles: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Paragraphs in the styles Title and Heading 1, whatever these are called in the file."""
    for paragraph in body.iter(_W + "p"):
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        kind = "" if style is None else styles.get(style.get(_W + "val", ""), "")
        if kind in ("title", "heading 1"):
            text = " ".join(" ".join(_blocks(paragraph)).split())
            if text:
                yield kind, text
