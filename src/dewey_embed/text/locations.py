"""Where ranges of a text stand in its file, by the landmarks of the text."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter

from dewey_embed.printable import one_line
from dewey_embed.types import Landmark, LandmarkKind, Location

_char = itemgetter(0)


def location_of(
    landmarks: Sequence[Landmark], text: str, char_start: int, char_end: int
) -> Location:
    """Where the characters `char_start` to `char_end` of a text stand in its file.

    `landmarks` are the text's, in order. What none of them tells is left unknown. White space at
    the ends of the range does not count. For many ranges of one text, make its `Places` once.

    >>> pages = [Landmark(0, "page", 1), Landmark(6, "page", 2)]
    >>> location_of(pages, "first second", 6, 12)
    Location(page=2, last_page=2)
    """
    return Places(landmarks, text).location(char_start, char_end)


class Places:
    """A text's landmarks, arranged so that the location of a range is found at once.

    >>> places = Places([Landmark(0, "heading", 1, "Rent"), Landmark(9, "heading", 2, "Due")], "")
    >>> [places.location(at, at + 1).headings for at in (5, 9)]
    [('Rent',), ('Rent', 'Due')]
    """

    def __init__(self, landmarks: Sequence[Landmark], text: str) -> None:
        self._text = text
        self._of: dict[LandmarkKind, list[Landmark]] = defaultdict(list)
        for each in landmarks:
            self._of[each[1]].append(each)
        self._above = _above(self._of["heading"])

    def location(self, char_start: int, char_end: int) -> Location:
        """Where the characters `char_start` to `char_end` stand."""
        start, last = self._trimmed(char_start, char_end)
        page, slide, sheet, cell = (
            self._standing(kind, start) for kind in ("page", "slide", "sheet", "cell")
        )
        last_page = page and self._last("page", last)[0]
        line, last_line = self._numbers("line", start, last)
        row, last_row = self._numbers("row", start, self._before_next("sheet", start, last))
        return Location(
            page=page and page.number,
            last_page=last_page and last_page.number,
            page_label=page.label if page else "",
            slide=slide and slide.number,
            sheet=sheet.label if sheet else "",
            row=row,
            last_row=last_row,
            cell=cell and cell.number,
            line=line,
            last_line=last_line,
            headings=self._headings(start),
        )

    def _trimmed(self, char_start: int, char_end: int) -> tuple[int, int]:
        """The first and the last character of a range that are no white space."""
        passage = self._text[char_start:char_end]
        if passage.strip():
            char_end = char_start + len(passage.rstrip())
            char_start += len(passage) - len(passage.lstrip())
        return char_start, max(char_start, char_end - 1)

    def _standing(self, kind: LandmarkKind, char: int) -> Landmark | None:
        """The landmark that a character stands under, unless it ended what came before."""
        position = bisect_right(self._of[kind], char, key=_char)
        found = self._of[kind][position - 1] if position else None
        return found if found and found.number else None

    def _last(self, kind: LandmarkKind, last: int) -> tuple[Landmark, int]:
        """The last landmark of a range that begins under one, and the last character under it."""
        position = bisect_right(self._of[kind], last, key=_char) - 1
        while not self._of[kind][position].number:
            last = self._of[kind][position].char - 1
            position = bisect_right(self._of[kind], last, key=_char) - 1
        return self._of[kind][position], last

    def _before_next(self, kind: LandmarkKind, start: int, last: int) -> int:
        """The last character of a range before the next landmark of a kind."""
        position = bisect_right(self._of[kind], start, key=_char)
        following = self._of[kind][position : position + 1]
        return min(last, following[0].char - 1) if following else last

    def _numbers(
        self, kind: LandmarkKind, start: int, last: int
    ) -> tuple[int, int] | tuple[None, None]:
        """The numbers of the lines, or rows, at the ends of a range."""
        first = self._standing(kind, start)
        return (
            (self._counted(first, start), self._counted(*self._last(kind, last)))
            if first
            else (None, None)
        )

    def _counted(self, landmark: Landmark, char: int) -> int:
        """The number of the line, or row, at a character."""
        return landmark.number + self._text.count("\n", landmark.char, char)

    def _headings(self, char: int) -> tuple[str, ...]:
        """The words of the headings above a character, the widest first."""
        headings = self._of["heading"]
        position = bisect_right(headings, char, key=_char) - 1
        words = []
        while position >= 0:
            if headings[position].number and headings[position].label:
                words.append(headings[position].label)
            position = self._above[position]
        return tuple(reversed(words))


def _above(headings: Sequence[Landmark]) -> list[int]:
    """For each heading the position of the next wider one above it, or -1."""
    above: list[int] = []
    path: list[int] = []
    for position, each in enumerate(headings):
        while path and headings[path[-1]].number >= each.number:
            path.pop()
        above.append(path[-1] if path else -1)
        if each.number:
            path.append(position)
    return above


def place_in_words(location: Location) -> str:
    """Where a passage stands, as people say it.

    >>> place_in_words(Location(page=12, last_page=13, headings=("Rent", "Late payment")))
    'pp. 12–13 · Rent › Late payment'
    """
    page = _numbered("p.", "pp.", location.page, location.last_page)
    if page and location.page_label:
        page = f"p. {one_line(location.page_label)} ({page} of the file)"
    parts = [
        page,
        f"slide {location.slide}" if location.slide else "",
        f"sheet {one_line(location.sheet)}" if location.sheet else "",
        _numbered("row", "rows", location.row, location.last_row),
        f"cell {location.cell}" if location.cell else "",
        " › ".join(map(one_line, location.headings)),
        _numbered("line", "lines", location.line, location.last_line),
    ]
    return " · ".join(filter(None, parts))


def _numbered(one: str, several: str, first: int | None, last: int | None) -> str:
    """A number, or a range of numbers, with what is numbered."""
    if first is None:
        return ""
    return f"{one} {first}" if last in (None, first) else f"{several} {first}–{last}"
