"""Pages → Markdown, and one HTML file that needs no other: no request leaves it.

`page.html` beside this file is the template. All text is escaped; in summaries and notes, text
between backticks is code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard
from xml.etree import ElementTree

from dewey_embed.eval.report.pages import Group, Page, machine_text, versions_text
from dewey_embed.eval.result_page import Cell, Plot, ResultPage, Table
from dewey_embed.extras import needs

MISSING = "–"
MAX_DIGITS = 15
TITLE = "Dewey: results"
INTRODUCTION = (
    "Every figure comes from a file that a command wrote; the command, the machine and the "
    "versions stand below it. A dash is a figure that was not measured."
)
HEAD = f"""\
<!-- Written by `dewey report` from result files: change those, not this. -->
# Results

{INTRODUCTION}
"""

WIDE = 8
"""Columns from which an HTML table is set narrower."""

# Escaped wherever they stand; underscores only outside words, where they would be markup.
SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<!\w)_|_(?!\w)")
LINE_START = re.compile(r"^([+-](?=\s|-|$)|=|\d+(?=[.)](?:\s|$)))")
CODE = re.compile(r"`([^`]+)`")

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"

Key = tuple[str, int]
"""A page's anchor, and the number of a plot of it from 0."""


@dataclass(frozen=True)
class Shown:
    """A cell as readers see it; `value` is the sorting key, `None` if it is missing."""

    text: str
    value: float | str | None
    best: bool

    @property
    def number(self) -> float | None:
        """Its value, where that is a number."""
        return None if isinstance(self.value, str) else self.value


def show(table: Table) -> list[list[Shown]]:
    """The rows of a table, the best figures marked in the columns whose `best` asks for it.

    They are the best of their column or, with `best_in="row"`, of the row's such columns. Every
    figure that reads like the best one is marked: equal texts cannot be told apart.
    """
    rows = [
        [_show(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    compared = [number for number, column in enumerate(table.columns) if column.best]
    groups = [[(row, number) for row in range(len(rows))] for number in compared]
    if table.best_in == "row":
        groups = [[(row, number) for number in compared] for row in range(len(rows))]
    for group in groups:
        _mark_best(rows, group, table)
    return rows


def holds_numbers(table: Table, number: int) -> bool:
    """Whether everything measured in a column is a number, so that it stands to the right."""
    measured = [cell for row in table.rows if not _is_missing(cell := row[number])]
    return bool(measured) and all(map(_is_number, measured))


def number_text(value: float, digits: int) -> str:
    """A number with this many decimals, an integer with none; never a zero that is not one."""
    if isinstance(value, int):
        return f"{value:,}"
    digits = min(max(digits, 0), MAX_DIGITS)
    if abs(value) >= 10**MAX_DIGITS:
        return f"{value:.{digits}e}"
    text = f"{value:,.{digits}f}"
    if not any(figure in text for figure in "123456789"):
        return f"{value:.1e}" if value else text.removeprefix("-")
    return text


def to_markdown(groups: Sequence[Group], pictures: Mapping[Key, tuple[str, str]]) -> str:
    """The report as Markdown.

    `pictures` holds the addresses of each plot's PNG and SVG as seen from the file; a plot that
    has none is left out.
    """
    blocks = [HEAD]
    for group in groups:
        blocks.append(f"## {escape(group.title)}\n")
        for page in group.pages:
            blocks += _page_blocks(page, pictures)
    return "\n".join(blocks)


def page_to_markdown(result: ResultPage) -> str:
    """One page by itself, without its plots: the output of a terminal."""
    return "\n".join(_page_blocks(Page("page", result), {})).rstrip("\n")


def escape(text: str) -> str:
    """Text in one line that means itself in Markdown, in a table as elsewhere."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = SPECIAL.sub(r"\\\g<0>", line)
    return LINE_START.sub(_escape_start, line)


def code(text: str) -> str:
    """Text as code, even if it holds backticks."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}" if line else ""


def prose(text: str) -> list[tuple[str, bool]]:
    """The pieces of a sentence, and whether each is code: text between backticks is."""
    pieces = CODE.split(text)
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


def to_html(groups: Sequence[Group], svgs: Mapping[Key, str]) -> str:
    """The report as one HTML file; `svgs` holds the plots.

    Raises:
        MissingDependencyError: jinja2 is not installed.

    """
    shown = [
        {"title": group.title, "pages": [_page_values(page, svgs) for page in group.pages]}
        for group in groups
    ]
    return str(_template().render(title=TITLE, introduction=INTRODUCTION, groups=shown))


def inline_svg(svg: str, *, prefix: str, label: str) -> str:
    """An SVG file's picture as part of a page, with a label for those who do not see it.

    Its ids begin with `prefix`, so that two pictures share none. Its size and the style of all
    elements are removed: the page's own style decides.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{SVG}style", f"{SVG}metadata"}:
                parent.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', ElementTree.tostring(root, "unicode")))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if (name := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{name}")
        if target := element.attrib.pop(LINK, None):
            element.set("href", f"#{prefix}-{target.removeprefix('#')}")
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, "unicode")


def _mark_best(rows: list[list[Shown]], group: list[tuple[int, int]], table: Table) -> None:
    """Mark the best figures among the cells of a group, unless all read alike."""
    numbers = [(row, number) for row, number in group if rows[row][number].number is not None]
    if len({rows[row][number].text for row, number in numbers}) < 2:
        return
    choose = max if table.columns[group[0][1]].best == "highest" else min
    row, number = choose(numbers, key=lambda place: rows[place[0]][place[1]].number or 0)
    best = rows[row][number].text
    for row, number in numbers:
        cell = rows[row][number]
        rows[row][number] = replace(cell, best=cell.text == best)


def _show(cell: Cell, digits: int) -> Shown:
    if _is_number(cell):
        return Shown(number_text(cell, digits), cell, best=False)
    if _is_missing(cell):
        return Shown(MISSING, None, best=False)
    return Shown(str(cell), str(cell), best=False)


def _is_number(cell: Cell) -> TypeGuard[float]:
    """Whether a cell is a figure; NaN and infinity are not."""
    return isinstance(cell, int) or (isinstance(cell, float) and math.isfinite(cell))


def _is_missing(cell: Cell) -> bool:
    return not cell.strip() if isinstance(cell, str) else not _is_number(cell)


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _own(noted: Table | Plot, shared: Sequence[str]) -> list[str]:
    """The notes that stand below this table or plot alone."""
    return [note for note in noted.notes if note not in shared and note.strip()]


def _escape_start(start: re.Match[str]) -> str:
    """The start of a line that would begin a list, escaped."""
    text = start.group()
    return f"{text}\\" if text.isdecimal() else f"\\{text}"


def _prose(text: str) -> str:
    """A sentence as Markdown."""
    line = " ".join(text.split())
    return "".join(code(piece) if is_code else _escape_inside(piece)
                   for piece, is_code in prose(line))  # fmt: skip


def _escape_inside(piece: str) -> str:
    """A piece of a line, escaped, with the spaces at its ends."""
    before, after = " " * piece.startswith(" "), " " * piece.endswith(" ")
    return f"{before}{escape(piece)}{after}" if piece.strip() else " "


def _page_blocks(page: Page, pictures: Mapping[Key, tuple[str, str]]) -> list[str]:
    """Blocks of Markdown, each with its final newline."""
    result, shared = page.result, page.shared_notes()
    blocks = [f"### {escape(result.title) or page.anchor}\n"]
    blocks += [f"{_prose(part)}\n" for part in _paragraphs(result.summary)]
    for number, plot in enumerate(result.plots):
        if (page.anchor, number) in pictures:
            png, svg = pictures[page.anchor, number]
            blocks.append(f"[![{escape(plot.title)}]({png})]({svg})\n")
            blocks += _notes(_own(plot, shared))
    for table in result.tables:
        blocks += [f"**{escape(table.title) or 'Table'}**\n", _markdown_table(table)]
        blocks += _notes(_own(table, shared))
    return [*blocks, *_notes(shared), _provenance(result)]


def _markdown_table(table: Table) -> str:
    """A table's lines: numbers to the right, the best figures bold."""
    columns = [f"{each.name} ({each.unit})" if each.unit else each.name for each in table.columns]
    numbers = [holds_numbers(table, number) for number in range(len(columns))]
    lines = [list(map(escape, columns)), ["---:" if number else "---" for number in numbers]]
    for row in show(table):
        lines.append(
            [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in row]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _notes(notes: Sequence[str]) -> list[str]:
    return ["".join(f"- {_prose(note)}\n" for note in notes)] if notes else []


def _provenance(result: ResultPage) -> str:
    """Where the figures come from."""
    measured = f"Measured with {code(result.command)}" if result.command.strip() else "Measured"
    date = f", {escape(result.date)}" if result.date else ""
    versions = f" {escape(versions_text(result))}." if result.versions else ""
    return f"{measured}{date}. {escape(machine_text(result.machine))}.{versions}\n"


@cache
def _template() -> Any:
    """The page's template: it escapes all values, and fails on a missing one."""
    with needs("eval", "a page"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = prose
    return environment.get_template("page.html")


def _page_values(page: Page, svgs: Mapping[Key, str]) -> dict[str, Any]:
    """The template's values of a page."""
    from markupsafe import Markup

    result, shared = page.result, page.shared_notes()
    plots = []
    for number, plot in enumerate(result.plots):
        svg, prefix = svgs[page.anchor, number], f"{page.anchor}-{number + 1}"
        picture = Markup(inline_svg(svg, prefix=prefix, label=plot.title))  # drawn by us
        plots.append({"picture": picture, "notes": _own(plot, shared)})
    provenance = [
        ("Command", result.command, True),
        ("Machine", machine_text(result.machine), False),
        ("Versions", versions_text(result), False),
        ("Date", result.date, False),
    ]
    return {
        "anchor": page.anchor,
        "title": result.title,
        "summary": _paragraphs(result.summary),
        "plots": plots,
        "tables": [_table_values(table, shared) for table in result.tables],
        "notes": shared,
        "provenance": [(name, text, is_code) for name, text, is_code in provenance if text],
    }


def _table_values(table: Table, shared: Sequence[str]) -> dict[str, Any]:
    """The template's values of a table; a column's first sorting puts its best figure on top."""
    columns = [
        {
            "name": column.name,
            "unit": column.unit,
            "number": holds_numbers(table, number),
            "first": "descending" if column.best == "highest" else "ascending",
        }
        for number, column in enumerate(table.columns)
    ]
    return {
        "title": table.title,
        "wide": len(columns) >= WIDE,
        "columns": columns,
        "rows": show(table),
        "notes": _own(table, shared),
    }
