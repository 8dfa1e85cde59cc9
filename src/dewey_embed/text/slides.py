"""A PowerPoint file → the text of its slides; only the parts that hold text are unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.lines import Lines, in_one_line
from dewey_embed.text.packages import DAMAGE, counted, opened, own_title, related_parts, xml_part

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TEXT = (_A + "t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t")
_MAIN = "ppt/presentation.xml"
_ON_EVERY_SLIDE = ("sldNum", "dt", "ftr", "hdr")
_COUNTED = {
    "ppt/embeddings/": "embedded files",
    "ppt/charts/chart": "charts",
    "ppt/diagrams/data": "diagrams",
    "ppt/comments/": "parts with comments",
}


class _Slide(NamedTuple):
    """A slide's title in one line, its other paragraphs and table rows, and its notes."""

    title: str
    body: list[str]
    notes: list[str]


def read_slides(stream: IO[bytes], limits: ReadLimits) -> Content:
    """The slides in order, hidden ones too: title, text boxes, tables and notes.

    A table's row is a line with tabs between its cells. The number of a slide on each of them, and
    their dates and footers, are left out. The title is that of the properties, else the first
    slide's that has one.

    Raises:
        ReadError: it is damaged, protected by a password, another kind of archive, or without text.

    """
    with opened(stream, "a PowerPoint file (.pptx)") as package:
        return _content(package, limits)


def _content(package: zipfile.ZipFile, limits: ReadLimits) -> Content:
    main = xml_part(package, _MAIN, limits)
    parts = related_parts(package, _MAIN, limits)
    unread = counted(package, _COUNTED)
    lines = Lines(limits)
    titles = []
    for number, each in enumerate(main.iter(_P + "sldId"), start=1):
        try:
            slide = _slide(package, parts[each.get(_ID, "")][1], limits)
        except DAMAGE as error:
            if isinstance(error, ReadError) and "--max-text-mb" in str(error):
                raise
            unread["damaged slides"] += 1
            continue
        titles.append(slide.title)
        if any(slide.body) or slide.title or slide.notes:
            _write(lines, number, slide)
        else:
            unread["slides without text"] += 1
    title = own_title(package, "docProps/core.xml", limits)
    content = lines.content(title or next(filter(None, titles), ""), unread)
    if not content.text:
        raise ReadError("a presentation without text; if its slides are pictures, run OCR over it")
    return content


def _write(lines: Lines, number: int, slide: _Slide) -> None:
    """Write a slide, whose title is a heading; one without a title stands under none."""
    lines.end_block()
    lines.mark("slide", number)
    lines.mark("heading", 1 if slide.title else 0, slide.title)
    lines.add(filter(None, [slide.title, *slide.body]))
    if slide.notes:
        lines.add([f"Notes: {slide.notes[0]}", *slide.notes[1:]])


def _slide(package: zipfile.ZipFile, part: str, limits: ReadLimits) -> _Slide:
    """The text of one slide."""
    title, body, notes = "", [], []
    for role, lines in _shapes(xml_part(package, part, limits)):
        if role in ("title", "ctrTitle") and not title:
            title = in_one_line(" ".join(lines))
        elif role not in _ON_EVERY_SLIDE:
            body += lines
    for kind, beside in related_parts(package, part, limits).values():
        if kind == "notesSlide":
            for role, lines in _shapes(xml_part(package, beside, limits)):
                notes += lines if role == "body" else []
    return _Slide(title, body, notes)


def _shapes(root: Any) -> Iterator[tuple[str, list[str]]]:
    """The role of each shape as a placeholder, and its lines, in the order of the file."""
    from lxml import etree

    walk = etree.iterwalk(
        root, events=("start",), tag=[_FALLBACK, _P + "sp", _P + "graphicFrame", _P + "cxnSp"]
    )
    for _, node in walk:
        if node.tag == _FALLBACK:  # an older program's copy of what stands beside it
            walk.skip_subtree()
        elif node.tag == _P + "graphicFrame":
            rows = ([_cell(cell) for cell in row.iter(_A + "tc")] for row in node.iter(_A + "tr"))
            yield "", ["\t".join(row) for row in rows if any(row)]
        else:
            placeholder = node.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
            role = "" if placeholder is None else placeholder.get("type", "")
            yield role, [*filter(None, map(_paragraph, node.iter(_A + "p")))]


def _cell(cell: Any) -> str:
    return " ".join(filter(None, map(_paragraph, cell.iter(_A + "p"))))


def _paragraph(paragraph: Any) -> str:
    """The text of a paragraph in one line."""
    pieces = [
        " " if node.tag == _A + "br" else node.text or ""
        for node in paragraph.iter(*_TEXT, _A + "br")
    ]
    return in_one_line("".join(pieces))
