"""The outline of a PDF (its bookmarks) → headings, each where its section begins."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dewey_embed.types import Landmark

# What a heading's line has before the words of its bookmark: its number.
_NUMBER = re.compile(
    r"(?:(?:chapter|part|section|appendix|article|§)(?:[ivxlc]+|[a-z])?|[ivxlc]{1,7}[.):–—-]"
    r"|[a-z][.):–—-]|[\d.):–—-])*"
)
_MAX_NUMBER = 40
MAX_SOUGHT = 200
"""Bookmarks of one page that are looked for among its lines; of more, none is."""
_SPACE = re.compile(r"\s+")


@dataclass(slots=True, eq=False)
class Bookmark:
    """A title of the outline, and the index of the page that it leads to, or -1.

    `top` is the height on the page that it leads to, in points, where it names one, and `share` how
    much of the page's text stands above that, from 0 to 1. `char` is where its section begins, once
    that is known. One that `leads_out` of the file begins no section.
    """

    title: str
    parent: Bookmark | None
    page: int
    top: float | None = None
    share: float | None = None
    leads_out: bool = False
    char: int = -1

    @property
    def path(self) -> list[Bookmark]:
        """The bookmark after those that it stands under, the widest first."""
        path = [self]
        while (above := path[-1].parent) is not None:
            path.append(above)
        return path[::-1]


def place(bookmarks: Sequence[Bookmark], page: str, start: int) -> None:
    r"""Set where in the text bookmarks begin that lead to one page, whose text begins at `start`.

    That is at the lines that are the bookmark's title. Of several such lines it is the one nearest
    to `share` of the text; where that is unknown, the last ones are those of the bookmarks with
    that title: running heads come first. Without such a line it is at `share` of the text, or
    where the page begins.

    >>> bookmark = Bookmark("The rent", None, page=11)
    >>> place([bookmark], "12\n1. The\nrent\nThe rent is due.", start=100)
    >>> bookmark.char
    103
    """
    lines = page.split("\n") if len(bookmarks) <= MAX_SOUGHT else []
    letters = [_letters(line) for line in lines]
    chars = [*accumulate((len(line) + 1 for line in lines), initial=start)]
    above = [*accumulate(map(len, letters), initial=0)]
    by_title: dict[str, list[Bookmark]] = defaultdict(list)
    for each in bookmarks:
        by_title[_letters(each.title)].append(each)
    for wanted, same in by_title.items():
        found = [
            number for number in range(len(lines)) if wanted and _begins(letters, number, wanted)
        ]
        for back, each in enumerate(reversed(same), start=1):
            if found and each.share is None:
                line = found[max(-back, -len(found))]
            elif found:
                line = min(found, key=lambda at: abs(above[at] / above[-1] - (each.share or 0)))
            else:
                line = bisect_left(above, (each.share or 0) * above[-1] - 0.5)
            each.char = chars[line]


def _letters(text: str) -> str:
    return _SPACE.sub("", text).casefold()


def _begins(lines: Sequence[str], number: int, wanted: str) -> bool:
    """Whether a title fills the lines from one on, but for the number before it."""
    joined = ""
    for line in lines[number : number + 4]:
        joined += line
        if len(joined) > len(wanted) + _MAX_NUMBER:
            return False
        if joined.endswith(wanted) and line:
            return bool(_NUMBER.fullmatch(joined[: -len(wanted)]))
    return False


def headings(bookmarks: Sequence[Bookmark], starts: Sequence[int]) -> Iterator[Landmark]:
    """Landmarks of the headings of an outline, in the order of the text.

    `starts` are where the pages begin. A character stands under the bookmark before it that is the
    nearest, and under those above that one in the outline, wherever these lead. One whose place is
    unknown may begin on any page after that of the one before it, so there that one ends.
    """
    places: list[tuple[int, list[str]]] = []
    placed = {id(each) for one in bookmarks if one.char >= 0 for each in one.path}
    page = -1
    for bookmark in bookmarks:
        titles = [each.title for each in bookmark.path]
        if bookmark.char >= 0:
            places.append((bookmark.char, titles))
            page = bookmark.page
        elif not bookmark.leads_out and id(bookmark) not in placed and 0 <= page < len(starts) - 1:
            places.append((starts[page + 1], [*titles[:-1], ""]))
    standing: list[str] = []
    for char, titles in sorted(places, key=lambda place: place[0]):
        same = 0
        while same < min(len(standing), len(titles) - 1) and standing[same] == titles[same]:
            same += 1
        for level in range(same, len(titles)):
            yield Landmark(char, "heading", level + 1, titles[level])
        standing = titles
