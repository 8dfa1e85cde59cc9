"""The headings of Markdown and reStructuredText, each where its line begins."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.types import Landmark

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_TITLE = 1000
"""Characters of a title or heading; a longer one is a paragraph in the wrong place."""

_SECTION_CHARS = 500_000
_HTML_HEADING = re.compile(
    r"<h([1-6])\b[^<>]*>((?:[^<]|<(?!/?h[1-6]\b)){0,2000}+)</h\1\s*>", re.IGNORECASE
)
_NOT_HTML = re.compile(r"\s*<(?:!--|pre|script|style|textarea)", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"[ \t]*\{[#.][^{}]*\}[ \t]*$")


class _Line(NamedTuple):
    """A line of a text without its end, and the character at which it begins."""

    char: int
    text: str


def _lines(text: str) -> Iterator[_Line]:
    char = 0
    for line in io.StringIO(text, newline=""):
        yield _Line(char, line.rstrip("\r\n"))
        char += len(line)


def markdown_headings(text: str, section_chars: int = _SECTION_CHARS) -> list[Landmark]:
    r"""The headings of Markdown with tables, but those in quotations and lists.

    So that a long text takes little memory, about `section_chars` of it are parsed at a time.

    >>> found = markdown_headings("# Rent\n\nLate *payment*\n---")
    >>> [(each.number, each.label) for each in found]
    [(1, 'Rent'), (2, 'Late payment')]
    """
    parser = _parser()
    references: dict[str, Any] = {}
    headings = [*_blocks_of_headings(parser, text, references, section_chars)]
    return [
        Landmark(char, "heading", level, _words(parser, source, references))
        for char, level, source in headings
    ]


@cache
def _parser() -> MarkdownIt:
    """A parser of blocks; words are parsed where they are those of a heading."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").disable("inline")


def _blocks_of_headings(
    parser: MarkdownIt, text: str, references: dict[str, Any], section_chars: int
) -> Iterator[tuple[int, int, str]]:
    """The character, level and source of each heading; the links' definitions are collected."""
    start, size = 0, section_chars
    while start < len(text):
        end = text.find("\n", start + size) + 1 or len(text)
        section = text[start:end]
        chars = [line.char for line in _lines(section)]
        tokens = parser.parse(section, references)
        blocks = [token.map[0] for token in tokens if token.level == 0 and token.map]
        # the last block may go on after the section
        done = chars[blocks[-1]] if blocks and end < len(text) else len(section)
        if not done or (not blocks and end < len(text) and section.strip()):
            size *= 2
            continue
        for line, level, words in _in_tokens(tokens):
            if chars[line] < done:
                yield start + chars[line], level, words
        start, size = start + done, section_chars


def _in_tokens(tokens: Sequence[Token]) -> Iterator[tuple[int, int, str]]:
    """The line, level and source of each heading, also of those that are written in HTML."""
    for token, words in pairwise([*tokens, *tokens[-1:]]):
        if token.level or not token.map:
            continue
        if token.type == "heading_open":
            yield token.map[0], int(token.tag[1:]), words.content
        elif token.type == "html_block" and not _NOT_HTML.match(token.content):
            for found in _HTML_HEADING.finditer(token.content):
                line = token.map[0] + token.content.count("\n", 0, found.start())
                yield line, int(found[1]), " ".join(found[2].split())


def _words(parser: MarkdownIt, source: str, references: dict[str, Any]) -> str:
    """What is seen of a heading, or nothing where it is too long for one."""
    if len(source) > MAX_TITLE:
        return ""
    tokens: list[Token] = []
    parser.inline.parse(_ATTRIBUTES.sub("", source), parser, references, tokens)
    return " ".join("".join(map(_seen, tokens)).split())


def _seen(token: Token) -> str:
    """What is seen of an element within a line."""
    if token.children:
        return "".join(map(_seen, token.children))
    if token.type in ("softbreak", "hardbreak"):
        return " "
    return "" if token.type == "html_inline" else token.content


_MARKED = re.compile(
    r"""
    ``(?=\S)([^`]+)``
    | (?::[\w.:+-]+:)?`(?=[^\s<])([^`<]+?)(?:\s+<[^`<>]+>)?`_{0,2}
    | \*\*(?=\S)([^*]+)(?<=\S)\*\*
    | \*(?=\S)([^*]+)(?<=\S)\*
    | \\([^\w\s])
    """,
    re.VERBOSE,
)
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1*[ \t]*")
# An item, a line block, code with its answers, a table, a field, a comment or a link's target.
_OTHER_BLOCK = re.compile(
    r"(?:[-*+•‣⁃|]|>>>|\.\.|__|:(?![: ])[^:]*(?<! ):)(?:\s|$)|\+[-=]+\+|=+(?: +=+)+$"
)


def restructured_headings(text: str) -> Iterator[Landmark]:
    r"""The underlined lines of reStructuredText; each new way to draw the line is a level deeper.

    >>> found = restructured_headings("Rent\n====\n\nDue\n---\n")
    >>> [(each.number, each.label) for each in found]
    [(1, 'Rent'), (2, 'Due')]
    """
    styles: list[tuple[str, bool]] = []
    above, before = _Line(0, ""), _Line(0, "")
    for line in _lines(text):
        words = before.text.strip()
        rule = _RULE.fullmatch(line.text) if words and not _RULE.fullmatch(before.text) else None
        has_overline = bool(_RULE.fullmatch(above.text))
        if rule and has_overline:
            rule = rule if above.text.rstrip() == line.text.rstrip() else None
        elif rule and (
            above.text.strip() or before.text[:1].isspace() or _OTHER_BLOCK.match(words)
        ):
            rule = None  # a line of a paragraph or of another block
        if rule and len(words) <= MAX_TITLE and len(rule[0].rstrip()) >= min(_width(words), 4):
            style = (rule[1], has_overline)
            if style not in styles:
                styles.append(style)
            char = above.char if has_overline else before.char
            label = " ".join(_MARKED.sub(_without_marks, words).split())
            yield Landmark(char, "heading", styles.index(style) + 1, label)
            above, before = _Line(0, ""), _Line(0, "")
        else:
            above, before = before, line


def _without_marks(found: re.Match[str]) -> str:
    """What is seen of a code, role, link or strong word within a line."""
    return str(next(filter(None, found.groups())))


def _width(words: str) -> int:
    """How many columns words take, of which a wide character has two."""
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in words[:4])
