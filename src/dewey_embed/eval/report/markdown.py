"""Pages → Markdown, for READMEs and `docs/results.md`; plots as links to their files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dewey_embed.eval.report.cells import holds_numbers, show
from dewey_embed.eval.report.pages import Group, Page, machine_text, versions_text
from dewey_embed.eval.result_page import Column, ResultPage, Table

HEAD = """\
<!-- Written by `dewey report` from result files: change those, not this. -->
# Results

Every figure comes from a file that a command wrote; command, machine and versions stand under it.
A dash is a figure that was not measured.
"""

# Escaped wherever they stand; underscores only outside words, where they would be markup.
SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<!\w)_|_(?!\w)")
LINE_START = re.compile(r"^([+-](?=\s|-|$)|=|\d+(?=[.)](?:\s|$)))")


def to_markdown(
    groups: Sequence[Group], pictures: Mapping[tuple[str, int], tuple[str, str]]
) -> str:
    """The report as Markdown.

    `pictures` holds, by a page's anchor and a plot's number from 0, the addresses of its PNG and
    its SVG as seen from the file; a plot that has none is left out.
    """
    parts = [HEAD]
    for group in groups:
        parts.append(f"## {escape(group.title)}\n")
        for page in group.pages:
            parts += _page(page, pictures)
    return "\n".join(parts)


def page_to_markdown(findings: ResultPage) -> str:
    """One page by itself, without its plots: what a terminal shows."""
    return "\n".join(_page(Page("page", findings), {})).rstrip("\n")


def escape(text: str) -> str:
    """Text in one line that means itself in Markdown, in a table as elsewhere."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = SPECIAL.sub(r"\\\g<0>", line)
    return LINE_START.sub(_escape_start, line)


def code(text: str) -> str:
    """Text as code, whatever backticks it holds."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}" if line else ""


def _escape_start(found: re.Match[str]) -> str:
    """What would begin a list, so that it does not."""
    start = found.group()
    return f"{start}\\" if start.isdecimal() else f"\\{start}"


def _page(page: Page, pictures: Mapping[tuple[str, int], tuple[str, str]]) -> list[str]:
    """Blocks of a page, each with its final newline."""
    findings, shared = page.findings, page.shared_notes()
    blocks = [f"### {escape(findings.title) or page.anchor}\n"]
    for part in re.split(r"\n\s*\n", findings.summary):
        if part.strip():
            blocks.append(f"{escape(part)}\n")
    for number, plot in enumerate(findings.plots):
        if (page.anchor, number) in pictures:
            png, svg = pictures[page.anchor, number]
            blocks.append(f"[![{escape(plot.title)}]({png})]({svg})\n")
            blocks += _notes(plot.notes, shared)
    for table in findings.tables:
        blocks.append(f"**{escape(table.title) or 'Table'}**\n")
        blocks.append(_table(table))
        blocks += _notes(table.notes, shared)
    blocks += _notes(shared, ())
    blocks.append(_made(findings))
    return blocks


def _table(table: Table) -> str:
    """A table's lines: numbers to the right, the best figures bold."""
    numbers = [holds_numbers(table, number) for number in range(len(table.columns))]
    lines = [
        _row([_heading(column) for column in table.columns]),
        _row(["---:" if is_number else "---" for is_number in numbers]),
    ]
    for row in show(table):
        cells = [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in row]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(column: Column) -> str:
    return escape(f"{column.name} ({column.unit})" if column.unit else column.name)


def _notes(notes: Sequence[str], shared: Sequence[str]) -> list[str]:
    """Notes as one block; those that are shared stand elsewhere."""
    own = [escape(note) for note in notes if note not in shared and note.strip()]
    return ["\n".join(f"- {note}" for note in own) + "\n"] if own else []


def _made(findings: ResultPage) -> str:
    """Where the figures come from."""
    made = f"Measured with {code(findings.command)}" if findings.command.strip() else "Measured"
    date = f", {escape(findings.date)}" if findings.date else ""
    versions = f" {escape(versions_text(findings))}." if findings.versions else ""
    return f"{made}{date}. {escape(machine_text(findings.machine))}.{versions}\n"
