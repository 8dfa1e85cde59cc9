"""An HTML page → the text that its reader sees, laid out in lines and paragraphs.

Parsing is BeautifulSoup's; what is a block, a cell or invisible is decided here.
"""

from __future__ import annotations

import codecs
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_UNSEEN = {"script", "style", "template", "noscript", "head", "svg", "iframe", "object", "select"}
_PARAGRAPHS = {
    *("address", "article", "aside", "blockquote", "dl", "fieldset", "figure", "footer", "form"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre"),
    *("section", "table", "ul", "details"),
}
_LINES = {"body", "caption", "dd", "div", "dt", "figcaption", "html", "li", "summary", "tr"}
_CELLS = {"td", "th"}
_HTML_SPACE = re.compile(r"[ \t\n\r\f]+")


def declared_encoding(data: bytes) -> str | None:
    """The encoding that a page claims in its first lines, if Python has it."""
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    try:
        name = codecs.lookup(declared or "").name
    except LookupError:
        return None
    # What is declared as Latin-1 is Windows-1252, to every browser.
    return "cp1252" if name == "iso8859-1" else name


def visible(source: str) -> tuple[str, str]:
    """A page's visible text and its title, from its source."""
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it looks like XML, or like a path
        soup = BeautifulSoup(source, "html.parser")
    heading = soup.find("title") or soup.find("h1")
    title = _HTML_SPACE.sub(" ", heading.get_text()).strip() if heading else ""
    return _visible_text(soup), title


def _visible_text(soup: BeautifulSoup) -> str:
    """The text a reader sees. Without recursion: pages may be nested deeper than Python goes."""
    from bs4.element import CData, NavigableString, Tag

    page = _Page()
    # Nodes still to visit, and breaks (1 for a line, 2 for a paragraph) between them.
    ahead: list[tuple[Any, bool]] = [(soup, False)]
    while ahead:
        node, as_typed = ahead.pop()
        if isinstance(node, int):
            page.stop(node)
        elif type(node) in (NavigableString, CData):
            page.write(str(node), as_typed)
        elif isinstance(node, Tag) and node.name not in _UNSEEN and not node.has_attr("hidden"):
            if node.name == "br":
                page.write("\n", True)
            elif node.name in _CELLS:
                page.next_cell()
            stop = 2 if node.name in _PARAGRAPHS else 1 if node.name in _LINES else 0
            as_typed = as_typed or node.name in ("pre", "textarea")
            ahead.append((stop, False))
            ahead.extend((child, as_typed) for child in reversed(node.contents))
            ahead.append((stop, False))
    return "".join(page.parts).strip()


class _Page:
    """Text as it is laid out: white space runs together, blocks stand apart."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._stop = 0

    def stop(self, num_lines: int) -> None:
        """End the line (1) or the paragraph (2) before whatever comes next."""
        self._stop = max(self._stop, num_lines)

    def next_cell(self) -> None:
        """Set the next text off from the cell to its left."""
        if self.parts and not self._stop:
            self.write("\t", True)

    def write(self, text: str, as_typed: bool) -> None:
        """Add text, its white space as typed or as one blank."""
        if not as_typed:
            text = _HTML_SPACE.sub(" ", text)
            if self._stop or not self.parts or self.parts[-1].endswith((" ", "\n", "\t")):
                text = text.removeprefix(" ")
        if not text:
            return
        if self._stop and self.parts:
            self.parts[-1] = self.parts[-1].rstrip(" ")
            self.parts.append("\n" * self._stop)
        self._stop = 0
        self.parts.append(text)
