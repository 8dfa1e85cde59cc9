"""OpenDocument texts, sheets and presentations (.odt, .ods, .odp) → their text."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.lines import Lines, in_one_line
from dewey_embed.text.packages import opened, own_title, xml_part
from dewey_embed.text.tables import Row, write_rows

_NAMES = "{urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE, _TEXT, _TABLE, _DRAW, _PRESENTATION = (
    f"{_NAMES}{name}:1.0}}" for name in ("office", "text", "table", "drawing", "presentation")
)
_SVG = _NAMES + "svg-compatible:1.0}"
_PARAGRAPHS = (_TEXT + "p", _TEXT + "h")
_CELLS = (_TABLE + "table-cell", _TABLE + "covered-table-cell")
# Deleted text, numbers of notes, descriptions of pictures, and the settings of forms.
_NOT_READ = {
    _TEXT + "tracked-changes",
    _TEXT + "note-citation",
    _OFFICE + "forms",
    _SVG + "title",
    _SVG + "desc",
    "{http://purl.org/dc/elements/1.1/}creator",
    "{http://purl.org/dc/elements/1.1/}date",
}
_BLANKS = re.compile(r"[ \t\r\n]+")
_MAX_REPEATS = 100
"""The most times that a cell or row with a value is repeated; programs repeat only empty ones."""


def read_opendocument(stream: IO[bytes], limits: ReadLimits) -> Content:
    """The paragraphs and tables of a text, the sheets of a workbook, or the slides, in order.

    Notes and comments follow the paragraph that they belong to; a table's row within a text is a
    line with tabs between its cells. The title is that of the properties, else of the first
    heading.

    Raises:
        ReadError: it is damaged, protected by a password, another kind of archive, or without text.

    """
    with opened(stream, "an OpenDocument file") as package:
        if "META-INF/manifest.xml" in package.namelist():
            manifest = xml_part(package, "META-INF/manifest.xml", limits)
            if any(str(node.tag).endswith("}encryption-data") for node in manifest.iter()):
                raise ReadError("protected by a password; save a copy without it")
        return _content(package, limits)


def _content(package: zipfile.ZipFile, limits: ReadLimits) -> Content:
    root = xml_part(package, "content.xml", limits)
    lines = Lines(limits)
    unread: Counter[str] = Counter()
    title = own_title(package, "meta.xml", limits)
    for kind, write in _WRITERS.items():
        body = root.find(f"{_OFFICE}body/{_OFFICE}{kind}")
        if body is not None:
            first_heading = write(lines, body, unread)
            title = title or first_heading
    unread["embedded objects"] = sum(1 for _ in root.iter(_DRAW + "object"))
    content = lines.content(title, unread)
    if not content.text:
        raise ReadError("an OpenDocument file without text; if it holds pictures of it, run OCR")
    return content


def _write_text(lines: Lines, body: Any, _: Counter[str]) -> str:
    """Write the blocks of a text; its first heading comes back."""
    first = ""
    for level, line in _blocks(body):
        if level and line:
            label = in_one_line(line)
            first = first or label
            lines.mark("heading", level, label)
        lines.add(line.split("\n"))
    return first


def _write_sheets(lines: Lines, body: Any, unread: Counter[str]) -> str:
    """Write the sheets of a workbook, which has no title of its own."""
    for number, table in enumerate(body.iterchildren(_TABLE + "table"), start=1):
        lines.end_block()
        lines.mark("sheet", number, table.get(_TABLE + "name", ""))
        lines.mark("row", 0)
        write_rows(lines, _rows(table, unread))
    return ""


def _write_slides(lines: Lines, body: Any, unread: Counter[str]) -> str:
    """Write the slides; the title of the first that has one comes back."""
    titles = []
    for number, page in enumerate(body.iterchildren(_DRAW + "page"), start=1):
        title = ""
        texts: list[str] = []
        notes: list[str] = []
        for frame in page:
            own = [in_one_line(line) for _, line in _blocks(frame) if line.strip()]
            role = frame.get(_PRESENTATION + "class")
            if frame.tag == _PRESENTATION + "notes":
                notes += own
            elif role == "title" and not title:
                title = " ".join(own)
            elif role not in ("page-number", "date-time", "footer", "header"):
                texts += own
        if not (title or texts or notes):
            unread["slides without text"] += 1
            continue
        titles.append(title)
        lines.end_block()
        lines.mark("slide", number)
        lines.mark("heading", 1 if title else 0, title)
        lines.add(filter(None, [title, *texts]))
        if notes:
            lines.add([f"Notes: {notes[0]}", *notes[1:]])
    return next(filter(None, titles), "")


_WRITERS: dict[str, Callable[[Lines, Any, Counter[str]], str]] = {
    "text": _write_text,
    "spreadsheet": _write_sheets,
    "presentation": _write_slides,
}


def _rows(table: Any, unread: Counter[str]) -> Iterator[Row]:
    """The rows of a sheet with their numbers; what is repeated counts without being written out."""
    number = 1
    for row in _own_rows(table):
        cells: list[str] = []
        for cell in row.iterchildren(*_CELLS):
            value = " ".join(filter(None, (line for _, line in _blocks(cell))))
            times = _repeats(cell, "columns")
            if value and times > _MAX_REPEATS:
                unread["repeated cells"] += times - _MAX_REPEATS
            cells += [value] * min(times, _MAX_REPEATS)
        times = _repeats(row, "rows")
        if any(cells):
            for repeat in range(min(times, _MAX_REPEATS)):
                yield number + repeat, cells
            unread["repeated rows"] += max(0, times - _MAX_REPEATS)
        number += times


def _own_rows(table: Any) -> Iterator[Any]:
    """The rows of a table, without those of tables within its cells, whose text is the cell's."""
    from lxml import etree

    walk = etree.iterwalk(table, events=("start",), tag=[_TABLE + "table-row", *_CELLS])
    for _, node in walk:
        if node.tag in _CELLS:
            walk.skip_subtree()
        else:
            yield node


def _repeats(node: Any, kind: str) -> int:
    value = node.get(f"{_TABLE}number-{kind}-repeated", "1")
    return int(value) if value.isdecimal() else 1


def _blocks(root: Any) -> Iterator[tuple[int, str]]:
    """The paragraphs and table rows below an element in order, with the levels of headings.

    A paragraph within a paragraph, as notes and text boxes have them, comes after the outer one.
    """
    from lxml import etree

    writer = _Writer()
    is_sheet = root.tag in _CELLS
    walk = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, node in walk:
        if event in ("comment", "pi"):
            writer.write(node.tail)
        elif node.tag in _NOT_READ:
            if event == "start":
                walk.skip_subtree()
            else:
                writer.write(node.tail)
        elif event == "start":
            writer.start(node, is_sheet)
        else:
            writer.end(node, is_sheet)
            if node is not root:
                writer.write(node.tail)
        yield from writer.ready
        writer.ready.clear()


class _Writer:
    """Paragraphs within cells within rows within paragraphs, put together as they end."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, str]] = []
        self._paragraphs: list[list[str] | None] = []  # `None` between a cell and its paragraphs
        self._rows: list[list[str]] = []
        self._blocks = [self.ready]  # of each open paragraph or cell, the blocks within it

    def start(self, node: Any, is_sheet: bool) -> None:
        if node.tag in _PARAGRAPHS:
            self._paragraphs.append([])
            self._blocks.append([])
            self.write(node.text)
        elif node.tag == _TABLE + "table-row":
            self._rows.append([])
        elif node.tag in _CELLS and not is_sheet:
            self._paragraphs.append(None)
            self._blocks.append([])
        elif node.tag == _TEXT + "s":
            count = node.get(_TEXT + "c", "1")
            self._append(" " * min(int(count), 100) if count.isdecimal() else " ")
        elif node.tag == _TEXT + "tab":
            self._append("\t")
        elif node.tag == _TEXT + "line-break":
            self._append("\n")
        else:
            self.write(node.text)

    def write(self, text: str | None) -> None:
        """Add characters of the file, where blanks and line ends are one blank."""
        if text:
            self._append(_BLANKS.sub(" ", text))

    def _append(self, text: str) -> None:
        if self._paragraphs and (paragraph := self._paragraphs[-1]) is not None:
            paragraph.append(text)

    def end(self, node: Any, is_sheet: bool) -> None:
        if node.tag in _PARAGRAPHS:
            line = "".join(self._paragraphs.pop() or []).rstrip().removeprefix(" ")
            inner = self._blocks.pop()
            level = node.get(_TEXT + "outline-level", "1") if node.tag == _TEXT + "h" else "0"
            self._blocks[-1] += [(int(level) if level.isdecimal() else 1, line), *inner]
        elif node.tag in _CELLS and not is_sheet:
            self._paragraphs.pop()
            cell = (in_one_line(line) for _, line in self._blocks.pop())
            if self._rows:
                self._rows[-1].append(" ".join(filter(None, cell)))
        elif node.tag == _TABLE + "table-row":
            cells = self._rows.pop()
            if any(cells):
                self._blocks[-1].append((0, "\t".join(cells)))
