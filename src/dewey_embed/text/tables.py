"""Workbooks and tables of values → a line for each row, which can be read alone."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from dewey_embed.errors import ReadError
from dewey_embed.extras import needs
from dewey_embed.text.encodings import decode
from dewey_embed.text.inputs import Content, ReadLimits, ReadOptions
from dewey_embed.text.lines import Lines, in_one_line
from dewey_embed.text.packages import counted, opened, own_title

Row = tuple[int, Sequence[str]]
"""The number of a row, from 1, and its cells."""

_MAX_LABEL = 60
"""Characters of a header's cell; a longer one is a sentence, not the name of a column."""
_BEFORE_HEADER = 10
_SAMPLE_ROWS = 20


def write_rows(lines: Lines, rows: Iterable[Row]) -> None:
    """Write a line for each row that is not blank, with landmarks of their numbers.

    Where the first row with several cells is a header, those after it are written as
    `Name: Ann; Year: 2020`, else their cells stand with semicolons between.
    """
    filled = ((number, cells) for number, cells in _in_lines(rows) if any(cells))
    first = [*itertools.islice(filled, _BEFORE_HEADER + _SAMPLE_ROWS)]
    header_row, labels = _header(first)
    expected = 0
    for number, cells in itertools.chain(first, filled):
        if number != expected:
            lines.mark("row", number)
        expected = number + 1
        if number > header_row and labels:
            named = itertools.zip_longest(labels, cells, fillvalue="")
            values = [f"{label}: {cell}" if label else cell for label, cell in named if cell]
        else:
            values = [*filter(None, cells)]
        lines.add(["; ".join(values)])


def _in_lines(rows: Iterable[Row]) -> Iterator[tuple[int, list[str]]]:
    """The rows with each cell in one line."""
    return ((number, [in_one_line(cell) for cell in cells]) for number, cells in rows)


def _header(rows: list[tuple[int, list[str]]]) -> tuple[int, list[str]]:
    """The number of the row that is a header and its cells, or none.

    A header names its columns: short words, none twice, none a number, and none of them again
    among the values of its column; and it names as many columns as the rows below it fill.
    """
    none: tuple[int, list[str]] = (0, [])
    for at, (number, cells) in enumerate(rows[:_BEFORE_HEADER]):
        labels = [cell for cell in cells if cell]
        if len(labels) < 2:  # a caption above the table
            continue
        below = [cells for _, cells in rows[at + 1 :]]
        if not below or len(set(labels)) < len(labels):
            return none
        if any(len(label) > _MAX_LABEL or not _is_word(label) for label in labels):
            return none
        widest = max(sum(map(bool, row)) for row in below)
        repeats = any(
            label == cell for row in below for label, cell in zip(cells, row, strict=False) if label
        )
        return none if repeats or widest > len(labels) + 1 else (number, cells)
    return none


def _is_word(cell: str) -> bool:
    """Whether a cell is like a name and not like a number, date or sentence."""
    return not re.match(r"[-+.,]?\d", cell) and not cell.endswith((".", "!", ";"))


# Text files

_DELIMITERS = ",;\t|"
_SNIFFED = 65_536
_BLANKS_AFTER_QUOTE = re.compile(r'"[ \t]+')
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.I)  # which Excel writes and takes for no row


def read_delimited(data: bytes, options: ReadOptions, usual: str) -> Content:
    """A table in a text file as one document; the delimiter is found, or else the `usual` one.

    Raises:
        ReadError: it is binary, or damaged in its encoding.

    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    decoded = decode(data)
    text = decoded.text.removeprefix("\ufeff")
    given = _SEPARATOR_LINE.match(text)
    if given:
        text = text[given.end() :]
    delimiter = given[1] if given else _delimiter(text, usual)
    lines = Lines(options.limits)
    # A quotation mark that is never closed would take all rows after it into one cell.
    is_quoted = _is_closed(text, delimiter)
    records = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
    )
    write_rows(lines, enumerate(records, start=1))
    return lines.content("", decoded.unread)


def _is_closed(text: str, delimiter: str) -> bool:
    """Whether every quoted cell over several lines ends, and nothing but blanks follows in it."""
    lines = [*io.StringIO(text, newline="")]
    start = 0
    records = csv.reader(lines, delimiter=delimiter)
    for _ in records:
        if records.line_num > start + 1:  # the last line of the record begins within a cell
            last = '"' + _BLANKS_AFTER_QUOTE.sub('"', lines[records.line_num - 1])
            try:
                [*csv.reader([last], delimiter=delimiter, strict=True)]
            except csv.Error:
                return False
        start = records.line_num
    return True


def _delimiter(text: str, usual: str) -> str:
    """The delimiter that cuts the first records into the same number of cells, the most of them."""
    sample = text[:_SNIFFED]
    best = (0.0, 0)
    found = usual
    for delimiter in (usual, *_DELIMITERS.replace(usual, "")):
        records = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        widths = [len(record) for record in itertools.islice(records, _SAMPLE_ROWS) if record]
        if len(widths) > 1 and len(sample) < len(text):
            widths.pop()  # it may be cut
        (width, times), *_ = Counter(widths).most_common(1) or [(0, 0)]
        if width > 1 and (times / len(widths), width) > best:
            best, found = (times / len(widths), width), delimiter
    return found


# Workbooks

MAX_ROWS = 1_048_576
"""Rows of a sheet; where a file names one past them, openpyxl would make all before it."""
_COUNTED = {
    "xl/embeddings/": "embedded files",
    "xl/charts/chart": "charts",
    "xl/comments": "parts with comments",
    "xl/threadedcomments/": "parts with comments",
}


def read_workbook(stream: IO[bytes], limits: ReadLimits) -> Content:
    """The sheets of an Excel workbook in order, hidden ones too, with the last computed values.

    Raises:
        ReadError: it is damaged, protected by a password, another kind of archive, or without text.
        MissingDependencyError: openpyxl is not installed.

    """
    with needs("files", "reading workbooks (.xlsx)"):
        import openpyxl
    with opened(stream, "an Excel workbook (.xlsx)") as package:
        title = own_title(package, "docProps/core.xml", limits)
        unread = counted(package, _COUNTED)
    stream.seek(0)
    try:
        workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
    except MemoryError:
        raise
    except Exception as error:  # openpyxl raises whatever a damaged file leads it to
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = f"not an Excel workbook (.xlsx) that can be opened ({error})"
        raise ReadError(reason) from None
    lines = Lines(limits)
    for number, name in enumerate(workbook.sheetnames, start=1):
        sheet = workbook[name]
        if not hasattr(sheet, "iter_rows"):
            continue  # a sheet that is a chart, which is counted
        lines.end_block()
        lines.mark("sheet", number, name)
        lines.mark("row", 0)
        write_rows(lines, _rows(sheet, unread))
    content = lines.content(title, unread)
    if not content.text:
        raise ReadError("a workbook without values")
    return content


def _rows(sheet: Any, unread: Counter[str]) -> Iterator[Row]:
    """The rows of a sheet with their values as shown, up to where it is damaged."""
    sheet.reset_dimensions()  # some programs write too small ones
    try:
        for number, cells in enumerate(sheet.iter_rows(), start=1):
            if number > MAX_ROWS:
                raise ValueError("rows past the last that a sheet can have")
            yield number, [_shown(cell.value, cell.number_format) for cell in cells]
    except MemoryError:
        raise
    except Exception:  # openpyxl raises whatever a damaged sheet leads it to
        unread["damaged sheets"] += 1


def _shown(value: Any, number_format: str | None) -> str:
    """A cell's value about as a spreadsheet shows it: dates, percentages, no digits of noise."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        is_date = value.time() == datetime.time() and "h" not in (number_format or "").lower()
        return value.date().isoformat() if is_date else value.isoformat(" ", "seconds")
    if isinstance(value, int | float):
        is_share = (number_format or "").rstrip().endswith("%")
        return f"{value * 100:.6g}%" if is_share else f"{value:.15g}"
    return str(value)
