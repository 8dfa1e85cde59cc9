"""An HTML page → the text in its elements, laid out in lines and paragraphs.

Parsing is lexbor's, by HTML5's rules; which elements are blocks, cells or invisible is decided
here. Left out are scripts, styles and the like, and elements with the attribute `hidden`. What only
a style sheet hides (`display: none`) is read, and so are heads and feet of pages; menus (`nav`) are
only read where nothing else is there.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.text.encodings import Decoded, declared, decode
from dewey_embed.text.headings import MAX_TITLE
from dewey_embed.text.inputs import Content
from dewey_embed.text.lines import in_one_line
from dewey_embed.text.markup import usable
from dewey_embed.types import Landmark

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_NEVER_TEXT = {"script", "style", "head", "title"}
_UNSEEN = _NEVER_TEXT | {"template", "noscript", "svg", "iframe", "object", "select"}
_MENU = "nav"
_PARAGRAPHS = {
    *("address", "article", "aside", "blockquote", "dl", "fieldset", "figure", "footer", "form"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre"),
    *("section", "table", "ul", "details", "plaintext"),
}
_LINES = {"body", "caption", "dd", "div", "dt", "figcaption", "html", "li", "summary", "tr"}
_LINES |= {"option", "textarea"}
_CELLS = {"td", "th"}
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
# The headings in one of these say nothing of what follows it.
_SECTIONS = {"article", "aside", "blockquote", "details", "fieldset", "figure", "footer"}
_SECTIONS |= {"dialog", "li", "nav", "section"}
_UNSHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
# A link to the heading itself, at its end.
_OWN_LINK = re.compile("\\s*[¶\uf0c1🔗]+$")
_AS_TYPED = {"pre", "textarea", "plaintext", "xmp", "listing"}
_HTML_SPACE = re.compile(r"[ \t\n\r\f]+")
_ONE_BYTE = re.compile(r"ascii|cp(?:125|866|874)|iso8859|koi8|mac")
_DECLARED = re.compile(
    rb"<meta\b[^<>]{0,500}?\bcharset\s*=\s*[\"']?\s*([\w.:-]{1,40})"
    rb"|^\s{0,100}<\?xml\b[^<>]{0,200}?\bencoding\s*=\s*[\"']([\w.:-]{1,40})",
    re.IGNORECASE,
)


def read_html(data: bytes) -> Content:
    """A page's visible text, blocks on lines of their own, and its `<title>` or first `<h1>`.

    Raises:
        ReadError: the page shows no text.

    """
    source = decoded(data)
    page = visible(source.text)
    if not page.text and source.text.strip():
        raise ReadError(
            f"a page of {len(data):,} bytes without visible text; if scripts write its text, save "
            "it from a browser as text or .pdf"
        )
    return Content(page.text, page.title, source.unread, landmarks=page.headings)


def decoded(data: bytes) -> Decoded:
    """A page's source, in the encoding that it declares unless that is false."""
    found = _DECLARED.search(data, 0, 65_536)
    name = declared((found[1] or found[2]).decode("ascii")) if found else None
    marked = data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if name and 0 not in data and not marked:
        # valid UTF-8 with characters of several bytes is not in an encoding of single bytes
        for encoding in ("utf-8", name) if _ONE_BYTE.match(name) else (name,):
            with contextlib.suppress(UnicodeError):
                return Decoded(data.decode(encoding))
    return decode(data)


class Visible(NamedTuple):
    """A page's text, its title, and its headings as landmarks of the text."""

    text: str
    title: str
    headings: list[Landmark]


def visible(source: str, *, with_menus: bool = True) -> Visible:
    """A page's text, title and headings, from its source.

    Where a page has no other text, its menus are read (unless not `with_menus`), or else its hidden
    text: a page made for scripts often holds its text in `<noscript>` or `<template>`.
    """
    from selectolax.lexbor import LexborHTMLParser

    parser = LexborHTMLParser(_flattened(_closed(source)))
    titles = [parser.css_first("head title"), parser.css_first("h1")]
    title = next(filter(None, [usable(each.text()) for each in titles if each]), "")
    if parser.root is None:
        return Visible("", title, [])
    page = _laid_out(parser.root, _UNSEEN | {_MENU})
    for unseen in (_UNSEEN, _NEVER_TEXT) if with_menus else (_NEVER_TEXT | {_MENU},):
        page = page if page.text() else _laid_out(parser.root, unseen)
    return Visible(page.text(), title, page.headings())


# Elements whose end HTML5 does not imply: left open, they take all that comes after them.
_SWALLOWING = "nav|title|textarea|iframe|noembed|noframes|noscript|xmp|template|svg|object|select"
_SWALLOWING_TAG = re.compile(rf"<(/?)({_SWALLOWING})\b(?:[^<>]*?(/?)>)?", re.IGNORECASE | re.ASCII)
_CODE_TAG = re.compile(
    r"<(/?)(script|style)\b(?:[^<>]*?(?:(/)>|>[^<]*))?", re.IGNORECASE | re.ASCII
)
_PLAINTEXT_TAG = re.compile(r"</?plaintext\b[^<>]*>", re.IGNORECASE | re.ASCII)


def _closed(source: str) -> str:
    """A page's source without the tags and marks that are opened and never closed.

    A browser lets such an element take the rest of the page; here the rest is text.
    """
    end = source.rfind("-->") + 1
    source = source[:end] + source[end:].replace("<!--", "")
    source = _without(source, _unclosed(source, _SWALLOWING_TAG))
    source = _without(source, _unclosed(source, _CODE_TAG, only_last=True))
    return _PLAINTEXT_TAG.sub(" ", source)


def _unclosed(
    source: str, tags: re.Pattern[str], *, only_last: bool = False
) -> list[tuple[int, int]]:
    """Spans of the opening tags that no closing tag answers, and of those that close themselves.

    `only_last`: only those after the last closing tag, for code may hold tags in its strings.
    """
    spans: list[tuple[int, int]] = []
    opened: dict[str, list[tuple[int, int]]] = {}
    for tag in tags.finditer(source):
        name = tag[2].lower()
        mine = opened.setdefault(name, [])
        if tag[1]:
            if only_last:
                mine.clear()
            elif mine:
                mine.pop()
        elif tag[3]:
            spans.append(tag.span())
        else:
            mine.append(tag.span())
    return sorted(spans + [span for mine in opened.values() for span in mine])


def _without(source: str, spans: list[tuple[int, int]]) -> str:
    """The source with a blank in place of each span."""
    parts = []
    start = 0
    for span in spans:
        parts.append(source[start : span[0]])
        start = span[1]
    return " ".join([*parts, source[start:]])


MAX_DEPTH = 500
"""Elements within elements, about as many as browsers keep: the time of HTML5's rules for every tag
grows with the depth."""
MAX_INLINE = 60
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)(?=[\s/>])[^<>]*>", re.ASCII)
# Parsers compare each attribute of a tag with all before it.
_MANY_ATTRIBUTES = re.compile(
    r"(<[a-zA-Z][\w-]*+)"
    r"(?:\s++[^\s<>\"'=/]++(?:\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s<>\"']++))?+){1000,}+"
)
_VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param"),
    *("source", "track", "wbr"),
}
_INLINE = {
    *("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "span", "strike"),
    *("strong", "tt", "u", "label", "abbr", "cite", "ins", "del", "mark", "q", "sub", "sup"),
}
_ENDS_ITSELF = {
    *("p", "li", "td", "th", "tr", "dt", "dd", "option", "optgroup", "thead", "tbody", "tfoot"),
    *("colgroup", "rp", "rt", "html", "head", "body"),
}


def _flattened(source: str) -> str:
    """A page's source without the tags that stand deeper than `MAX_DEPTH`, a line end for each."""
    source = _MANY_ATTRIBUTES.sub(r"\1", source)
    if source.count("<") <= MAX_INLINE:
        return source
    opened: Counter[str] = Counter()
    depth = {True: 0, False: 0}
    spans: list[tuple[int, int, str]] = []
    for tag in _TAG.finditer(source):
        name = tag[2].lower()
        if name in _VOID or name in _ENDS_ITSELF or name in _UNSEEN:
            continue
        inline = name in _INLINE
        if not tag[1]:
            opened[name] += 1
            depth[inline] += 1
            too_deep = depth[inline] > (MAX_INLINE if inline else MAX_DEPTH)
        elif opened[name]:
            too_deep = depth[inline] > (MAX_INLINE if inline else MAX_DEPTH)
            opened[name] -= 1
            depth[inline] -= 1
        else:
            continue
        if too_deep:
            spans.append((*tag.span(), "" if inline else "<br>"))
    parts = []
    start = 0
    for begin, end, instead in spans:
        parts += [source[start:begin], instead]
        start = end
    return "".join([*parts, source[start:]]) if spans else source


def _laid_out(root: LexborNode, unseen: set[str]) -> _Page:
    """The text below a node, without recursion: pages may be nested deeper than Python goes."""
    page = _Page()
    typed = 0  # how many elements around the node keep white space
    node: LexborNode | None = root
    depth = 0
    while node is not None:
        inside = None
        if node.is_text_node:
            page.write(node.text(), typed > 0)
        elif node.is_comment_node:
            page.write(_character_data(node), typed > 0)
        elif node.is_element_node and _is_seen(node, unseen):
            typed += node.tag in _AS_TYPED
            _enter(page, node)
            inside = node.child
            if inside is None:
                typed -= node.tag in _AS_TYPED
                _leave(page, node)
        if inside is not None:
            node, depth = inside, depth + 1
            continue
        while node is not None and depth and node.next is None:
            node, depth = node.parent, depth - 1
            if node is not None:
                typed -= node.tag in _AS_TYPED
                _leave(page, node)
        node = node.next if node is not None and depth else None
    return page


def _is_seen(node: LexborNode, unseen: set[str]) -> bool:
    """Whether an element's text is read."""
    if node.tag in unseen or (_MENU in unseen and node.attributes.get("role") == "navigation"):
        return False
    return "template" not in unseen or "hidden" not in node.attributes


def _enter(page: _Page, node: LexborNode) -> None:
    """Lay out the beginning of an element."""
    tag = node.tag or ""
    if tag == "br":
        page.write("\n", True)
    elif tag in _CELLS:
        page.next_cell()
    page.stop(_breaks(tag))
    if _is_heading(node):
        page.begin_heading(int(tag[1]))
    elif _is_section(node):
        page.begin_section()
    if tag == "footer" and node.parent is not None and node.parent.tag == "body":
        page.end_headings()


def _leave(page: _Page, node: LexborNode) -> None:
    """Lay out the end of an element."""
    page.stop(_breaks(node.tag))
    if _is_heading(node):
        page.end_heading()
    elif _is_section(node):
        page.end_section()


def _is_heading(node: LexborNode) -> bool:
    """Whether an element is a heading that is seen."""
    return node.tag in _HEADINGS and not _UNSHOWN.search(node.attributes.get("style") or "")


def _is_section(node: LexborNode) -> bool:
    """Whether the headings in an element say nothing of what follows it: also a cell of several."""
    if node.tag not in _CELLS:
        return node.tag in _SECTIONS
    before, after = node.prev, node.next
    while before is not None and not before.is_element_node:
        before = before.prev
    while after is not None and not after.is_element_node:
        after = after.next
    return before is not None or after is not None


def _breaks(tag: str | None) -> int:
    """Line ends between an element and its neighbours: 2 for a paragraph, 1 for a line."""
    return 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0


def _character_data(node: LexborNode) -> str:
    """The text of a CDATA section, which HTML5 takes for a comment."""
    content = node.comment_content or ""
    return content.removeprefix("[CDATA[").removesuffix("]]") if "[CDATA[" in content[:8] else ""


class _Heading(NamedTuple):
    """A heading's level, and its parts of a page's text; without parts, the end of a section.

    Level 0 is the end of all. `again` is a later part where what follows is about it again.
    """

    level: int
    start: int
    end: int
    again: int | None = None


class _Page:
    """Text as it is laid out: white space runs together, blocks stand apart."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._stop = 0
        self._headings: list[_Heading] = []
        self._begun: list[tuple[int, int]] = []  # open headings: level and first part
        self._above: list[_Heading] = []
        # of each open one, how many headings there were before, and which it stands under
        self._sections: list[tuple[int, list[_Heading]]] = []

    def text(self) -> str:
        """The text."""
        return "".join(self._parts).strip()

    def headings(self) -> list[Landmark]:
        """Landmarks of the text where its headings begin, and where a section of them ends."""
        whole = "".join(self._parts)
        before = len(whole) - len(whole.lstrip())
        ends = [0, *accumulate(map(len, self._parts))]
        found = []
        for level, first, last, again in self._headings:
            words = whole[ends[first] : ends[last]]
            char = ends[first] + len(words) - len(words.lstrip()) if again is None else ends[again]
            label = _OWN_LINK.sub("", in_one_line(words)) if len(words) <= MAX_TITLE else ""
            found.append(Landmark(max(char - before, 0), "heading", level, label))
        found.sort(key=lambda each: each.char)
        return [each for each in found if each.char < len(whole.strip())]

    def begin_heading(self, level: int) -> None:
        """Begin a heading with the next text."""
        self._begun.append((level, len(self._parts)))

    def end_heading(self) -> None:
        """End the heading that was begun last."""
        level, start = self._begun.pop()
        heading = _Heading(level, start, len(self._parts))
        self._headings.append(heading)
        self._above = [each for each in self._above if each.level < level] + [heading]

    def begin_section(self) -> None:
        """Begin what the headings to come are about."""
        self._sections.append((len(self._headings), self._above))

    def end_section(self) -> None:
        """End what the headings since its beginning are about, and go on under those before."""
        num_before, self._above = self._sections.pop()
        inside = self._headings[num_before:]
        if inside:
            here = len(self._parts)
            widest = min(each.level for each in inside)
            self._headings.append(_Heading(widest, here, here))
            self._headings += [
                each._replace(again=here) for each in self._above if each.level >= widest
            ]

    def end_headings(self) -> None:
        """End what all headings are about."""
        self._above = []
        self._headings.append(_Heading(0, len(self._parts), len(self._parts)))

    def stop(self, num_lines: int) -> None:
        """End the line (1) or the paragraph (2) before the next text."""
        self._stop = max(self._stop, num_lines)

    def next_cell(self) -> None:
        """Set the next text off from the cell to its left."""
        if self._parts and not self._stop:
            self.write("\t", True)

    def write(self, text: str, as_typed: bool) -> None:
        """Add text, its white space as typed or as one blank."""
        if not as_typed:
            text = _HTML_SPACE.sub(" ", text)
            if self._stop or not self._parts or self._parts[-1].endswith((" ", "\n", "\t")):
                text = text.removeprefix(" ")
        if not text:
            return
        if self._stop and self._parts:
            self._parts[-1] = self._parts[-1].rstrip(" ")
            self._parts.append("\n" * self._stop)
        self._stop = 0
        self._parts.append(text)
