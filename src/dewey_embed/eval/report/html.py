"""Pages → one HTML file that needs nothing else: no request leaves it, all text is escaped.

Knows nothing of files: pages in, text out. `page.html` beside it is the template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from dewey_embed.eval.report.cells import holds_numbers, show
from dewey_embed.eval.report.pages import Group, Page, machine_text, versions_text
from dewey_embed.eval.result_page import Table
from dewey_embed.extras import needs

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
TITLE = "Dewey: what was measured"


def to_html(groups: Sequence[Group], svgs: Mapping[tuple[str, int], str]) -> str:
    """The page; `svgs` holds its plots by a page's anchor and a plot's number from 0.

    Raises:
        MissingDependencyError: jinja2 is not installed.

    """
    shown = [
        {
            "title": group.title,
            "pages": [_page(page, svgs) for page in group.pages],
        }
        for group in groups
    ]
    return _template().render(title=TITLE, groups=shown)


@cache
def _template() -> Template:
    """The page's template: escapes all it is given, and refuses to show what it is not."""
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
    return environment.get_template("page.html")


def inline_svg(svg: str, *, prefix: str, label: str) -> str:
    """An SVG file's picture as part of a page: named for those who do not see it.

    Its ids begin with `prefix`, so that two pictures have none in common; what sets its size and
    the style of all elements goes: the page's own style decides.
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


def _page(page: Page, svgs: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """What the template shows of a page."""
    findings, shared = page.findings, page.shared_notes()
    plots = []
    for number, plot in enumerate(findings.plots):
        svg, prefix = svgs[page.anchor, number], f"{page.anchor}-{number + 1}"
        picture = inline_svg(svg, prefix=prefix, label=plot.title)
        plots.append({"picture": _markup(picture), "notes": _own(plot.notes, shared)})
    made = [
        ("Command", findings.command, True),
        ("Machine", machine_text(findings.machine), False),
        ("Versions", versions_text(findings), False),
        ("Date", findings.date, False),
    ]
    return {
        "anchor": page.anchor,
        "title": findings.title,
        "summary": [part for part in re.split(r"\n\s*\n", findings.summary) if part.strip()],
        "plots": plots,
        "tables": [_table(table, shared) for table in findings.tables],
        "notes": shared,
        "made": [(name, text, code) for name, text, code in made if text],
    }


def _table(table: Table, shared: Sequence[str]) -> dict[str, Any]:
    """What the template shows of a table; a column's first sorting puts its best figure on top."""
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
        "columns": columns,
        "rows": show(table),
        "notes": _own(table.notes, shared),
    }


def _own(notes: Sequence[str], shared: Sequence[str]) -> list[str]:
    """Notes that stand here alone."""
    return [note for note in notes if note not in shared]


def _markup(text: str) -> Markup:
    """Text that is markup already: a picture that we drew ourselves."""
    from markupsafe import Markup

    return Markup(text)
