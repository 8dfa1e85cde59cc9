"""An EPUB book → the text of its chapters, in the order in which they are read."""

from __future__ import annotations

import contextlib
import posixpath
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple
from urllib.parse import unquote

from dewey_embed.errors import ReadError
from dewey_embed.text.headings import MAX_TITLE
from dewey_embed.text.html import Visible, decoded, visible
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.lines import in_one_line, moved
from dewey_embed.text.markup import usable
from dewey_embed.text.packages import DAMAGE, opened, part_bytes, refuse_too_long, xml_part
from dewey_embed.types import Landmark

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
# These only disguise fonts.
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_PAGE_TYPES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_DC = "{http://purl.org/dc/elements/1.1/}"
_OPS_TYPE = "{http://www.idpf.org/2007/ops}type"
_BETWEEN_CHAPTERS = "\n\n"
# In XML, any element may close itself; a parser of HTML takes its tag for an opened one.
_CLOSES_ITSELF = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)((?:\s[^<>]*)?)/>")
_VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}


class _Entry(NamedTuple):
    """A line of the table of contents: its depth, from 1, words, and place within the file."""

    depth: int
    label: str
    fragment: str


class _Contents(NamedTuple):
    """The table of contents: its file, and its lines by the file that they lead to."""

    name: str = ""
    entries: Mapping[str, Sequence[_Entry]] = {}


class _Book(NamedTuple):
    """What the package document of a book says, with the names of files in the archive."""

    title: str
    author: str
    chapters: Sequence[str]
    beside: Collection[str]  # of the chapters, those outside the reading order
    contents: _Contents


def read_epub(stream: IO[bytes], limits: ReadLimits) -> Content:
    """A book's chapters with a blank line between; its authors are its metadata `author`.

    The headings are those of the chapters; one that has none stands under its line of the table of
    contents, and one that this does not name goes on as the one before it. Tables of contents
    and pages outside the reading order are only read where nothing else is there. These pages and
    chapters that are missing, damaged or encrypted are counted.

    Raises:
        ReadError: it is damaged, protected against copying, or without text.

    """
    with opened(stream, "an EPUB book (.epub)") as package:
        return _content(package, limits)


def _content(package: zipfile.ZipFile, limits: ReadLimits) -> Content:
    book = _book(package, limits)
    encrypted = _encrypted(package, limits)
    if book.chapters and encrypted.issuperset(book.chapters):
        raise ReadError(
            "protected against copying (DRM), so that only its own program can read it; get it "
            "without protection to have it read"
        )
    refuse_too_long(package, book.chapters, limits)
    content = _read(package, book, encrypted, limits)
    if not content.text:
        beside = book._replace(beside=())
        content = _read(package, beside, encrypted, limits, with_menus=True)
    if not content.text:
        raise ReadError("a book without text; if its pages are pictures, run OCR over it")
    return content


def _read(
    package: zipfile.ZipFile,
    book: _Book,
    encrypted: set[str],
    limits: ReadLimits,
    *,
    with_menus: bool = False,
) -> Content:
    """The text of a book's chapters.

    Raises:
        ReadError: it is longer than the limit.

    """
    texts: list[str] = []
    landmarks: list[Landmark] = []
    unread: Counter[str] = Counter()
    length = shift = 0
    goes_on = False  # from a chapter that the table of contents names
    for name in book.chapters:
        if name in encrypted:
            unread["encrypted chapters"] += 1
            continue
        try:
            page = _page(part_bytes(package, name, limits), with_menus=with_menus)
        except DAMAGE:
            unread["damaged chapters"] += 1
            continue
        is_contents = name == book.contents.name
        if not page.text or (is_contents and not with_menus and _is_titled_only(page)):
            goes_on = goes_on and not is_contents
            continue
        if name in book.beside:
            unread["pages outside the reading order"] += 1
            continue
        entries = book.contents.entries.get(name, ())
        shift = _shift(page, entries, shift)
        landmarks += moved(_headings(page, entries, shift, goes_on), length)
        goes_on = (goes_on or bool(entries)) and not is_contents
        texts.append(page.text)
        length += len(page.text) + len(_BETWEEN_CHAPTERS)
        if length > limits.max_text_bytes:
            raise ReadError(f"its text is {limits.too_long()}")
    return Content(
        _BETWEEN_CHAPTERS.join(texts),
        book.title,
        dict(unread),
        metadata={"author": book.author} if book.author else {},
        landmarks=landmarks,
    )


def _page(data: bytes, *, with_menus: bool) -> Visible:
    """The text of a chapter."""
    return visible(_CLOSES_ITSELF.sub(_closed, decoded(data).text), with_menus=with_menus)


def _is_titled_only(page: Visible) -> bool:
    """Whether a page has no text but headings."""
    return {in_one_line(line) for line in page.text.split("\n")} <= {
        "",
        *(each.label for each in page.headings),
    }


def _closed(tag: re.Match[str]) -> str:
    """A tag that closes itself, as HTML has it."""
    return tag[0] if tag[1].lower() in _VOID else f"<{tag[1]}{tag[2]}></{tag[1]}>"


def _shift(page: Visible, entries: Sequence[_Entry], before: int) -> int:
    """How much deeper a chapter's headings are than their tags say, by the table of contents.

    A part of a chapter, which the table does not name, goes on as the part before it.
    """
    levels = [each.number for each in page.headings if each.label]
    return max(entries[0].depth - min(levels), 0) if levels and entries else before


def _headings(
    page: Visible, entries: Sequence[_Entry], shift: int, goes_on: bool
) -> Iterator[Landmark]:
    """The headings of a chapter; what comes before the first stands under none but its own."""
    first = next((each.char for each in page.headings if each.label), -1)
    if first != 0:
        if entries and not entries[0].fragment:
            yield Landmark(0, "heading", entries[0].depth, entries[0].label)
        elif entries:  # somewhere in this chapter
            yield Landmark(0, "heading", min(each.depth for each in entries))
        elif not goes_on:
            yield Landmark(0, "heading", 0)
    for each in page.headings:
        yield each._replace(number=each.number + shift)


def _book(package: zipfile.ZipFile, limits: ReadLimits) -> _Book:
    """What the package document says.

    Raises:
        ReadError: there is none, or it is damaged.

    """
    roots = [
        node.get("full-path", "")
        for node in _named(xml_part(package, _CONTAINER, limits), "rootfile")
    ]
    if not roots:
        raise ReadError("a damaged EPUB book: its container names no package document")
    root = xml_part(package, roots[0], limits)
    files = _files(package, posixpath.dirname(roots[0]))
    items = {node.get("id", ""): node for node in _named(root, "item")}
    chapters: dict[str, bool] = {}  # whether any reference has it in the reading order
    for node in _named(root, "itemref"):
        if (item := items.get(node.get("idref", ""))) is not None and _is_page(item):
            name = files.name(item.get("href", ""))
            chapters[name] = chapters.get(name, False) or node.get("linear") != "no"
    titles = [usable("".join(node.itertext())) for node in root.iter(_DC + "title")]
    authors = [in_one_line("".join(node.itertext())) for node in root.iter(_DC + "creator")]
    return _Book(
        next(filter(None, titles), ""),
        ", ".join(filter(None, authors)),
        list(chapters),
        {name for name, is_read in chapters.items() if not is_read},
        _contents(package, files, items.values(), limits),
    )


class _Files(NamedTuple):
    """The files of an archive, by the references to them from one folder of it."""

    names: Mapping[str, str]
    folder: str

    def name(self, reference: str) -> str:
        """The name of a file in the archive, as that writes it."""
        path = posixpath.normpath(posixpath.join(self.folder, unquote(reference)))
        return self.names.get(path.lower(), path)


def _files(package: zipfile.ZipFile, folder: str) -> _Files:
    return _Files({name.lower(): name for name in package.namelist()}, folder)


def _named(root: Any, name: str) -> Iterator[Any]:
    """The elements of a name, whatever their namespace."""
    yield from root.iter(f"{{*}}{name}")


def _is_page(item: Any) -> bool:
    """Whether a chapter is a page, not a picture."""
    kind = item.get("media-type", "")
    return kind in _PAGE_TYPES or item.get("href", "").lower().endswith((".xhtml", ".html", ".htm"))


def _encrypted(package: zipfile.ZipFile, limits: ReadLimits) -> set[str]:
    """The names of the files that are encrypted, disguised fonts aside."""
    if _ENCRYPTION not in package.namelist():
        return set()
    files = _files(package, "")
    found = set()
    for node in _named(xml_part(package, _ENCRYPTION, limits), "EncryptedData"):
        methods = {each.get("Algorithm") for each in _named(node, "EncryptionMethod")}
        if not methods <= set(_FONT_ALGORITHMS):
            found |= {files.name(each.get("URI", "")) for each in _named(node, "CipherReference")}
    return found


def _contents(
    package: zipfile.ZipFile, files: _Files, items: Iterable[Any], limits: ReadLimits
) -> _Contents:
    """The first table of contents that leads to any file."""
    for is_table, lines in (
        (lambda item: "nav" in item.get("properties", "").split(), _lines_of_page),
        (lambda item: item.get("media-type") == "application/x-dtbncx+xml", _lines_of_ncx),
    ):
        for item in filter(is_table, items):
            name = files.name(item.get("href", ""))
            beside = files._replace(folder=posixpath.dirname(name))
            found: dict[str, list[_Entry]] = defaultdict(list)
            with contextlib.suppress(*DAMAGE):  # the chapters have headings of their own
                for depth, label, reference in lines(xml_part(package, name, limits)):
                    path, _, fragment = reference.partition("#")
                    if path:
                        words = label if len(label) <= MAX_TITLE else ""
                        found[beside.name(path)].append(_Entry(depth, words, fragment))
            if found:
                return _Contents(name, found)
    return _Contents()


def _lines_of_page(root: Any) -> Iterator[tuple[int, str, str]]:
    """Depth, words and reference of each line of a table of contents of EPUB 3."""
    for table in _named(root, "nav"):
        if "toc" in table.get(_OPS_TYPE, "").split():
            for link in _named(table, "a"):
                depth = sum(1 for _ in link.iterancestors("{*}ol"))
                yield max(depth, 1), in_one_line("".join(link.itertext())), link.get("href", "")


def _lines_of_ncx(root: Any) -> Iterator[tuple[int, str, str]]:
    """The same of EPUB 2."""
    for point in _named(root, "navPoint"):
        depth = 1 + sum(1 for _ in point.iterancestors("{*}navPoint"))
        label = point.find("{*}navLabel")
        content = point.find("{*}content")
        if content is not None:
            words = "" if label is None else in_one_line("".join(label.itertext()))
            yield depth, words, content.get("src", "")
