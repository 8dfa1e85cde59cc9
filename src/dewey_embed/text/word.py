"""A Word file → its text; of the archive only the parts that hold text are unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text.headings import MAX_TITLE
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.lines import in_one_line
from dewey_embed.text.packages import DAMAGE, counted, opened, own_title, xml_part
from dewey_embed.types import Landmark

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
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
_SEPARATORS = ("separator", "continuationSeparator", "continuationNotice")
# Parts beside the body, in the order in which they are read after it.
_BESIDE = ("header", "footer", "footnotes", "endnotes", "comments")
_COUNTED = {
    "word/embeddings/": "embedded files",
    "word/charts/chart": "charts",
    "word/diagrams/data": "diagrams",
    "word/afchunk": "imported parts",
}


def read_docx(stream: IO[bytes], limits: ReadLimits) -> Content:
    """A Word file's paragraphs and tables in order, then its notes, comments, headers and footers.

    Insertions, text boxes and equations are read, deletions are not; a table's row is a line
    with tabs between its cells. The title is that of its properties, else its first paragraph in
    the style Title or Heading 1.

    Raises:
        ReadError: it is damaged, protected by a password, another kind of archive, or without text.

    """
    with opened(stream, "a Word file (.docx)") as package:
        return _content(package, limits)


def _content(package: zipfile.ZipFile, limits: ReadLimits) -> Content:
    body = xml_part(package, "word/document.xml", limits)
    lines = [*_blocks(body, _levels(package, limits))]
    landmarks = _landmarks(lines)
    texts = [line.text for line in lines]
    in_body = sum(len(text) + 1 for text in texts)
    for kind in _BESIDE:
        found: dict[str, None] = {}  # sections often repeat each other's headers
        for name in sorted(package.namelist()):
            if name.startswith(f"word/{kind}") and name.endswith(".xml") and name.count("/") == 1:
                blocks = _blocks(xml_part(package, name, limits), {})
                found.update(dict.fromkeys(line.text for line in blocks if line.text))
        texts += found
    text = "\n".join(texts)
    if not text.strip():
        raise ReadError("a Word file without text; if it holds pictures of text, run OCR over it")
    if landmarks and in_body < len(text):
        landmarks.append(Landmark(in_body, "heading", 0))
    landmarks = [each for each in landmarks if each.char < len(text)]
    title = own_title(package, "docProps/core.xml", limits) or _title(lines)
    return Content(text, title, dict(counted(package, _COUNTED)), landmarks=landmarks)


_TITLE = 0
_BODY = 9
"""The outline level, counted from 0, of what is no heading."""
_NAMED = {"title": _TITLE, **{f"heading {level}": level for level in range(1, 10)}}


class _Line(NamedTuple):
    """A paragraph or row of a table, and the headings in it: level, or 0 for a title, and words.

    Those in a row of several cells say nothing of what follows it.
    """

    text: str
    headings: list[tuple[int, str]]
    num_cells: int = 1


def _levels(package: zipfile.ZipFile, limits: ReadLimits) -> dict[str, int]:
    """The levels of the styles that are for headings, by the styles' ids in the file.

    Word in another language has other ids for its styles, which only the part of styles explains.
    """
    levels = {"Title": _TITLE, **{f"Heading{level}": level for level in range(1, 10)}}
    own: dict[str, int] = {}
    bases: dict[str, str] = {}
    try:
        styles = xml_part(package, "word/styles.xml", limits)
    except DAMAGE:
        return levels
    for style in styles.iter(_W + "style"):
        name = style.get(_W + "styleId", "")
        named = _value(style.find(_W + "name")).lower()
        outline = _value(style.find(f"{_W}pPr/{_W}outlineLvl"))
        bases[name] = _value(style.find(_W + "basedOn"))
        if named in _NAMED:
            own[name] = _NAMED[named]
        elif outline.isdecimal():
            own[name] = int(outline) + 1
    for name in bases:
        at, seen = name, set[str]()
        while at not in own and at in bases and at not in seen:
            seen.add(at)
            at = bases[at]
        levels[name] = own.get(at, _BODY + 1)
    return levels


def _value(node: Any) -> str:
    return "" if node is None else node.get(_W + "val", "")


def _level(paragraph: Any, levels: Mapping[str, int]) -> int | None:
    """The level of a paragraph that is a heading, by its own setting, else its style."""
    properties = paragraph[0] if len(paragraph) else None
    if properties is None or properties.tag != _W + "pPr":
        return None
    outline = _value(properties.find(_W + "outlineLvl"))
    level = levels.get(_value(properties.find(_W + "pStyle")), _BODY + 1)
    if outline.isdecimal() and level != _TITLE:
        level = int(outline) + 1
    return level if level <= _BODY else None


def _landmarks(lines: Sequence[_Line]) -> list[Landmark]:
    """The headings of a body; a title is one that all others stand under."""
    has_title = any(level == _TITLE for line in lines for level, _ in line.headings)
    landmarks = []
    above: list[Landmark] = []
    char = 0
    for line in lines:
        is_row = line.num_cells > 1
        for level, words in line.headings:
            label = words if len(words) <= MAX_TITLE else ""
            heading = Landmark(char, "heading", level + has_title, label)
            landmarks.append(heading)
            if not is_row:
                above = [each for each in above if each.number < heading.number] + [heading]
        char += len(line.text) + 1
        if line.headings and is_row:
            widest = min(level for level, _ in line.headings) + has_title
            landmarks.append(Landmark(char, "heading", widest))
            landmarks += [each._replace(char=char) for each in above if each.number >= widest]
    return landmarks


def _title(lines: Sequence[_Line]) -> str:
    """The first paragraph that is styled as a title, else the first as a heading of level 1."""
    first: dict[int, str] = {}
    for line in lines:
        for level, words in line.headings:
            first.setdefault(level, words)
    return first.get(_TITLE) or first.get(1) or ""


def _blocks(root: Any, levels: Mapping[str, int]) -> Iterator[_Line]:
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
            writer.end(tag, _level(node, levels) if tag == _W + "p" else None)
        if writer.ready:
            yield from writer.ready
            writer.ready.clear()


class _Writer:
    """Paragraphs within cells within rows within paragraphs, put together as they end."""

    def __init__(self) -> None:
        self.ready: list[_Line] = []
        self._paragraphs: list[list[str]] = []
        self._rows: list[list[list[_Line]]] = []
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

    def end(self, tag: str, level: int | None) -> None:
        """End an element; a paragraph with a level is a heading."""
        if tag == _W + "p":
            text = "".join(self._paragraphs.pop())
            words = in_one_line(text)
            line = _Line(text, [(level, words)] if words and level is not None else [])
            inner = self._lines.pop()
            self._lines[-1] += [line, *inner] if text or not inner else inner
        elif tag == _W + "tc":
            cell = self._lines.pop()
            if self._rows:
                self._rows[-1].append(cell)
        elif tag == _W + "tr":
            cells = self._rows.pop()
            row = "\t".join(" ".join(line.text for line in cell if line.text) for cell in cells)
            headings = [each for cell in cells for line in cell for each in line.headings]
            self._lines[-1].append(_Line(row, headings, len(cells)))
