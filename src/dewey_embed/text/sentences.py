"""Where the sentences of a text begin: also its list items, table rows, headings and paragraphs.

A sentence ends at a full stop, question or exclamation mark of any script that white space follows
(of Chinese and Japanese, none need follow), unless the stop belongs to an abbreviation or an
initial. A line within a paragraph is no end: texts are often wrapped.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from dewey_embed.types import Landmark

_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|no|nos|vs|v|e.g|i.e|cf|fig|figs|eq|eqs|al|etc|inc|ltd|co|corp|jr|sr|dept|"
    "approx|para|paras|art|arts|sec|secs|ch|chs|pp|p|vol|vols|ed|eds|gen|gov|sen|rep|rev|hon|jan|"
    "feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|u.s|u.k|u.s.c|f.2d|f.3d|a.m|p.m|ph.d|z.b|d.h|"
    "bzw|usw|ca|nr"
).replace(".", r"\.")

_END = re.compile(
    r"""
    (?<![.!?…؟।॥]) [.!?…؟।॥]++ ["'”’»)\]]*+ (?=\s)  # the end of a sentence
    | [。！？｡．]+ [」』”’）]*                     # of one in a script without spaces
    | \n [^\S\n]* \n\s*                          # an empty line
    | \n (?= [^\S\n]* (?: [-*•‣◦–—]\s | [|>] | \#{1,6}\s          # a list item, a row, a heading
                       | \(? (?: \d{1,3} | [a-z] | [ivx]{1,5} ) [.)]\s ))
    | (?<= \|) [^\S\n]* \n                       # a row of a table
    | (?<= \n) (?= [A-Z][\w.'-]{0,20}(?:\ [A-Z][\w.'-]{0,20}){0,2}:\s)  # a speaker's turn
    """,
    re.VERBOSE,
)
SECTIONS = ("heading", "slide", "sheet", "cell")
"""Landmarks at which a sentence begins, and a section of the text."""

_ROWS_END = (*SECTIONS, "row", "page")
_HEADING = re.compile(r"(?m)^\#{1,6}[^\S\n][^\n]*\n")
_ABBREVIATION = re.compile(rf"(?:^|[\s(\[“\"'])(?:{_ABBREVIATIONS}|[^\W\d_])\.$", re.IGNORECASE)
_VISIBLE = re.compile(r"\S")
_LOOK_BACK = 16
"""Characters before a full stop that tell whether it ends an abbreviation."""


def sentence_starts(text: str, begins: Iterable[int] = ()) -> list[int]:
    """Characters at which sentences begin, in order; the first is 0, for a text that has any.

    `begins` are further characters at which one begins, or in the blanks before it.

    >>> text = "Dr. Smith pays the rent. Who owns the roof?"
    >>> sentence_starts(text)
    [0, 25]
    """
    ends = {*begins, *(match.end() for match in _HEADING.finditer(text))}
    for match in _END.finditer(text):
        end = match.end()
        if match.group() == "." and _ABBREVIATION.search(text, max(0, end - _LOOK_BACK), end):
            continue
        ends.add(end)
    starts = [0] if text else []
    for end in sorted(ends):
        visible = _VISIBLE.search(text, end)
        if visible and starts[-1] < visible.start():
            starts.append(visible.start())
    return starts


def unit_starts(text: str, landmarks: Sequence[Landmark]) -> list[int]:
    r"""Characters at which headings, slides, sheets, cells and rows begin, and ends of headings.

    >>> headings = [Landmark(0, "heading", 1, "Late payment")]
    >>> unit_starts("Late payment\nInterest is due", headings)
    [0, 12]
    """
    starts: list[int] = []
    rows_from: int | None = None
    for landmark in landmarks:
        if rows_from is not None and landmark.kind in _ROWS_END:
            starts += _lines(text, rows_from, landmark.char)
            rows_from = None
        if landmark.kind == "row" and landmark.number:
            rows_from = landmark.char
        if landmark.kind in SECTIONS:
            starts.append(landmark.char)
    starts += [end for _, end in headings_in(text, landmarks)]
    if rows_from is not None:
        starts += _lines(text, rows_from, len(text))
    return starts


def _lines(text: str, start: int, end: int) -> Iterator[int]:
    """Characters at which lines of a range begin."""
    yield start
    while 0 <= (start := text.find("\n", start, end)) < end - 1:
        start += 1
        yield start


def headings_in(text: str, landmarks: Sequence[Landmark]) -> list[tuple[int, int]]:
    r"""The characters of headings that stand in the text as their labels say, in order.

    >>> headings_in("# Rent\nIt is due", [Landmark(0, "heading", 1, "Rent")])
    [(0, 6)]
    """
    ranges = []
    for landmark in landmarks:
        if landmark.kind == "heading" and landmark.label:
            words = r"\s+".join(map(re.escape, landmark.label.split()))
            found = re.compile(rf"[\s#=*]*{words}", re.IGNORECASE).match(text, landmark.char)
            if found:
                ranges.append(found.span())
    return ranges


def widened(
    text: str, start: int, end: int, num: int, landmarks: Sequence[Landmark] = ()
) -> tuple[int, int]:
    """A range of a text's characters with `num` sentences more before it, and as many after it.

    >>> text = "One. Two. Three. Four. Five."
    >>> start, end = widened(text, 10, 16, 1)
    >>> text[start:end]
    'Two. Three. Four.'
    """
    if num <= 0:
        return start, end
    starts = [*sentence_starts(text, unit_starts(text, landmarks)), len(text)]
    first = max(0, bisect_right(starts, start) - 1 - num)
    last = min(len(starts) - 1, bisect_left(starts, end) + num)
    wide = text[starts[first] : starts[last]]
    return min(start, starts[first]), max(end, starts[first] + len(wide.rstrip()))
